#pragma once
// MPI requests under way, and what comes after each. By one thread at a time.

#include <functional>
#include <list>
#include <memory>
#include <utility>

#include "fabric/mpi/api.h"

namespace pshpc::fabric::mpi {

class Flights {
 public:
  struct Flight {
    Handle request = 0;
    // Of an atomic operation.
    std::uint64_t operand = 0, result = 0;
  };
  using Done = std::function<void(const Status&, std::uint64_t result)>;

  explicit Flights(std::shared_ptr<const Api> api) : api_(std::move(api)) {}

  // `post(flight)` makes the MPI call and returns its code.
  template <class Post>
  void start(const char* what, const Post& post, Done done) {
    Flight& flight = prepare();
    const int code = post(flight);
    if (code != 0) return done(api_->check(code, what), 0);
    launch(what, std::move(done));
  }
  // One atomic operation on a word of a rank's window.
  void atomic(const char* what, Handle window, int rank, std::size_t at, Handle operation,
              std::uint64_t operand, Done done);
  unsigned poll();
  // Those that have not landed never will, but MPI may still write to their memory: it stays.
  void leave();
  bool empty() const { return flying_.empty(); }
  std::size_t size() const { return flying_.size(); }

 private:
  struct Entry {
    Flight flight;
    const char* what = "";
    Done done;
  };

  // The next one; it flies once launched.
  Flight& prepare();
  void launch(const char* what, Done done);

  const std::shared_ptr<const Api> api_;
  std::list<Entry> flying_;
  std::list<Entry> spare_;
};

}  // namespace pshpc::fabric::mpi
