#include "objects/exposure.h"

#include "base/log.h"

namespace pshpc::objects {

fabric::DoorHandle Exposure::door(const std::string& name) const {
  for (const auto& door : doors_)
    if (door->name() == name) return door;
  return nullptr;
}

void Exposure::add(const memory::Region& region) {
  for (const auto& door : doors_) {
    auto handle = door->expose(region);
    if (!handle) {
      log_warn_once("the " + door->name() +
                    " door cannot register memory: " + handle.status().message());
      continue;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    handles_[{door->name(), region.id}] = std::move(handle).value();
  }
}

void Exposure::remove(std::uint32_t region_id) {
  for (const auto& door : doors_) {
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

}  // namespace pshpc::objects
