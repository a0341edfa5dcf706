#pragma once
// Instances of a few megabytes in one process, that talk to each other as processes do.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "objects/instance.h"
#include "tests/check.h"

namespace pshpc::test {

inline objects::InstanceOptions small_options(std::vector<std::string> doors = {}) {
  objects::InstanceOptions options;
  options.store = "test";
  options.owner.arena.capacity = options.owner.arena.first_segment = 16 << 20;
  options.owner.grace = 20 * kMillisecond;
  options.pool.capacity = options.pool.first_segment = 16 << 20;
  options.doors = std::move(doors);
  options.rings = false;
  return options;
}

inline std::unique_ptr<objects::Instance> open_with(objects::InstanceOptions options) {
  auto instance = objects::Instance::create(std::move(options));
  if (!instance.ok()) note_failure(__FILE__, __LINE__, instance.status().message());
  REQUIRE(instance.ok());
  return std::move(instance).value();
}

inline std::unique_ptr<objects::Instance> open_instance(std::vector<std::string> doors = {}) {
  return open_with(small_options(std::move(doors)));
}

inline Deadline in_time() { return Deadline::after(20 * kSecond); }

// Bytes that tell where they stand.
inline Bytes patterned(std::size_t size, std::uint8_t seed = 0) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::uint8_t>(seed + i * 7 + (i >> 8));
  return bytes;
}

inline objects::Key store(objects::Instance& instance, ConstSpan bytes,
                          const objects::Policy& policy = {}) {
  auto key = instance.owner()->put(bytes.size, {{0, bytes}}, policy);
  REQUIRE(key.ok());
  return std::move(key).value();
}

inline bool holds(const Expected<objects::Lease>& lease, ConstSpan bytes) {
  if (!lease.ok()) {
    note_failure(__FILE__, __LINE__, lease.status().message());
    return false;
  }
  return lease->memory.size == bytes.size &&
         (bytes.empty() || std::memcmp(lease->memory.data, bytes.data, bytes.size) == 0);
}

inline Code code_of(const Expected<objects::Lease>& lease) { return lease.status().code(); }

}  // namespace pshpc::test
