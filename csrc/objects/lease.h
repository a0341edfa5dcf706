#pragma once
// What a read gives: memory that may be looked at, and what keeps it so.

#include <memory>

#include "base/span.h"

namespace pshpc::objects {

struct Lease {
  Span memory;  // the payload, or the part of it asked for
  bool writable = false;
  const char* door = "";
  std::shared_ptr<const void> holder;
};

}  // namespace pshpc::objects
