#include "fabric/ucx/process.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "base/siphash.h"

namespace pshpc::fabric::ucx {
namespace {

std::string read_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text{};
  const ssize_t n = fd ? ::read(fd.get(), text.data(), text.size()) : 0;
  return n > 0 ? std::string(text.data(), static_cast<std::size_t>(n)) : "";
}

// Field 22 of /proc/<pid>/stat, counted after the name, which may hold anything but ends at the
// last parenthesis. 0 if there is no such process.
std::uint64_t start_time(pid_t pid) {
  const std::string text = read_file("/proc/" + std::to_string(pid) + "/stat");
  std::size_t at = text.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at, nullptr, 10);
}

std::uint64_t this_namespace() {
  struct stat info{};
  if (::stat("/proc/self/ns/pid", &info) != 0) return 0;
  const std::string machine = read_file("/proc/sys/kernel/random/boot_id");
  const Tag tag = siphash128(Tag{}, ConstSpan(machine));
  std::uint64_t mixed = 0;
  std::copy_n(tag.begin(), sizeof mixed, reinterpret_cast<std::uint8_t*>(&mixed));
  return mixed ^ info.st_ino;
}

}  // namespace

ProcessId ProcessId::self() {
  ProcessId id;
  id.pid = ::getpid();
  id.started = start_time(id.pid);
  id.pid_namespace = this_namespace();
  return id;
}

void ProcessId::encode(WireWriter& writer) const {
  writer.put(static_cast<std::int32_t>(pid)).put(started).put(pid_namespace);
}

ProcessId ProcessId::decode(WireReader& reader) {
  ProcessId id;
  id.pid = reader.get<std::int32_t>();
  id.started = reader.get<std::uint64_t>();
  id.pid_namespace = reader.get<std::uint64_t>();
  return id;
}

Fd ProcessId::open() const {
  if (pid <= 0 || !visible()) return Fd();
  Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  // Asked after opening: the pid cannot have gone to another process since.
  if (process && start_time(pid) != started) process.reset();
  return process;
}

bool ProcessId::gone() const { return pid > 0 && visible() && start_time(pid) != started; }

Status DeathWatch::open(int transport_fd) {
  epoll_ = GuardedFd(Fd(::epoll_create1(EPOLL_CLOEXEC)));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  if (!epoll_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, transport_fd, &event) != 0)
    return system_error("watching the descriptor of a UCX worker");
  return {};
}

void DeathWatch::add(Fd process, Mourner& mourner) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &mourner;
  if (process && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, process.get(), &event) == 0)
    processes_[&mourner] = std::move(process);
}

void DeathWatch::remove(Mourner& mourner) { processes_.erase(&mourner); }

unsigned DeathWatch::check() {
  if (processes_.empty()) return 0;
  std::array<epoll_event, 16> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  unsigned deaths = 0;
  for (int i = 0; i < count; ++i) {
    auto* mourner = static_cast<Mourner*>(events[static_cast<std::size_t>(i)].data.ptr);
    if (mourner == nullptr || processes_.erase(mourner) == 0) continue;
    mourner->died_locked();
    ++deaths;
  }
  return deaths;
}

}  // namespace pshpc::fabric::ucx
