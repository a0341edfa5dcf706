#pragma once
// The shm door: objects of another process on this node. None of it needs the owner to run, once
// its segment is mapped.

#include "base/clock.h"
#include "objects/doors.h"
#include "objects/lease.h"
#include "objects/link.h"

namespace pshpc::objects {

// From this payload on a writable result is a copy-on-write mapping rather than a copy.
inline constexpr std::uint64_t kCopyOnWriteFrom = 64 * 1024;

// A pinned view of a stored object's payload. Code::evicted when the block holds something else by
// now, Code::full when no pin can be had.
Expected<Lease> view_in_segment(const std::shared_ptr<Link>& link, const Key& key, bool writable,
                                Deadline deadline);

// Whether the object is there, in the length that its key says.
Status confirm_in_segment(const std::shared_ptr<Link>& link, const Key& key, Deadline deadline);

// Bytes [offset, ...) of a live object's payload, read from its owner's memory between two looks at
// its sequence. Code::changed when it kept changing until the deadline.
Status read_live_memory(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t offset,
                        Span into, Deadline deadline);

}  // namespace pshpc::objects
