#pragma once
// How much memory this process may take.

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"

namespace pshpc::memory {

struct MemoryLimits {
  std::uint64_t machine_total = 0;
  std::uint64_t machine_available = 0;
  std::uint64_t cgroup_limit = 0;      // the smallest of all levels; 0: none
  std::uint64_t cgroup_available = 0;  // of the tightest level; meaningful when there is a limit
  std::uint64_t memlock_limit = 0;     // RLIMIT_MEMLOCK; UINT64_MAX: unlimited
  std::string cgroup_path;             // the tightest level

  // What can still be had, whichever bound is the nearest.
  std::uint64_t available() const;
  // What is left of that when the rest of the machine keeps room to breathe: arenas stop here, as
  // the kernel would rather kill a process than refuse the last page.
  std::uint64_t spendable() const;
  // "the machine" or "the cgroup /path", for messages.
  std::string nearest_bound() const;
};

// cgroup v2 (every level up to the root) and v1. `root` is put before every path that is read.
MemoryLimits read_memory_limits(const std::string& root = "");

// A quarter of the machine's (or cgroup's) memory, divided by the job's processes on this node.
std::uint64_t default_capacity(unsigned processes_on_node);
std::uint64_t default_capacity(const MemoryLimits& limits, unsigned processes_on_node);

// Calls take(offset, length) for slice after slice of `size` bytes, and looks at the limits before
// each: of many processes that grow at once, none takes more than a small part of what was left
// when it looked. Code::full as soon as the rest does not fit any more.
Status take_in_slices(std::uint64_t size, const std::function<MemoryLimits()>& limits,
                      const std::function<Status(std::uint64_t, std::uint64_t)>& take);

}  // namespace pshpc::memory
