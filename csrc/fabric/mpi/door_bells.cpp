// Who is to progress MPI is told so, and who is told listens.

#include <algorithm>

#include "fabric/mpi/door.h"

namespace pshpc::fabric::mpi {
namespace {

constexpr int kBell = 1;
// Messages that a rank does not take use up what MPI has for those to others.
constexpr Nanoseconds kLongestPause = 100 * kMillisecond;
// A poll that takes longer was interrupted.
constexpr Nanoseconds kLongestPoll = 200 * kMicrosecond;
// So long more is waited for without a break, and with breaks.
constexpr Nanoseconds kServingPause = 20 * kMicrosecond, kServingLasts = 200 * kMicrosecond;
// A transfer that takes so long for a byte is one that nobody helps along.
constexpr std::size_t kNanosecondsPerByte = 4;

}  // namespace

Neighbour& MpiDoor::neighbour(int rank) {
  return neighbours_.try_emplace(rank, rank).first->second;
}

void MpiDoor::moving(int rank, std::size_t size) {
  Neighbour& target = neighbour(rank);
  const Nanoseconds time = now();
  const auto longest = static_cast<Nanoseconds>(size * kNanosecondsPerByte);
  moving_until_ = std::max(moving_until_.load(), time + options_.hot + longest);
  if (target.begin(size, time)) moving_.push_back(&target);
  wake_for_transfer(target, time);
}

void MpiDoor::moved(int rank) {
  Neighbour& target = neighbour(rank);
  if (!target.end(now())) return;
  moving_.erase(std::find(moving_.begin(), moving_.end(), &target));
  if (moving_.empty()) moving_until_ = 0;
}

void MpiDoor::answered(int rank) { neighbour(rank).answered(); }

void MpiDoor::ring(Neighbour& neighbour, Nanoseconds time) {
  if (neighbour.rank() == port_.rank || !neighbour.may_ring(time)) return;
  if (node_bells_.ring(neighbour.rank())) return neighbour.rang(time, options_.hot);
  neighbour.rang(time, kLongestPause);
  flights_.start(
      "ringing",
      [&](Flights::Flight& flight) {
        return port_.api->isend(&flight.operand, 0, port_.api->constants.byte, neighbour.rank(),
                                kBell, port_.comm, &flight.request);
      },
      [](const Status&, std::uint64_t) {});
}

// Not where MPI sees to that without us. Messages need our threads all the same.
void MpiDoor::wake_for_transfer(Neighbour& neighbour, Nanoseconds time) {
  if (!port_.api->settings().progresses_itself && neighbour.needs_bell(time)) ring(neighbour, time);
}

void MpiDoor::keep_peers_awake() {
  if (moving_.empty()) return;
  const Nanoseconds time = now();
  for (Neighbour* neighbour : moving_) wake_for_transfer(*neighbour, time);
}

// Whether the thread moves bytes for others: MPI does not tell, but it takes time. Who does so
// neither sleeps nor yields until nothing more has come for a while.
bool MpiDoor::served(Nanoseconds took, Nanoseconds time) {
  const bool busy = gauge_.busy(took);
  if (!hot(time)) return false;
  if (busy && took <= kLongestPoll) {
    serving_until_ = time + kServingPause;
    heard_until_ = std::max(heard_until_.load(), time + kServingLasts);
  }
  return time < serving_until_;
}

void MpiDoor::heard() { heard_until_ = std::max(heard_until_.load(), now() + options_.hot); }

unsigned MpiDoor::listen() {
  const Api& api = *port_.api;
  unsigned bells = 0;
  for (;;) {
    int there = 0;
    Handle bell = 0;
    StatusRoom ignored;
    if (api.improbe(api.constants.any_source, kBell, port_.comm, &there, &bell, &ignored) != 0 ||
        there == 0)
      break;
    std::uint64_t nothing = 0;
    if (api.mrecv(&nothing, 0, api.constants.byte, &bell, &ignored) != 0) break;
    ++bells;
  }
  if (bells > 0) heard();
  return bells;
}

}  // namespace pshpc::fabric::mpi
