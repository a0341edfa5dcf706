#pragma once
// Callers that wait drive the transport themselves: the answer then costs no thread switch.
//
// One caller of the process spins at a time, with sched_yield between polls; the others sleep
// until something completes. A spin without news is short: then the progress thread takes over.

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "fabric/operation.h"
#include "fabric/poll_gauge.h"

namespace pshpc::fabric {

// What is driven: handles what there is, without blocking and without waiting for a lock.
class Drivable {
 public:
  virtual ~Drivable() = default;
  virtual unsigned try_progress() = 0;
  // The last driver has left, and nobody may come back.
  virtual void left() = 0;
  // A caller goes to sleep until something completes.
  virtual void sleeping() {}
};

class Drive {
 public:
  // `polls` in a row see nothing before the processor is offered to others.
  explicit Drive(Drivable& target, unsigned polls = 1) : target_(target), polls_(polls) {}

  // See Door::wait(). The same as the two below, one after the other.
  Status wait(const Operation& operation, Deadline deadline,
              const std::function<bool()>& interrupted);
  // Whether it is done by the time that a few polls take.
  bool wait_briefly(const Operation& operation);
  // A spin goes on until `patient_until`, though it sees nothing.
  Status wait_on(const Operation& operation, Deadline deadline,
                 const std::function<bool()>& interrupted, Nanoseconds patient_until = 0);

  // A caller spins now or did so until a moment ago and will likely be back. One thread asks.
  bool active() const;

  // Wakes those who sleep in wait(); after every publication.
  void notify();

 private:
  // Counts as a driver, until it ends in whatever way.
  class Driving {
   public:
    explicit Driving(std::atomic<int>& drivers) : drivers_(drivers) {
      drivers_.fetch_add(1, std::memory_order_relaxed);
    }
    ~Driving() { end(); }
    Driving(const Driving&) = delete;
    Driving& operator=(const Driving&) = delete;
    void end() {
      if (std::exchange(counts_, false)) drivers_.fetch_sub(1, std::memory_order_release);
    }

   private:
    std::atomic<int>& drivers_;
    bool counts_ = true;
  };

  void spin(const Operation& operation, Nanoseconds until, Nanoseconds patient_until);
  void leave(Driving& driving, bool returns);
  // True if it was woken, false if the time was up.
  bool sleep(const Operation& operation, Nanoseconds until);
  bool contended();

  unsigned poll(const Operation& operation);

  Drivable& target_;
  const unsigned polls_;
  // Of a cheap target, that does not say whether it has moved bytes: of whoever spins.
  PollGauge gauge_{4 * kMicrosecond};
  std::atomic<int> drivers_{0};
  // How many drivers left with what they wanted: likely to come back.
  std::atomic<std::uint32_t> left_{0};
  // When that was last seen to change.
  mutable std::uint32_t seen_left_ = 0;
  mutable Nanoseconds seen_at_ = 0;
  std::atomic<Nanoseconds> contended_until_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<std::uint32_t> published_{0};  // a futex
};

}  // namespace pshpc::fabric
