#pragma once
// MPI requests under way, and what comes after each. By one thread at a time.

#include <functional>
#include <list>

#include "fabric/mpi/api.h"

namespace pshpc::fabric::mpi {

class Flights {
 public:
  struct Flight {
    Handle request = 0;
    // Of an atomic operation.
    std::uint64_t operand = 0, result = 0;
  };
  // Starts it: the code of the MPI call.
  using Post = std::function<int(Flight&)>;
  using Done = std::function<void(const Status&, std::uint64_t result)>;

  explicit Flights(std::shared_ptr<const Api> api) : api_(std::move(api)) {}

  void start(const char* what, const Post& post, Done done);
  // One atomic operation on a word of a rank's window.
  void atomic(const char* what, Handle window, int rank, std::size_t at, Handle operation,
              std::uint64_t operand, Done done);
  unsigned poll();
  bool empty() const { return flying_.empty(); }
  std::size_t size() const { return flying_.size(); }

 private:
  struct Entry {
    Flight flight;
    const char* what = "";
    Done done;
  };

  const std::shared_ptr<const Api> api_;
  std::list<Entry> flying_;
  std::list<Entry> spare_;
};

}  // namespace pshpc::fabric::mpi
