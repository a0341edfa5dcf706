#include <string>

#include "objects/key.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using pshpc::test::Random;

namespace {

OwnerAddress some_owner(Random& random) {
  OwnerAddress owner;
  owner.id = random_tag();
  owner.uid = static_cast<std::uint32_t>(random.below(1 << 20));
  owner.port = static_cast<std::uint16_t>(random.below(65536));
  owner.host = std::string(random.below(256), 'h');
  return owner;
}

Key some_key(Random& random) {
  Key key;
  key.flags = static_cast<std::uint8_t>(random.below(4));
  key.segment = static_cast<std::uint16_t>(random.below(65535));
  key.object_id = random.below(~0ull);
  key.generation = random.below(~0ull);
  key.offset = random.below(1ull << 48);
  key.length = random.below(1ull << 48);
  key.capability = random_tag();
  key.owner = some_owner(random);
  if (random.below(2) == 0) key.outside = random.bytes(random.below(Key::kMaxOutside + 1));
  return key;
}

bool same(const OwnerAddress& a, const OwnerAddress& b) {
  return a.id == b.id && a.uid == b.uid && a.host == b.host && a.port == b.port;
}

bool same(const Key& a, const Key& b) {
  return a.flags == b.flags && a.segment == b.segment && a.object_id == b.object_id &&
         a.generation == b.generation && a.offset == b.offset && a.length == b.length &&
         a.capability == b.capability && same(a.owner, b.owner) && a.outside == b.outside;
}

}  // namespace

TEST(key_round_trip) {
  Random random(10);
  for (int i = 0; i < 2000; ++i) {
    const Key key = some_key(random);
    auto parsed = Key::parse(key.encode());
    REQUIRE(parsed.ok());
    CHECK(same(parsed.value(), key));
    auto owner = OwnerAddress::parse(key.owner.encode());
    REQUIRE(owner.ok());
    CHECK(same(owner.value(), key.owner));
  }
}

// Room for what pickle adds, with the longest host name that the design speaks of.
TEST(key_is_small) {
  Random random(11);
  Key key = some_key(random);
  key.owner.host = std::string(64, 'h');
  key.outside = Bytes(4 + 64 + 16);  // one endpoint of such a name, with its pin
  CHECK(key.encode().size() <= 225);
}

TEST(key_cut_short_or_too_long_is_refused) {
  Random random(12);
  for (int i = 0; i < 50; ++i) {
    const Bytes bytes = some_key(random).encode();
    for (std::size_t size = 0; size < bytes.size(); ++size)
      CHECK_EQ(Key::parse(ConstSpan(bytes).slice(0, size)).status().code(), Code::invalid);
    Bytes longer = bytes;
    longer.push_back(0);
    CHECK_EQ(Key::parse(longer).status().code(), Code::invalid);
    const Bytes owner = some_owner(random).encode();
    for (std::size_t size = 0; size < owner.size(); ++size)
      CHECK(!OwnerAddress::parse(ConstSpan(owner).slice(0, size)).ok());
  }
}

TEST(key_of_another_version_is_refused) {
  Random random(13);
  Bytes bytes = some_key(random).encode();
  for (const int version : {0, 1, 3, 255}) {
    bytes[0] = static_cast<std::uint8_t>(version);
    const Status status = Key::parse(bytes).status();
    CHECK_EQ(status.code(), Code::invalid);
    CHECK_EQ(status.message().find("version 1") != std::string::npos, version == 1);
  }
}

// Whatever parses encodes to the same bytes again: nothing is lost, nothing is read twice.
TEST(key_garbled) {
  Random random(14);
  for (int i = 0; i < 20000; ++i) {
    Bytes bytes = some_key(random).encode();
    for (std::uint64_t flips = 1 + random.below(3); flips > 0; --flips)
      bytes = random.garbled(bytes);
    auto parsed = Key::parse(bytes);
    if (parsed.ok())
      CHECK(parsed->encode() == bytes);
    else
      CHECK_EQ(parsed.status().code(), Code::invalid);
    const Bytes noise = random.bytes(random.below(200));
    if (auto any = Key::parse(noise); any.ok()) CHECK(any->encode() == noise);
  }
}

TEST(key_names_its_owners_socket) {
  OwnerAddress owner;
  owner.id[0] = 0xab;
  owner.id[15] = 0x01;
  owner.uid = 1000;
  CHECK_EQ(owner.node_socket(), "proxystore-hpc/1000/ab000000000000000000000000000001");
  CHECK_EQ(owner.short_name(), "ab000000");
}
