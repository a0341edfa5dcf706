#pragma once
// Which memory is open at which door.

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fabric/door.h"
#include "memory/region.h"

namespace pshpc::rpc {

// Any thread.
class Exposure {
 public:
  // What is exposed already is exposed at the new door too. Doors stay.
  void add_door(fabric::DoorHandle door);
  std::vector<fabric::DoorHandle> doors() const;
  fabric::DoorHandle door(const std::string& name) const;

  // At every door. A door that cannot register it is left out and said so once; readers then come
  // through another.
  void add(const memory::Region& region);
  void remove(std::uint32_t region_id);
  Expected<Bytes> handle(const std::string& door, std::uint32_t region_id) const;

  // Ids of registered user memory do not meet those of segments.
  std::uint32_t next_live_region() { return next_live_++; }

 private:
  void expose(fabric::Door& door, const memory::Region& region);

  // Held while registering: a region and a door that come at the same time must meet.
  std::mutex changing_;
  mutable std::mutex mutex_;
  std::vector<fabric::DoorHandle> doors_;
  std::map<std::uint32_t, memory::Region> regions_;
  std::map<std::pair<std::string, std::uint32_t>, Expected<Bytes>> handles_;  // or why not
  std::atomic<std::uint32_t> next_live_{1u << 31};
};

}  // namespace pshpc::rpc
