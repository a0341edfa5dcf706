#pragma once
// Storing in another process's memory: a block is reserved there, filled through the cheapest door,
// and published. Until then nobody sees it; a writer that dies loses only its reservation.

#include <memory>
#include <vector>

#include "objects/doors.h"
#include "objects/link.h"
#include "objects/owner.h"

namespace pshpc::objects {

// What the stored object becomes: a new one, if the number is 0, or see Into.
struct Destination {
  ObjectRef object;
  std::uint64_t claim = 0;
};

Expected<Key> write_to(const std::shared_ptr<Link>& link, const rpc::Exposure& exposure,
                       const DoorChoice& doors, const Destination& to, std::uint64_t length,
                       const std::vector<Part>& parts, const Policy& policy, Deadline deadline);

}  // namespace pshpc::objects
