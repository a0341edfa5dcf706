#include "rpc/exposure.h"

#include <utility>

#include "base/log.h"

namespace pshpc::rpc {

void Exposure::add_door(fabric::DoorHandle door) {
  std::lock_guard<std::mutex> changing(changing_);
  for (const auto& [id, region] : regions_) expose(*door, region);
  std::lock_guard<std::mutex> lock(mutex_);
  doors_.push_back(std::move(door));
}

std::vector<fabric::DoorHandle> Exposure::doors() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return doors_;
}

fabric::DoorHandle Exposure::door(const std::string& name) const {
  for (const auto& door : doors())
    if (door->name() == name) return door;
  return nullptr;
}

void Exposure::expose(fabric::Door& door, const memory::Region& region) {
  if (!door.moves_memory()) return;
  auto handle = door.expose(region);
  if (!handle) {
    log_warn_once("the " + door.name() +
                  " door cannot register memory: " + handle.status().message());
    return;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  handles_[{door.name(), region.id}] = std::move(handle).value();
}

void Exposure::add(const memory::Region& region) {
  std::lock_guard<std::mutex> changing(changing_);
  regions_[region.id] = region;
  for (const auto& door : doors()) expose(*door, region);
}

void Exposure::remove(std::uint32_t region_id) {
  std::lock_guard<std::mutex> changing(changing_);
  regions_.erase(region_id);
  for (const auto& door : doors()) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (handles_.erase({door->name(), region_id}) == 0) continue;
    }
    door->withdraw(region_id);
  }
}

Expected<Bytes> Exposure::handle(const std::string& door, std::uint32_t region_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handles_.find({door, region_id});
  if (found == handles_.end())
    return Status(Code::unavailable, "that memory is not registered at the " + door + " door");
  return found->second;
}

}  // namespace pshpc::rpc
