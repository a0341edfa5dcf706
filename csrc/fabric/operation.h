#pragma once
// One transfer or message in flight.

#include <atomic>
#include <memory>
#include <utility>

#include "base/status.h"

namespace pshpc::fabric {

// The caller owns it until it is done. A caller that cannot wait any longer abandons it together
// with the memory it works on; it then deletes itself when it completes.
class Operation {
 public:
  Operation() = default;
  explicit Operation(std::shared_ptr<const void> keep) : keep_(std::move(keep)) {}
  virtual ~Operation() = default;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  // The caller will wait for it as soon as it is under way: until then no thread need see to it.
  void set_awaited() { awaited_ = true; }
  bool awaited() const { return awaited_; }

  bool done() const { return state_.load(std::memory_order_acquire) == State::done; }
  // Only after done().
  const Status& status() const { return status_; }

  // By whoever progresses the door, outside the door's lock. Once.
  void complete(Status status) {
    status_ = std::move(status);
    on_complete();
    if (state_.exchange(State::done, std::memory_order_acq_rel) == State::abandoned) delete this;
  }

  static void abandon(std::unique_ptr<Operation> operation) {
    Operation* raw = operation.release();
    if (raw->state_.exchange(State::abandoned, std::memory_order_acq_rel) == State::done)
      delete raw;
  }

 protected:
  // Runs before done() turns true; must not block.
  virtual void on_complete() {}

 private:
  enum class State { pending, done, abandoned };

  std::atomic<State> state_{State::pending};
  bool awaited_ = false;
  Status status_;
  std::shared_ptr<const void> keep_;
};

}  // namespace pshpc::fabric
