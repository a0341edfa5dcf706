#pragma once
// A span of memory that the doors may expose. Who made the span keeps it mapped for as long as the
// Region exists.

#include <cstdint>

#include "base/span.h"

namespace pshpc::memory {

enum class MemoryType : std::uint8_t { host };

struct Region {
  std::uint32_t id = 0;  // unique within its owner, never reused
  Span span;
  int memfd = -1;  // borrowed; -1 for private memory that no other process can map
  MemoryType type = MemoryType::host;
};

}  // namespace pshpc::memory
