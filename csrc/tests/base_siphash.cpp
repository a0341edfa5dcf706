#include <set>
#include <string>

#include "base/siphash.h"
#include "tests/check.h"

using namespace pshpc;

namespace {

std::string hex(const Tag& tag) {
  static const char* digits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : tag) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

Tag counting_key() {
  Tag key{};
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i);
  return key;
}

}  // namespace

// The reference vectors of the function's authors: key 00 01 .. 0f, message 00 01 .. n-1.
TEST(siphash_reference_vectors) {
  const struct {
    std::size_t length;
    const char* tag;
  } vectors[] = {
      {0, "a3817f04ba25a8e66df67214c7550293"}, {1, "da87c1d86b99af44347659119b22fc45"},
      {2, "8177228da4a45dc7fca38bdef60affe4"}, {3, "9c70b60c5267a94e5f33b6b02985ed51"},
      {4, "f88164c12d9c8faf7d0f6e7c7bcd5579"}, {5, "1368875980776f8854527a07690e9627"},
      {6, "14eeca338b208613485ea0308fd7a15e"}, {7, "a1f1ebbed8dbc153c0b84aa61ff08239"},
      {8, "3b62a9ba6258f5610f83e264f31497b4"}, {15, "5493e99933b0a8117e08ec0f97cfc3d9"},
  };
  Bytes message;
  for (const auto& vector : vectors) {
    while (message.size() < vector.length)
      message.push_back(static_cast<std::uint8_t>(message.size()));
    CHECK_EQ(hex(siphash128(counting_key(), message)), std::string(vector.tag));
  }
}

TEST(siphash_every_bit_counts) {
  std::set<Tag> seen;
  const Bytes message(40, 7);
  seen.insert(siphash128(counting_key(), message));
  for (std::size_t bit = 0; bit < message.size() * 8; ++bit) {
    Bytes other = message;
    other[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    CHECK(seen.insert(siphash128(counting_key(), other)).second);
  }
  for (std::size_t bit = 0; bit < 128; ++bit) {
    Tag key = counting_key();
    key[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    CHECK(seen.insert(siphash128(key, message)).second);
  }
}

TEST(siphash_tags_are_compared_whole) {
  const Tag tag = random_tag();
  CHECK(equal_tags(tag, tag));
  for (std::size_t i = 0; i < tag.size(); ++i) {
    Tag other = tag;
    other[i] ^= 0x80;
    CHECK(!equal_tags(tag, other));
  }
  CHECK(random_tag() != random_tag());
}
