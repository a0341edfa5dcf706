#include "fabric/mpi/flights.h"

#include <mutex>
#include <utility>

namespace pshpc::fabric::mpi {
namespace {

// An MPI_Test that finds nothing progresses all of MPI; so many a poll are enough.
constexpr unsigned kTestsPerPoll = 16;

}  // namespace

Flights::Flight& Flights::prepare() {
  if (spare_.empty()) spare_.emplace_back();
  spare_.front().flight = {};
  return spare_.front().flight;
}

void Flights::launch(const char* what, Done done) {
  Entry& entry = spare_.front();
  entry.what = what;
  entry.done = std::move(done);
  flying_.splice(flying_.end(), spare_, spare_.begin());
}

void Flights::atomic(const char* what, Handle window, int rank, std::size_t at, Handle operation,
                     std::uint64_t operand, Done done) {
  const Constants& c = api_->constants;
  start(
      what,
      [&](Flight& flight) {
        flight.operand = operand;
        return api_->rget_accumulate(&flight.operand, 1, c.uint64, &flight.result, 1, c.uint64,
                                     rank, static_cast<Aint>(at), 1, c.uint64, operation, window,
                                     &flight.request);
      },
      std::move(done));
}

void Flights::leave() {
  if (flying_.empty()) return;
  static std::mutex mutex;
  static auto& left = *new std::list<Entry>;
  std::lock_guard<std::mutex> lock(mutex);
  left.splice(left.end(), flying_);
}

unsigned Flights::poll() {
  unsigned landed = 0, tests = 0;
  auto at = flying_.begin();
  for (; at != flying_.end() && tests < kTestsPerPoll; ++tests) {
    const auto entry = at++;
    int done = 0;
    StatusRoom ignored;
    const int code = api_->test(&entry->flight.request, &done, &ignored);
    if (code == 0 && done == 0) continue;
    // Taken out first: what comes after it may start others.
    std::list<Entry> taken;
    taken.splice(taken.end(), flying_, entry);
    const Done then = std::move(entry->done);
    then(api_->check(code, entry->what), entry->flight.result);
    spare_.splice(spare_.end(), taken);
    ++landed;
  }
  // The others have their turn next time.
  flying_.splice(flying_.end(), flying_, flying_.begin(), at);
  return landed;
}

}  // namespace pshpc::fabric::mpi
