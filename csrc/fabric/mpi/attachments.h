#pragma once
// The memory that is open in a dynamic window. By one thread at a time.

#include <atomic>
#include <cstdint>
#include <map>

#include "fabric/mpi/port.h"
#include "memory/region.h"

namespace pshpc::fabric::mpi {

class Attachments {
 public:
  explicit Attachments(const Port& port) : port_(port) {}

  // Regions inside of one that is attached share it: MPI forbids that attachments overlap.
  Status add(const memory::Region& region);
  void remove(std::uint32_t region_id);
  // Keeps what a span lies in attached, whatever becomes of its regions; false if it is not.
  bool hold(ConstSpan span);
  void release(ConstSpan span);
  void clear();
  // Any thread.
  std::size_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  struct Attached {
    Span span;
    unsigned users = 0;
  };

  using ByAddress = std::map<const std::uint8_t*, Attached>;

  ByAddress::iterator around(ConstSpan span);
  Status attach(Span span);
  void unuse(ByAddress::iterator attached);
  void detach(std::uint8_t* data);

  const Port& port_;
  std::map<std::uint32_t, std::uint8_t*> regions_;  // by id: where its attachment begins
  ByAddress attached_;
  std::atomic<std::size_t> count_{0};
};

}  // namespace pshpc::fabric::mpi
