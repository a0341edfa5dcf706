#pragma once
// What stands at the start of every object's block, so that a reader can tell without asking
// whether the bytes are those that its key means.

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace pshpc::objects {

inline constexpr std::uint32_t kObjectMagic = 0x314a424f;  // "OBJ1"
inline constexpr std::size_t kHeaderSize = 64;
// A one-sided read that took more than half of it looks at the header again, whoever's grace it is.
inline constexpr Nanoseconds kShortestGrace = kMillisecond;

enum ObjectFlags : std::uint32_t {
  kPinned = 1,      // refuses eviction
  kRegistered = 2,  // the data lie in live memory of the owner, not in the block
  kRaised = 4,      // an exception in the place of the object that was waited for
  kGate = 8,        // says that memory of the owner's is exposed, and ends with the owner's process
};

// Lies in memory that other processes map. `generation` is 0 while the block is filled, the key's
// value while the object lives, and any other value afterwards: evicting changes it before anything
// else happens to the block.
struct ObjectHeader {
  std::uint32_t magic;
  std::uint32_t flags;
  std::uint64_t object_id;
  std::atomic<std::uint64_t> generation;
  std::uint64_t length;  // of the payload, which follows the header

  // Registered memory only. `sequence` is odd while the owner changes the data (a sequence lock).
  std::atomic<std::uint64_t> sequence;
  std::uint64_t live_address;
  std::uint64_t region_offset;  // of the live bytes, within the region that the doors know
  std::uint32_t live_region;    // that region's id
  std::uint32_t live_offset;    // where in the payload the live bytes belong, behind their prefix

  bool is(std::uint64_t id, std::uint64_t expected_generation) const {
    return generation.load(std::memory_order_acquire) == expected_generation &&
           magic == kObjectMagic && object_id == id;
  }
};
static_assert(sizeof(ObjectHeader) == kHeaderSize);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace pshpc::objects
