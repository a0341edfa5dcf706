#pragma once
// Wakes the progress thread of another rank on this node at once: through a socket pair for each
// connection, since MPI has nothing to sleep on. Any thread.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/status.h"

namespace pshpc::fabric::mpi {

class NodeBells {
 public:
  static Status make(Fd* one, Fd* other);

  // Bells are watched by this epoll, whose other descriptors have the data 0.
  void use(int epoll) { epoll_ = epoll; }
  // One end of the bell of a connection, which is not 0.
  void add(int rank, std::uint64_t connection, GuardedFd end);
  void remove(std::uint64_t connection);
  void clear();

  // False where no bell hangs.
  bool ring(int rank);
  // How many were rung here.
  unsigned answer();
  std::size_t count() const;

 private:
  struct Bell {
    int rank = 0;
    std::shared_ptr<GuardedFd> end;
  };
  std::shared_ptr<GuardedFd> end_of(std::uint64_t connection) const;

  int epoll_ = -1;
  mutable std::mutex mutex_;  // everything below
  std::map<std::uint64_t, Bell> bells_;
  std::map<int, std::uint64_t> by_rank_;
};

}  // namespace pshpc::fabric::mpi
