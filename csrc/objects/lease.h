#pragma once
// What a read gives: memory that may be looked at, and what keeps it so.

#include <cstdint>
#include <memory>

#include "base/span.h"

namespace pshpc::objects {

struct Lease {
  Span memory;  // the payload, or the part of it asked for
  bool writable = false;
  const char* door = "";
  std::uint64_t generation = 0;  // of a whole object: what Owner::validate() compares
  std::shared_ptr<const void> holder;
};

}  // namespace pshpc::objects
