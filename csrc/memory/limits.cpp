#include "memory/limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

namespace pshpc::memory {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kLargestSlice = 64 * kMiB;
constexpr std::uint64_t kSmallestSlice = 2 * kMiB;
constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// One number; "max", a missing file and cgroup v1's "no limit" (just under 2^63) are kUnlimited.
std::uint64_t read_bytes(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (!(file >> value) || value >= std::uint64_t{1} << 62) return kUnlimited;
  return value;
}

// The number behind `key` in lines of the form "key value" or "key: value kB".
std::uint64_t field(const std::vector<std::string>& lines, const std::string& key) {
  for (const std::string& line : lines) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const char* rest = line.c_str() + key.size();
    if (*rest != ' ' && *rest != ':') continue;
    return std::strtoull(rest + 1, nullptr, 10);
  }
  return 0;
}

bool lists(const std::string& commas, const std::string& word) {
  std::stringstream stream(commas);
  for (std::string part; std::getline(stream, part, ',');) {
    if (part == word) return true;
  }
  return false;
}

struct Hierarchy {
  const char* filesystem;           // as mountinfo names it
  const char* controller;           // v1: among the mount's options
  std::vector<const char*> limits;  // each file may hold a limit
  const char* usage;
  std::vector<const char*> reclaimable;  // in memory.stat: file pages, which the kernel can drop
};

const Hierarchy kVersion2{"cgroup2",
                          "",
                          {"memory.max", "memory.high"},
                          "memory.current",
                          {"inactive_file", "active_file"}};
const Hierarchy kVersion1{"cgroup",
                          "memory",
                          {"memory.limit_in_bytes"},
                          "memory.usage_in_bytes",
                          {"total_inactive_file", "total_active_file"}};

struct Mount {
  std::string root;   // the part of the hierarchy that is mounted
  std::string point;  // where; empty: not mounted
};

Mount find_mount(const std::string& root, const Hierarchy& hierarchy) {
  for (const std::string& line : read_lines(root + "/proc/self/mountinfo")) {
    std::stringstream words(line);
    std::string skipped, filesystem, options;
    Mount mount;
    words >> skipped >> skipped >> skipped >> mount.root >> mount.point;
    while (words >> skipped && skipped != "-") {
    }
    words >> filesystem >> skipped >> options;
    if (filesystem != hierarchy.filesystem) continue;
    if (*hierarchy.controller == '\0' || lists(options, hierarchy.controller)) return mount;
  }
  return {};
}

// This process' group, as /proc/self/cgroup names it: "id:controllers:path".
std::string own_group(const std::string& root, const Hierarchy& hierarchy) {
  for (const std::string& line : read_lines(root + "/proc/self/cgroup")) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool ours = *hierarchy.controller == '\0' ? controllers.empty()
                                                    : lists(controllers, hierarchy.controller);
    if (ours) return line.substr(second + 1);
  }
  return "/";
}

void account_level(const Hierarchy& hierarchy, const std::string& directory,
                   const std::string& name, MemoryLimits& into) {
  std::uint64_t limit = kUnlimited;
  for (const char* file : hierarchy.limits) {
    limit = std::min(limit, read_bytes(directory + "/" + file));
  }
  if (limit == kUnlimited) return;
  std::uint64_t usage = read_bytes(directory + "/" + hierarchy.usage);
  if (usage == kUnlimited) return;
  const auto stat = read_lines(directory + "/memory.stat");
  for (const char* key : hierarchy.reclaimable) usage -= std::min(usage, field(stat, key));
  const std::uint64_t available = limit > usage ? limit - usage : 0;
  const bool first = into.cgroup_limit == 0;
  into.cgroup_limit = first ? limit : std::min(into.cgroup_limit, limit);
  if (first || available < into.cgroup_available) {
    into.cgroup_available = available;
    into.cgroup_path = name;
  }
}

void account(const std::string& root, const Hierarchy& hierarchy, MemoryLimits& into) {
  const Mount mount = find_mount(root, hierarchy);
  if (mount.point.empty()) return;
  std::string group = own_group(root, hierarchy);
  // A container often has only its own group mounted, under a path that it cannot see.
  if (mount.root != "/") {
    group =
        group.compare(0, mount.root.size(), mount.root) == 0 ? group.substr(mount.root.size()) : "";
  }
  if (group.compare(0, 3, "/..") == 0) group.clear();
  while (!group.empty() && group.back() == '/') group.pop_back();
  for (;;) {
    std::string directory = root;
    directory.append(mount.point).append(group);
    account_level(hierarchy, directory, group.empty() ? "/" : group, into);
    if (group.empty()) return;
    group.erase(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

}  // namespace

std::uint64_t MemoryLimits::available() const {
  return cgroup_limit == 0 ? machine_available : std::min(machine_available, cgroup_available);
}

std::uint64_t MemoryLimits::spendable() const {
  const auto left = [](std::uint64_t free, std::uint64_t total) {
    const std::uint64_t kept = std::clamp(total / 50, 8 * kMiB, 512 * kMiB);
    return free > kept ? free - kept : 0;
  };
  const std::uint64_t machine = left(machine_available, machine_total);
  return cgroup_limit == 0 ? machine : std::min(machine, left(cgroup_available, cgroup_limit));
}

std::string MemoryLimits::nearest_bound() const {
  if (cgroup_limit == 0 || machine_available <= cgroup_available) return "the machine";
  return "the cgroup " + cgroup_path;
}

MemoryLimits read_memory_limits(const std::string& root) {
  MemoryLimits limits;
  const auto meminfo = read_lines(root + "/proc/meminfo");
  limits.machine_total = field(meminfo, "MemTotal") * 1024;
  limits.machine_available = field(meminfo, "MemAvailable") * 1024;
  if (limits.machine_total == 0) {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    limits.machine_total = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * page;
    limits.machine_available = static_cast<std::uint64_t>(::sysconf(_SC_AVPHYS_PAGES)) * page;
  }
  account(root, kVersion2, limits);
  account(root, kVersion1, limits);
  rlimit memlock{};
  ::getrlimit(RLIMIT_MEMLOCK, &memlock);
  limits.memlock_limit = memlock.rlim_cur == RLIM_INFINITY ? kUnlimited : memlock.rlim_cur;
  return limits;
}

std::uint64_t default_capacity(const MemoryLimits& limits, unsigned processes_on_node) {
  const std::uint64_t total = limits.cgroup_limit == 0
                                  ? limits.machine_total
                                  : std::min(limits.machine_total, limits.cgroup_limit);
  const std::uint64_t share = total / 4 / std::max(processes_on_node, 1u);
  return std::max(share / kMiB * kMiB, 16 * kMiB);
}

std::uint64_t default_capacity(unsigned processes_on_node) {
  return default_capacity(read_memory_limits(), processes_on_node);
}

Status take_in_slices(std::uint64_t size, const std::function<MemoryLimits()>& limits,
                      const std::function<Status(std::uint64_t, std::uint64_t)>& take) {
  for (std::uint64_t at = 0; at < size;) {
    const MemoryLimits now = limits();
    const std::uint64_t left = now.spendable();
    if (left < size - at) {
      return {Code::full,
              "only " + std::to_string(left) + " bytes are left to " + now.nearest_bound()};
    }
    const std::uint64_t slice = std::clamp(left / 64 / kMiB * kMiB, kSmallestSlice, kLargestSlice);
    const std::uint64_t length = std::min(slice, size - at);
    if (Status status = take(at, length); !status) return status;
    at += length;
  }
  return {};
}

}  // namespace pshpc::memory
