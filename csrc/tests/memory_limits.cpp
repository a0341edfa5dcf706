#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "memory/limits.h"
#include "tests/check.h"

using namespace pshpc::memory;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// A tree of files that stands for / in read_memory_limits().
class FakeRoot {
 public:
  FakeRoot() {
    char name[] = "/tmp/pshpc-limits-XXXXXX";
    path_ = ::mkdtemp(name);
    write("/proc/meminfo",
          "MemTotal:       8388608 kB\nMemFree:        1024 kB\nMemAvailable:   4194304 kB\n");
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path_ + path).parent_path());
    std::ofstream(path_ + path) << text;
  }
  MemoryLimits read() const { return read_memory_limits(path_); }

 private:
  std::string path_;
};

const std::string kVersion2Mount =
    "24 30 0:22 / /proc rw - proc proc rw\n"
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

}  // namespace

TEST(limits_of_this_machine) {
  const MemoryLimits limits = read_memory_limits();
  CHECK(limits.machine_total > 0);
  CHECK(limits.machine_available > 0);
  CHECK(limits.available() <= limits.machine_available);
  CHECK(limits.spendable() < limits.available());
  CHECK(default_capacity(1) >= default_capacity(4));
}

TEST(limits_without_cgroups) {
  FakeRoot root;
  const MemoryLimits limits = root.read();
  CHECK_EQ(limits.machine_total, 8192 * kMiB);
  CHECK_EQ(limits.available(), 4096 * kMiB);
  CHECK_EQ(limits.cgroup_limit, 0u);
  CHECK_EQ(limits.nearest_bound(), "the machine");
  CHECK_EQ(default_capacity(limits, 2), 1024 * kMiB);
}

TEST(limits_cgroup_v2_looks_at_every_level) {
  FakeRoot root;
  root.write("/proc/self/mountinfo", kVersion2Mount);
  root.write("/proc/self/cgroup", "0::/slurm/job_7/step_0\n");
  const std::string base = "/sys/fs/cgroup/slurm";
  root.write(base + "/job_7/step_0/memory.max", "max\n");
  root.write(base + "/job_7/memory.max", std::to_string(1024 * kMiB));
  root.write(base + "/job_7/memory.current", std::to_string(900 * kMiB));
  // File pages can be dropped, so they are no obstacle.
  root.write(base + "/job_7/memory.stat", "anon 5\ninactive_file " + std::to_string(100 * kMiB) +
                                              "\nactive_file " + std::to_string(24 * kMiB) + "\n");
  root.write(base + "/memory.max", std::to_string(2048 * kMiB));
  root.write(base + "/memory.current", std::to_string(1000 * kMiB));
  const MemoryLimits limits = root.read();
  CHECK_EQ(limits.cgroup_limit, 1024 * kMiB);
  CHECK_EQ(limits.cgroup_available, 248 * kMiB);
  CHECK_EQ(limits.cgroup_path, "/slurm/job_7");
  CHECK_EQ(limits.available(), 248 * kMiB);
  CHECK_EQ(limits.nearest_bound(), "the cgroup /slurm/job_7");
  CHECK_EQ(default_capacity(limits, 1), 256 * kMiB);
}

TEST(limits_cgroup_v2_throttling_bound_counts) {
  FakeRoot root;
  root.write("/proc/self/mountinfo", kVersion2Mount);
  root.write("/proc/self/cgroup", "0::/a\n");
  root.write("/sys/fs/cgroup/a/memory.max", std::to_string(1024 * kMiB));
  root.write("/sys/fs/cgroup/a/memory.high", std::to_string(512 * kMiB));
  root.write("/sys/fs/cgroup/a/memory.current", std::to_string(600 * kMiB));
  const MemoryLimits limits = root.read();
  CHECK_EQ(limits.cgroup_limit, 512 * kMiB);
  CHECK_EQ(limits.available(), 0u);
  CHECK_EQ(limits.spendable(), 0u);
}

TEST(limits_cgroup_v1_in_a_container) {
  FakeRoot root;
  // Only the container's own group is mounted, under a path of the outside.
  root.write("/proc/self/mountinfo",
             "35 24 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
             "36 24 0:31 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
  root.write("/proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/inner\n0::/\n");
  const std::string base = "/sys/fs/cgroup/memory";
  root.write(base + "/inner/memory.limit_in_bytes", "9223372036854771712\n");
  root.write(base + "/inner/memory.usage_in_bytes", "1\n");
  root.write(base + "/memory.limit_in_bytes", std::to_string(300 * kMiB));
  root.write(base + "/memory.usage_in_bytes", std::to_string(200 * kMiB));
  root.write(base + "/memory.stat",
             "inactive_file 7\ntotal_inactive_file " + std::to_string(20 * kMiB) + "\n");
  const MemoryLimits limits = root.read();
  CHECK_EQ(limits.cgroup_limit, 300 * kMiB);
  CHECK_EQ(limits.cgroup_available, 120 * kMiB);
  CHECK_EQ(limits.cgroup_path, "/");
}

TEST(limits_survive_garbage) {
  FakeRoot root;
  root.write("/proc/self/mountinfo", "\n- - -\n1 2 3\n" + kVersion2Mount + "x\n");
  root.write("/proc/self/cgroup", "::::\n0\n0::/../..\n");
  root.write("/sys/fs/cgroup/memory.max", "a lot\n");
  const MemoryLimits limits = root.read();
  CHECK_EQ(limits.cgroup_limit, 0u);
  CHECK_EQ(limits.available(), 4096 * kMiB);
}
