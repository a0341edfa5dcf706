// Descriptions of exposed memory, and how memory on both sides is laid side by side.

#include "objects/bulk.h"

#include <limits>

#include "tests/objects_instance.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

Bulk example() {
  Bulk bulk;
  bulk.owner.id = random_tag();
  bulk.owner.uid = 7;
  bulk.owner.host = "10.1.2.3";
  bulk.owner.port = 77;
  bulk.id = 9;
  bulk.capability = random_tag();
  bulk.mode = kBulkRead | kBulkWrite;
  bulk.gate = {3, 128, 12, 14};
  bulk.pieces = {{10, 1000, 5, BulkPiece::kPrivate},
                 {0, 0, 0, BulkPiece::kPrivate},
                 {20, 64, 6, 2},
                 {5, 2000, 7, BulkPiece::kPrivate}};
  bulk.length = 35;
  return bulk;
}

}  // namespace

TEST(bulk_survives_encoding) {
  const Bulk bulk = example();
  auto parsed = Bulk::parse(bulk.encode());
  REQUIRE(parsed.ok());
  CHECK(parsed->encode() == bulk.encode());
  CHECK_EQ(parsed->pieces.size(), 4);
  CHECK_EQ(parsed->pieces[2].place, 64);
  CHECK(parsed->pieces[2].in_segment());
  CHECK_EQ(parsed->gate.generation, 14);
  CHECK_EQ(parsed->owner.port, 77);
}

TEST(bulk_garbage_is_refused) {
  const Bytes good = example().encode();
  for (std::size_t size = 0; size < good.size(); ++size)
    CHECK_EQ(Bulk::parse({good.data(), size}).status().code(), Code::invalid);
  Bytes longer = good;
  longer.push_back(0);
  CHECK(!Bulk::parse(longer).ok());
  Random random(1);
  for (int i = 0; i < 2000; ++i) {
    Bytes bad = good;
    bad[random.below(bad.size())] ^= static_cast<std::uint8_t>(1 + random.below(255));
    auto parsed = Bulk::parse(bad);
    if (!parsed.ok()) continue;
    std::uint64_t total = 0;
    for (const BulkPiece& piece : parsed->pieces) total += piece.length;
    CHECK(parsed->offset <= total && parsed->length <= total - parsed->offset);
  }
  Bulk beyond = example();
  beyond.length = 36;
  CHECK(!Bulk::parse(beyond.encode()).ok());
  beyond = example();
  beyond.pieces[0].length = std::numeric_limits<std::uint64_t>::max();
  CHECK(!Bulk::parse(beyond.encode()).ok());
  beyond = example();
  beyond.mode = 4;
  CHECK(!Bulk::parse(beyond.encode()).ok());
}

TEST(bulk_select) {
  const Bulk bulk = example();
  CHECK(bulk.segments() == (std::vector<std::uint64_t>{10, 20, 5}));
  auto part = bulk.select(8, 20);
  REQUIRE(part.ok());
  CHECK(part->segments() == (std::vector<std::uint64_t>{2, 18}));
  auto smaller = part->select(2, 3);
  REQUIRE(smaller.ok());
  CHECK_EQ(smaller->offset, 10);
  CHECK(smaller->segments() == (std::vector<std::uint64_t>{3}));
  CHECK(part->select(20, 0)->segments().empty());
  CHECK_EQ(part->select(0, 21).status().code(), Code::invalid);
  CHECK_EQ(part->select(21, 0).status().code(), Code::invalid);
  CHECK_EQ(part->select(1, std::numeric_limits<std::uint64_t>::max()).status().code(),
           Code::invalid);
}

TEST(bulk_stretches) {
  const Bulk part = example().select(8, 25).value();
  Bytes local(30);
  const Span a(local.data(), 1), b(local.data() + 1, 0), c(local.data() + 1, 21);
  auto laid_out = lay_out(part, 1, {a, b, c});
  REQUIRE(laid_out.ok());
  const auto& stretches = laid_out.value();
  REQUIRE(stretches.size() == 3);
  CHECK_EQ(stretches[0].piece, 0);
  CHECK_EQ(stretches[0].at, 9);
  CHECK_EQ(stretches[1].piece, 2);
  CHECK_EQ(stretches[1].at, 0);
  CHECK_EQ(stretches[1].offset, 10);
  CHECK_EQ(stretches[1].local.size, 20);
  CHECK_EQ(stretches[2].piece, 3);
  CHECK_EQ(stretches[2].local.size, 1);
  const auto parts = cut(stretches, 8);
  REQUIRE(parts.size() == 5);
  CHECK_EQ(parts[3].at, 16);
  CHECK_EQ(parts[3].offset, 26);
  CHECK_EQ(parts[3].local.size, 4);
  CHECK(parts[3].local.data == local.data() + 17);
  CHECK_EQ(lay_out(part, 4, {c, a}).status().code(), Code::invalid);
  CHECK(lay_out(part, 25, {})->empty());
}
