#include "base/fork_guard.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

namespace pshpc {
namespace {

std::atomic<std::uint32_t> generation{0};

struct Registry {
  std::mutex mutex;
  std::vector<int> fds;
};

// Never destroyed: descriptors are forgotten by static objects that die in any order.
Registry& registry() {
  static Registry* instance = new Registry;
  return *instance;
}

void before_fork() { registry().mutex.lock(); }
void in_parent() { registry().mutex.unlock(); }
void in_child() {
  generation.fetch_add(1, std::memory_order_relaxed);
  for (int fd : registry().fds) ::close(fd);
  registry().fds.clear();
  registry().mutex.unlock();
}

void install_once() {
  static const int installed = ::pthread_atfork(before_fork, in_parent, in_child);
  static_cast<void>(installed);
}

}  // namespace

std::uint32_t fork_generation() {
  install_once();
  return generation.load(std::memory_order_relaxed);
}

void close_in_child(int fd) {
  install_once();
  std::lock_guard<std::mutex> lock(registry().mutex);
  registry().fds.push_back(fd);
}

void close_guarded(int fd) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& fds = registry().fds;
  fds.erase(std::remove(fds.begin(), fds.end(), fd), fds.end());
  ::close(fd);
}

}  // namespace pshpc
