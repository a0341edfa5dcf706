#pragma once
// Reads through a transport: one-sided where the lanes can, else the owner's progress thread sends.

#include <memory>
#include <optional>

#include "base/clock.h"
#include "fabric/door.h"
#include "memory/pool.h"
#include "objects/doors.h"
#include "objects/link.h"

namespace pshpc::objects {

// One stored object's payload on its way into a pool buffer. Several may be under way at once.
class DoorRead {
 public:
  // The buffer has room for the header and the payload.
  DoorRead(std::shared_ptr<Link> link, fabric::DoorHandle door, Key key,
           std::shared_ptr<memory::Pool::Buffer> buffer);
  ~DoorRead();
  DoorRead(DoorRead&&) noexcept;

  Status start(Deadline deadline);
  // Waits and validates. Once.
  Status finish(Deadline deadline);
  const std::shared_ptr<memory::Pool::Buffer>& buffer() const { return buffer_; }
  const char* door_name() const { return stable_name(door_->name()); }

 private:
  Status validate(Deadline deadline);

  std::shared_ptr<Link> link_;
  fabric::DoorHandle door_;
  Key key_;
  std::shared_ptr<memory::Pool::Buffer> buffer_;
  std::shared_ptr<fabric::Channel> channel_;
  std::shared_ptr<fabric::RemoteRegion> region_;
  std::unique_ptr<fabric::Operation> operation_;
  rpc::Call* call_ = nullptr;  // the operation, when the owner sends
  Nanoseconds started_ = 0;
};

// Bytes [offset, ...) of a payload, stored or live, into memory of the caller's. When time runs out
// the channel is closed before this returns, so that nothing is written there afterwards.
Status read_through_door(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                         const Key& key, std::uint64_t offset, Span into, Deadline deadline);

// Whether the object is there, in the length that its key says: asked before much memory is taken
// for it. A null door stands for our own connection.
Status confirm_remotely(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                        const Key& key, Deadline deadline);

// Whether the object is where its key says, by a look at the owner's memory that costs the owner
// nothing. False also if there is no such look, or it did not come off: then the owner is asked.
bool seen_unchanged(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                    const Key& key, Deadline deadline);

// The last resort: over our own connection, piece by piece.
Status read_through_socket(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t offset,
                           Span into, Deadline deadline);

}  // namespace pshpc::objects
