#pragma once
// Tells polls that moved bytes from those that found nothing, where only the time that they take
// shows it. What a poll costs depends on the machine and the transport: it is learnt. By one thread
// at a time.

#include <algorithm>

#include "base/clock.h"

namespace pshpc::fabric {

class PollGauge {
 public:
  // `least`: what moves bytes takes at least so long.
  explicit PollGauge(Nanoseconds least) : least_(least) {}

  bool busy(Nanoseconds took) {
    if (usual_ == 0) usual_ = took;
    const bool busy = took >= least_ && took >= kTimes * usual_;
    // Down at once, up slowly: a long transfer is not to pass for the usual.
    if (took < usual_)
      usual_ -= (usual_ - took + kFall - 1) / kFall;
    else
      usual_ += (std::min(took - usual_, usual_) + kRise - 1) / kRise;
    return busy;
  }

 private:
  static constexpr Nanoseconds kTimes = 3, kFall = 8, kRise = 1024;

  const Nanoseconds least_;
  Nanoseconds usual_ = 0;
};

}  // namespace pshpc::fabric
