#pragma once
// Ways to exposed memory that the calling thread goes by itself, and what guards them.

#include <memory>
#include <vector>

#include "objects/bulk.h"
#include "objects/link.h"

namespace pshpc::objects {

// While this is held the owner does not take the memory back. Code::evicted if it did already,
// Code::unavailable if the owner's segments cannot be mapped here. On the same node only.
Expected<std::shared_ptr<const void>> hold_bulk(const std::shared_ptr<Link>& link, const Bulk& bulk,
                                                Deadline deadline);

// The shm door: segments of the owner are mapped and copied, private memory by the kernel.
// Code::unavailable where neither can be had.
Status move_on_node(const std::shared_ptr<Link>& link, const Bulk& bulk, Direction direction,
                    const std::vector<Stretch>& stretches, Deadline deadline);

// Our own connection, piece by piece.
Status move_through_socket(const std::shared_ptr<Link>& link, const Bulk& bulk, Direction direction,
                           const std::vector<Stretch>& stretches, Deadline deadline);

}  // namespace pshpc::objects
