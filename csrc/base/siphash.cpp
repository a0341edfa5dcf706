#include "base/siphash.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace pshpc {
namespace {

struct State {
  std::uint64_t v0, v1, v2, v3;

  static std::uint64_t rotate(std::uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
  }

  void rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v0 += v1, v1 = rotate(v1, 13), v1 ^= v0, v0 = rotate(v0, 32);
      v2 += v3, v3 = rotate(v3, 16), v3 ^= v2;
      v0 += v3, v3 = rotate(v3, 21), v3 ^= v0;
      v2 += v1, v1 = rotate(v1, 17), v1 ^= v2, v2 = rotate(v2, 32);
    }
  }
  void absorb(std::uint64_t word) {
    v3 ^= word;
    rounds(2);
    v0 ^= word;
  }
  std::uint64_t digest() const { return v0 ^ v1 ^ v2 ^ v3; }
};

std::uint64_t load(const std::uint8_t* p, std::size_t n = 8) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < n; ++i) word |= static_cast<std::uint64_t>(p[i]) << (8 * i);
  return word;
}

void store(std::uint8_t* p, std::uint64_t word) {
  for (int i = 0; i < 8; ++i) p[i] = static_cast<std::uint8_t>(word >> (8 * i));
}

}  // namespace

Tag siphash128(const Tag& key, ConstSpan message) {
  const std::uint64_t k0 = load(key.data()), k1 = load(key.data() + 8);
  State s{k0 ^ 0x736f6d6570736575ULL, k1 ^ 0x646f72616e646f6dULL ^ 0xee, k0 ^ 0x6c7967656e657261ULL,
          k1 ^ 0x7465646279746573ULL};
  const std::size_t whole = message.size / 8 * 8;
  for (std::size_t i = 0; i < whole; i += 8) s.absorb(load(message.data + i));
  s.absorb(load(message.data + whole, message.size - whole) |
           static_cast<std::uint64_t>(message.size) << 56);
  Tag tag;
  s.v2 ^= 0xee;
  s.rounds(4);
  store(tag.data(), s.digest());
  s.v1 ^= 0xdd;
  s.rounds(4);
  store(tag.data() + 8, s.digest());
  return tag;
}

bool equal_tags(const Tag& a, const Tag& b) {
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == 0;
}

Tag random_tag() {
  Tag tag{};
  std::size_t filled = 0;
  while (filled < tag.size()) {
    const ssize_t got = ::getrandom(tag.data() + filled, tag.size() - filled, 0);
    // Predictable capabilities would be worse than none: there is no way to go on.
    if (got < 0 && errno != EINTR) std::abort();
    if (got > 0) filled += static_cast<std::size_t>(got);
  }
  return tag;
}

}  // namespace pshpc
