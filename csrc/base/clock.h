#pragma once
// Monotonic time in nanoseconds, and the point in time by which an operation must have ended.

#include <ctime>

#include <cstdint>
#include <limits>

namespace pshpc {

using Nanoseconds = std::int64_t;

inline constexpr Nanoseconds kMicrosecond = 1'000;
inline constexpr Nanoseconds kMillisecond = 1'000'000;
inline constexpr Nanoseconds kSecond = 1'000'000'000;

inline Nanoseconds now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanoseconds>(t.tv_sec) * kSecond + t.tv_nsec;
}

// Up to some milliseconds behind now(), and several times cheaper.
inline Nanoseconds coarse_now() {
#ifdef CLOCK_MONOTONIC_COARSE
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return static_cast<Nanoseconds>(t.tv_sec) * kSecond + t.tv_nsec;
#else
  return now();
#endif
}

class Deadline {
 public:
  static Deadline after(Nanoseconds duration) { return Deadline(now() + duration); }
  // Negative times, and what is no number, have passed already.
  static Deadline after_seconds(double seconds) {
    if (!(seconds > 0)) return after(0);
    return seconds > 1e9 ? never() : after(static_cast<Nanoseconds>(seconds * 1e9));
  }
  static Deadline at_time(Nanoseconds time) { return Deadline(time); }
  static Deadline never() { return Deadline(std::numeric_limits<Nanoseconds>::max()); }

  Nanoseconds at() const { return at_; }
  bool passed() const { return now() >= at_; }
  // Never negative.
  Nanoseconds remaining() const {
    const Nanoseconds left = at_ - now();
    return left > 0 ? left : 0;
  }
  // For poll() and epoll_wait(): at least 1 while time is left, at most `cap`.
  int remaining_ms(int cap) const {
    const Nanoseconds left = remaining();
    if (left == 0) return 0;
    const Nanoseconds ms = left / kMillisecond + 1;
    return ms < cap ? static_cast<int>(ms) : cap;
  }

 private:
  explicit Deadline(Nanoseconds at) : at_(at) {}
  Nanoseconds at_;
};

}  // namespace pshpc
