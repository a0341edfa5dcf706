// What an arena leaves behind: the table of its blocks, and the pages that are given back.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iterator>
#include <map>
#include <vector>

#include "base/mapping.h"
#include "memory/arena.h"
#include "memory/block_table.h"
#include "memory/kept_blocks.h"
#include "memory/pins.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::memory;
using namespace pshpc::test;

namespace {

Fd copy_of(int fd) { return Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

std::uint64_t bytes_in(int fd) {
  struct stat facts{};
  REQUIRE(::fstat(fd, &facts) == 0);
  return static_cast<std::uint64_t>(facts.st_blocks) * 512;
}

}  // namespace

TEST(block_table_tells_what_is_in_use) {
  auto made = BlockTable::create(1 << 20);
  REQUIRE(made.ok());
  BlockTable& table = *made.value();
  const auto first = table.enter(block_word(0, 0), 64);
  const auto second = table.enter(block_word(3, 4096), 8192);
  table.set_expiry(second, 77);
  table.set_viewed(second, true);
  table.leave(first);
  table.leave(BlockTable::kNone);
  auto read = BlockTable::read(copy_of(table.fd()));
  REQUIRE(read.ok());
  REQUIRE(read->size() == 1);
  const BlockTable::Entry& left = read.value().front();
  CHECK_EQ(left.block, block_word(3, 4096));
  CHECK_EQ(left.size, 8192u);
  CHECK_EQ(left.expires, 77);
  CHECK(left.viewed);
  // A slot that is used again says nothing of the block that it had before.
  table.leave(second);
  CHECK_EQ(table.enter(block_word(1, 64), 128), second);
  read = BlockTable::read(copy_of(table.fd()));
  REQUIRE(read.ok() && read->size() == 1);
  CHECK_EQ(read.value().front().expires, 0);
  CHECK(!read.value().front().viewed);
}

TEST(block_table_grows_and_ends) {
  constexpr std::uint64_t kSlots = 10'000;
  auto made = BlockTable::create(kSlots * 64);
  REQUIRE(made.ok());
  const std::uint64_t before = bytes_in(made.value()->fd());
  for (std::uint64_t i = 0; i < kSlots; ++i)
    CHECK_EQ(made.value()->enter(block_word(0, i * 64), 64), i);
  CHECK_EQ(made.value()->enter(block_word(1, 0), 64), BlockTable::kNone);
  CHECK(bytes_in(made.value()->fd()) > before);
  const auto read = BlockTable::read(copy_of(made.value()->fd()));
  REQUIRE(read.ok());
  CHECK_EQ(read->size(), kSlots);
}

TEST(block_table_refuses_what_is_none) {
  auto pins = PinTable::create();
  REQUIRE(pins.ok());
  CHECK_EQ(BlockTable::read(copy_of(pins.value()->fd())).status().code(), Code::protocol);
  const Fd open(::memfd_create("pshpc-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(open.get(), 1 << 16) == 0);
  CHECK_EQ(BlockTable::read(open).status().code(), Code::denied);
}

TEST(kept_blocks_refuse_what_overlaps) {
  KeptBlocks kept;
  kept.add_segment(2, 1 << 20);
  CHECK(kept.add({2, 4096, 4096}).ok());
  CHECK(!kept.add({2, 4096, 64}).ok());
  CHECK(!kept.add({2, 0, 4160}).ok());
  CHECK(!kept.add({2, 8128, 64}).ok());
  CHECK(!kept.add({2, (1 << 20) - 64, 128}).ok());
  CHECK(!kept.add({2, ~0ull - 63, 128}).ok());
  CHECK(!kept.add({3, 0, 64}).ok());
  CHECK(kept.add({2, 8192, 64}).ok());
  CHECK_EQ(kept.used(), 4160u);
}

// Against a count of users for each page.
TEST(kept_blocks_give_back_pages_that_nobody_uses) {
  constexpr std::uint64_t kPages = 64;
  const std::uint64_t page = page_size();
  Random random(7);
  for (int round = 0; round < 50; ++round) {
    KeptBlocks kept;
    kept.add_segment(0, kPages * page);
    std::map<std::uint64_t, std::uint64_t> blocks;
    std::vector<int> users(kPages, 0);
    std::vector<bool> present(kPages, true);
    const auto each_page = [&](std::uint64_t offset, std::uint64_t size, auto act) {
      for (std::uint64_t p = offset / page; p * page < offset + size; ++p) act(p);
    };
    for (std::uint64_t at = 0; at < kPages * page;) {
      at += random.below(3) * 64;
      const std::uint64_t size = 64 * (1 + random.below(random.below(4) == 0 ? 300 : 20));
      if (at + size > kPages * page) break;
      REQUIRE(kept.add({0, at, size}).ok());
      blocks[at] = size;
      each_page(at, size, [&](std::uint64_t p) { ++users[p]; });
      at += size;
    }
    const auto give_back = [&](const KeptBlocks::Range& range) {
      if (range.size == 0) return;
      CHECK_EQ(range.offset % page, 0u);
      CHECK_EQ(range.size % page, 0u);
      each_page(range.offset, range.size, [&](std::uint64_t p) {
        CHECK_EQ(users[p], 0);
        present[p] = false;
      });
    };
    for (const auto& range : kept.free_pages()) give_back(range);
    while (!blocks.empty()) {
      for (std::uint64_t p = 0; p < kPages; ++p) CHECK_EQ(present[p], users[p] > 0);
      auto gone = blocks.begin();
      std::advance(gone, random.below(blocks.size()));
      each_page(gone->first, gone->second, [&](std::uint64_t p) { --users[p]; });
      give_back(kept.remove(0, gone->first));
      blocks.erase(gone);
    }
    CHECK_EQ(kept.used(), 0u);
    CHECK_EQ(kept.remove(0, 0).size, 0u);
  }
}

TEST(arena_that_was_taken_over_gives_memory_back) {
  ArenaOptions options;
  options.capacity = options.first_segment = 4 << 20;
  Arena former(options);
  auto small = former.allocate(100);
  auto large = former.allocate(2 << 20);
  auto freed = former.allocate(1 << 20);
  REQUIRE(small.ok() && large.ok() && freed.ok());
  REQUIRE(former.fill(large.value(), 0, Bytes(2 << 20, 7)).ok());
  former.release(freed.value());

  Arena heir(options);
  std::vector<Arena::Inherited> segments;
  segments.push_back({0, copy_of(former.segment(0)->fd())});
  REQUIRE(heir.adopt(std::move(segments)).ok());
  for (const auto& block : {small.value(), large.value()})
    REQUIRE(heir.adopt_block(block.segment, block.offset, block.size).ok());
  CHECK_EQ(heir.allocate(64).status().code(), Code::closed);
  CHECK(!heir.try_allocate(64));
  CHECK_EQ(heir.stats().used, small->size + large->size);
  heir.trim();
  const int fd = heir.segment(0)->fd();
  CHECK(bytes_in(fd) < (2 << 20) + (1 << 16));
  CHECK_EQ(large->data[(2 << 20) - 1], 7);
  heir.release(large.value());
  CHECK(bytes_in(fd) <= page_size());
  heir.release(large.value());  // harmless
  CHECK_EQ(heir.stats().used, small->size);
}

TEST(arena_refuses_segments_that_can_shrink) {
  Fd open(::memfd_create("pshpc-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(open.get(), 1 << 16) == 0);
  Arena heir({});
  std::vector<Arena::Inherited> segments;
  segments.push_back({0, std::move(open)});
  CHECK_EQ(heir.adopt(std::move(segments)).code(), Code::denied);
}
