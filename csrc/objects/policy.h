#pragma once
// How an object is to be kept.

#include <cstdint>

#include "base/clock.h"
#include "base/wire.h"
#include "objects/header.h"

namespace pshpc::objects {

struct Policy {
  Nanoseconds time_to_live = 0;  // 0: for ever
  std::uint32_t flags = 0;       // kPinned, kRaised

  bool known() const { return (flags & ~(kPinned | kRaised)) == 0 && time_to_live >= 0; }
  void encode(WireWriter& out) const { out.put(time_to_live).put(flags); }
  static Policy decode(WireReader& in) {
    Policy policy;
    policy.time_to_live = in.get<std::int64_t>();
    policy.flags = in.get<std::uint32_t>();
    return policy;
  }
};

}  // namespace pshpc::objects
