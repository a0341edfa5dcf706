#pragma once
// Memory of the store, as Python sees it.

#include <memory>

#include "bindings/core.h"
#include "objects/lease.h"
#include "objects/owner.h"

namespace pshpc::bindings {

// A payload with the buffer protocol: read-only unless its bytes are this process's alone. What is
// pinned is let go with the last buffer taken from it.
class PyLease {
 public:
  explicit PyLease(objects::Lease lease) : lease_(std::move(lease)) {}

  const objects::Lease& lease() const { return lease_; }

 private:
  objects::Lease lease_;
};

// A block that is written in place and then published: what `store.empty` stands on.
class PyBlock {
 public:
  PyBlock(std::shared_ptr<objects::Owner> owner, objects::Reservation reservation)
      : owner_(std::move(owner)), reservation_(reservation) {}
  PyBlock(const PyBlock&) = delete;
  PyBlock& operator=(const PyBlock&) = delete;
  ~PyBlock();

  Span payload() const { return reservation_.payload(); }
  // Once; the block stays pinned for as long as this lives, so the writer's array stays valid.
  Expected<objects::Key> publish(ConstSpan prefix, const objects::Policy& policy);
  bool published() const { return published_; }

 private:
  std::shared_ptr<objects::Owner> owner_;
  objects::Reservation reservation_;
  bool published_ = false;
  bool pinned_ = false;
};

}  // namespace pshpc::bindings
