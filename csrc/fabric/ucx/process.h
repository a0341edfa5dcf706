#pragma once
// Which process a worker address belongs to, and a wire that tells at once when it ends. UCX's own
// keepalive over shared memory comes late, not at all for a zombie, and from 1.20 on not while a
// transfer to the dead peer is in flight.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/status.h"
#include "base/wire.h"

namespace pshpc::fabric::ucx {

struct ProcessId {
  pid_t pid = 0;
  std::uint64_t started = 0;        // tells apart processes that had the same pid
  std::uint64_t pid_namespace = 0;  // and machine: a pid means nothing elsewhere

  static ProcessId self();
  void encode(WireWriter& writer) const;
  static ProcessId decode(WireReader& reader);

  bool visible() const { return pid_namespace != 0 && pid_namespace == self().pid_namespace; }
  // Readable when the process ends; none if it cannot be seen from here.
  Fd open() const;
  // It was visible and is no more.
  bool gone() const;
};

// Sleeps on one descriptor for a transport and for the ends of processes. Under the worker's lock.
class DeathWatch {
 public:
  class Mourner {
   public:
    virtual ~Mourner() = default;
    virtual void died_locked() = 0;
  };

  Status open(int transport_fd);
  int fd() const { return epoll_.get(); }

  void add(Fd process, Mourner& mourner);
  void remove(Mourner& mourner);
  // Tells the mourners of those who ended; how many did.
  unsigned check();

 private:
  GuardedFd epoll_;
  std::unordered_map<Mourner*, Fd> processes_;
};

}  // namespace pshpc::fabric::ucx
