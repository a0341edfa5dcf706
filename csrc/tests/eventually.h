#pragma once
// Waiting in tests for what another thread or process does.

#include <chrono>
#include <thread>

#include "base/clock.h"

namespace pshpc::test {

// Looks until the condition holds; false if it does not within the limit.
template <class Condition>
bool eventually(Condition condition, Nanoseconds limit = 10 * kSecond) {
  const Deadline deadline = Deadline::after(limit);
  while (!condition()) {
    if (deadline.passed()) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

}  // namespace pshpc::test
