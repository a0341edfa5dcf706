#pragma once
// Random input that is the same in every run.

#include <cstdint>
#include <random>

#include "base/span.h"

namespace pshpc::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  // In [0, bound).
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  std::uint8_t byte() { return static_cast<std::uint8_t>(engine_()); }
  Bytes bytes(std::size_t size) {
    Bytes bytes(size);
    for (auto& b : bytes) b = byte();
    return bytes;
  }
  // One bit of it flipped.
  Bytes garbled(Bytes bytes) {
    if (!bytes.empty()) bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1u << below(8));
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace pshpc::test
