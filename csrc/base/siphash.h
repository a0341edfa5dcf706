#pragma once
// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, INDOCRYPT 2012, appendix A): the
// keyed function behind capabilities and the hello's proofs.

#include <array>
#include <cstdint>

#include "base/span.h"

namespace pshpc {

using Tag = std::array<std::uint8_t, 16>;

Tag siphash128(const Tag& key, ConstSpan message);

// Takes the same time wherever the tags differ.
bool equal_tags(const Tag& a, const Tag& b);

// From the kernel's generator.
Tag random_tag();

}  // namespace pshpc
