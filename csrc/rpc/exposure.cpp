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
  if (!handle)
    log_warn_once("the " + door.name() +
                  " door cannot register memory: " + handle.status().message());
  std::lock_guard<std::mutex> lock(mutex_);
  handles_.insert_or_assign({door.name(), region.id}, std::move(handle));
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
      const auto handle = handles_.find({door->name(), region_id});
      if (handle == handles_.end()) continue;
      const bool exposed = static_cast<bool>(handle->second);
      handles_.erase(handle);
      if (!exposed) continue;
    }
    door->withdraw(region_id);
  }
}

Expected<Bytes> Exposure::handle(const std::string& door, std::uint32_t region_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handles_.find({door, region_id});
  if (found != handles_.end() && found->second) return found->second;
  std::string why = "that memory is not registered at the " + door + " door";
  if (found != handles_.end()) why += ": " + found->second.status().message();
  return Status(Code::unavailable, std::move(why));
}

}  // namespace pshpc::rpc
