#include "fabric/drive.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "base/relax.h"

namespace pshpc::fabric {
namespace {

// A spin that sees nothing for so long ends: the peer is busy or far away.
constexpr Nanoseconds kIdleSpin = 200 * kMicrosecond;
// Polls of a cheap target before the clock is looked at: some microseconds.
constexpr unsigned kBriefPolls = 100;
// So long the progress thread stays away after a driver has left, since most come back.
constexpr Nanoseconds kLinger = 200 * kMicrosecond;
// A yield that took so long gave the processor to somebody else: then sleeping is better than
// spinning for a while, since the scheduler lets those who wake up go first.
constexpr Nanoseconds kContendedYield = 200 * kMicrosecond;
constexpr Nanoseconds kContendedPause = 20 * kMillisecond;
// How often a waiting caller is asked whether it still wants to wait, at first and after a while.
constexpr Nanoseconds kFirstQuestion = 1 * kMillisecond;
constexpr Nanoseconds kLastQuestion = 16 * kMillisecond;

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t), "used as a futex");

// Two spinners of one process only take the processor from each other and from the peer.
std::atomic<bool> spinning{false};

class SpinToken {
 public:
  SpinToken() : mine_(!spinning.exchange(true, std::memory_order_acquire)) {}
  ~SpinToken() {
    if (mine_) spinning.store(false, std::memory_order_release);
  }
  SpinToken(const SpinToken&) = delete;
  SpinToken& operator=(const SpinToken&) = delete;
  explicit operator bool() const { return mine_; }

 private:
  bool mine_;
};

long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const timespec* timeout) {
  return ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, timeout,
                   nullptr, 0);
}

}  // namespace

Status Drive::wait(const Operation& operation, Deadline deadline,
                   const std::function<bool()>& interrupted) {
  return wait_briefly(operation) ? Status() : wait_on(operation, deadline, interrupted);
}

Status Drive::wait_on(const Operation& operation, Deadline deadline,
                      const std::function<bool()>& interrupted, Nanoseconds patient_until) {
  Nanoseconds pause = kFirstQuestion;
  Nanoseconds question = now() + pause;
  bool may_spin = !contended();
  while (!operation.done()) {
    const Nanoseconds time = now();
    if (time >= deadline.at()) return {Code::timed_out, "no answer by the deadline"};
    if (time >= question) {
      if (interrupted && interrupted()) return {Code::peer_lost, "the wait was given up"};
      pause = std::min(2 * pause, kLastQuestion);
      question = time + pause;
    }
    const Nanoseconds until = std::min(deadline.at(), question);
    if (may_spin) {
      const SpinToken token;
      if (token) {
        spin(operation, until, patient_until);
        // A spin that ended early saw nothing for long: leave it to the progress thread.
        may_spin = now() >= until && !contended();
        continue;
      }
    }
    target_.sleeping();
    may_spin = sleep(operation, until) && !contended();
  }
  return {};
}

// Without a look at the clock, which costs more than an answer that is there already.
bool Drive::wait_briefly(const Operation& operation) {
  if (operation.done()) return true;
  if (polls_ == 1 || contended_until_.load(std::memory_order_relaxed) != 0) return false;
  const SpinToken token;
  if (!token) return false;
  Driving driving(drivers_);
  for (unsigned i = 0; i < kBriefPolls && !operation.done(); ++i)
    if (target_.try_progress() == 0) relax();
  if (!operation.done()) return false;  // the wait goes on
  leave(driving, true);
  return true;
}

void Drive::leave(Driving& driving, bool returns) {
  const bool lingers = returns && sleepers_.load() == 0;
  if (lingers) left_.fetch_add(1, std::memory_order_relaxed);
  driving.end();
  if (!lingers) target_.left();
  // One of the sleepers may want to drive now.
  notify();
}

unsigned Drive::poll(const Operation& operation) {
  for (unsigned i = 1;; ++i) {
    const unsigned events = target_.try_progress();
    if (events > 0 || i >= polls_ || operation.done()) return events;
    relax();
  }
}

void Drive::spin(const Operation& operation, Nanoseconds until, Nanoseconds patient_until) {
  Driving driving(drivers_);
  Nanoseconds time = now();
  Nanoseconds give_up = std::max(time + kIdleSpin, patient_until);
  while (!operation.done()) {
    const unsigned events = poll(operation);
    const Nanoseconds polled = now();
    if (events > 0 || (polls_ > 1 && gauge_.busy(polled - time))) {
      time = polled;
      give_up = std::max(time + kIdleSpin, patient_until);
    } else {
      ::sched_yield();
      time = now();
      if (time - polled > kContendedYield) {
        contended_until_.store(time + kContendedPause, std::memory_order_relaxed);
        give_up = time;
      }
    }
    if (time >= give_up || time >= until) break;
  }
  leave(driving, operation.done() || time < give_up);
}

bool Drive::sleep(const Operation& operation, Nanoseconds until) {
  sleepers_.fetch_add(1);
  const std::uint32_t seen = published_.load();
  bool woken = true;
  if (!operation.done()) {
    const Nanoseconds span = std::max<Nanoseconds>(until - now(), 1);
    const timespec timeout{static_cast<time_t>(span / kSecond), static_cast<long>(span % kSecond)};
    futex(published_, FUTEX_WAIT_PRIVATE, seen, &timeout);
    woken = published_.load() != seen;
  }
  sleepers_.fetch_sub(1);
  return woken;
}

bool Drive::contended() {
  Nanoseconds until = contended_until_.load(std::memory_order_relaxed);
  if (until == 0) return false;
  if (now() < until) return true;
  contended_until_.compare_exchange_strong(until, 0, std::memory_order_relaxed);
  return false;
}

bool Drive::active() const {
  if (drivers_.load(std::memory_order_acquire) > 0) return true;
  const std::uint32_t left = left_.load(std::memory_order_relaxed);
  if (left == seen_left_ && seen_at_ == 0) return false;
  const Nanoseconds time = now();
  if (left != seen_left_) {
    seen_left_ = left;
    seen_at_ = time;
  }
  if (time - seen_at_ < kLinger) return true;
  seen_at_ = 0;
  return false;
}

void Drive::notify() {
  if (sleepers_.load() == 0) return;
  published_.fetch_add(1);
  futex(published_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr);
}

}  // namespace pshpc::fabric
