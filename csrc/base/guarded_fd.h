#pragma once
// A descriptor that a forked child closes by itself, and that the child's copy of its owner then
// leaves alone (the number may belong to something else by then).

#include <utility>

#include "base/fd.h"
#include "base/fork_guard.h"

namespace pshpc {

class GuardedFd {
 public:
  GuardedFd() = default;
  explicit GuardedFd(Fd fd) : fd_(std::move(fd)), birth_(fork_generation()) {
    if (fd_) close_in_child(fd_.get());
  }
  GuardedFd(GuardedFd&& other) noexcept : fd_(std::move(other.fd_)), birth_(other.birth_) {}
  GuardedFd& operator=(GuardedFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::move(other.fd_);
      birth_ = other.birth_;
    }
    return *this;
  }
  ~GuardedFd() { reset(); }

  // -1 in a forked child.
  int get() const { return birth_ == fork_generation() ? fd_.get() : -1; }
  explicit operator bool() const { return get() >= 0; }
  void reset() {
    if (!fd_) return;
    const int fd = fd_.release();
    if (birth_ == fork_generation()) close_guarded(fd);
  }

 private:
  Fd fd_;
  std::uint32_t birth_ = 0;
};

}  // namespace pshpc
