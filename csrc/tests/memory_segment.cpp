#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "base/mapping.h"
#include "memory/arena.h"
#include "tests/check.h"

using namespace pshpc;
using namespace pshpc::memory;

namespace {

constexpr std::uint64_t kKiB = 1 << 10;
constexpr std::uint64_t kMiB = 1 << 20;

ArenaOptions options(std::uint64_t capacity, std::uint64_t first_segment = 0) {
  ArenaOptions chosen;
  chosen.name = "pshpc-test";
  chosen.capacity = capacity;
  chosen.first_segment = first_segment;
  return chosen;
}

Bytes noise(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

bool resident(const std::uint8_t* data, std::uint64_t size) {
  std::vector<unsigned char> pages(size / page_size());
  if (::mincore(const_cast<std::uint8_t*>(data), size, pages.data()) != 0) return false;
  return std::all_of(pages.begin(), pages.end(),
                     [](unsigned char page) { return (page & 1) != 0; });
}

}  // namespace

TEST(arena_fill_over_every_mixture_of_pages) {
  Arena arena(options(32 * kMiB));
  std::mt19937_64 random(11);
  for (int round = 0; round < 6; ++round) {
    auto block = arena.allocate(3 * kMiB + 777);
    REQUIRE(block.ok());
    // Parts that were written by address, through the file, or not at all, in any order.
    Bytes expected(block->size, 0);
    std::memcpy(expected.data(), block->data, block->size);
    for (int part = 0; part < 60; ++part) {
      const std::size_t length = 1 + random() % (part % 3 == 0 ? 400 * kKiB : 9000);
      const std::size_t at = random() % (block->size - length);
      const Bytes bytes = noise(length, random());
      std::memcpy(expected.data() + at, bytes.data(), length);
      if (random() % 4 == 0) {
        std::memcpy(block->data + at, bytes.data(), length);
      } else {
        REQUIRE(arena.fill(block.value(), at, bytes).ok());
      }
    }
    CHECK(std::memcmp(expected.data(), block->data, block->size) == 0);
    if (round % 2 == 0) arena.release(block.value());
  }
}

TEST(arena_fill_keeps_neighbours) {
  Arena arena(options(32 * kMiB));
  std::vector<Block> blocks;
  for (int i = 0; i < 64; ++i) {
    auto block = arena.allocate(40'000);
    REQUIRE(block.ok());
    blocks.push_back(block.value());
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    REQUIRE(arena.fill(blocks[i], 0, noise(blocks[i].size, i)).ok());
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    CHECK(std::memcmp(blocks[i].data, noise(blocks[i].size, i).data(), blocks[i].size) == 0);
  }
}

TEST(arena_fill_refuses_what_does_not_fit) {
  Arena arena(options(32 * kMiB));
  auto block = arena.allocate(100);
  REQUIRE(block.ok());
  const Bytes bytes(200, 1);
  CHECK_EQ(arena.fill(block.value(), 0, bytes).code(), Code::invalid);
  CHECK_EQ(arena.fill(block.value(), ~std::uint64_t{0}, {bytes.data(), 1}).code(), Code::invalid);
  CHECK_EQ(arena.fill({9, 0, 500, nullptr}, 0, bytes).code(), Code::invalid);
  CHECK(arena.fill(block.value(), 28, {bytes.data(), 100}).ok());
}

TEST(arena_warm_faults_in_and_stays_within_the_capacity) {
  Arena arena(options(40 * kMiB));
  REQUIRE(arena.warm(24 * kMiB).ok());
  CHECK(arena.stats().warm >= 24 * kMiB);
  // One block as large as what was asked for.
  auto block = arena.allocate(24 * kMiB);
  REQUIRE(block.ok());
  CHECK_EQ(arena.stats().segments, 1u);
  CHECK(resident(block->data, block->size));
  CHECK(arena.warm(1024 * kMiB).ok());
  CHECK_EQ(arena.stats().mapped, 40 * kMiB);
  CHECK_EQ(arena.stats().warm, 40 * kMiB);
}

TEST(arena_touch_makes_a_block_warm) {
  Arena arena(options(64 * kMiB));
  auto block = arena.allocate(10 * kMiB);
  REQUIRE(block.ok());
  CHECK_EQ(arena.stats().warm, 0u);
  REQUIRE(arena.touch(block.value()).ok());
  CHECK_EQ(arena.stats().warm, 10 * kMiB);
  REQUIRE(arena.touch(block.value()).ok());
  CHECK_EQ(arena.stats().warm, 10 * kMiB);
}

TEST(segment_cannot_be_resized_or_written_by_readers) {
  Arena arena(options(32 * kMiB));
  auto block = arena.allocate(100);
  REQUIRE(block.ok());
  const Segment* segment = arena.segment(block->segment);
  CHECK(::ftruncate(segment->fd(), 0) != 0);
  CHECK(::ftruncate(segment->fd(), static_cast<off_t>(segment->size() * 2)) != 0);
  CHECK(::fcntl(segment->fd(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
  CHECK((::fcntl(segment->fd(), F_GETFD) & FD_CLOEXEC) != 0);
  auto reader = segment->reopen_read_only();
  REQUIRE(reader.ok());
  CHECK(!Mapping::file(reader->get(), 0, segment->size(), Mapping::Access::read_write).ok());
  auto view = Mapping::file(reader->get(), 0, segment->size(), Mapping::Access::read);
  REQUIRE(view.ok());
  REQUIRE(arena.fill(block.value(), 0, ConstSpan("seen", 4)).ok());
  CHECK(std::memcmp(view->data() + block->offset, "seen", 4) == 0);
  auto writer = segment->reopen_writable();
  REQUIRE(writer.ok());
  CHECK(Mapping::file(writer->get(), 0, segment->size(), Mapping::Access::read_write).ok());
}

TEST(segment_pages_are_reserved) {
  Arena arena(options(32 * kMiB));
  auto block = arena.allocate(100);
  REQUIRE(block.ok());
  struct stat facts{};
  REQUIRE(::fstat(arena.segment(0)->fd(), &facts) == 0);
  CHECK(static_cast<std::uint64_t>(facts.st_blocks) * 512 >= arena.segment(0)->size());
}

TEST(segment_reserved_by_mapping_is_warm_at_once) {
  Segment::Options chosen;
  chosen.name = "pshpc-test";
  chosen.size = 3 * kMiB;
  chosen.reservation = Segment::Reservation::by_mapping;
  chosen.limits = [] { return read_memory_limits(); };
  auto segment = Segment::create(chosen);
  REQUIRE(segment.ok());
  CHECK_EQ(segment.value()->warm_bytes(), 3 * kMiB);
  CHECK(resident(segment.value()->data(), 3 * kMiB));
}

TEST(segment_refuses_sizes_that_cannot_be) {
  Segment::Options chosen;
  chosen.limits = [] { return read_memory_limits(); };
  for (std::uint64_t size : {std::uint64_t{0}, Segment::kMaxSize * 2}) {
    chosen.size = size;
    CHECK_EQ(Segment::create(chosen).status().code(), Code::invalid);
  }
}

// Both ways, as an old kernel has only the second.
TEST(populate_faults_in_and_changes_nothing) {
  const std::uint64_t page = page_size();
  for (bool by_touching : {false, true}) {
    Fd fd(::memfd_create("pshpc-test", MFD_CLOEXEC));
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(16 * page)) == 0);
    const Bytes bytes = noise(16 * page, 3);
    REQUIRE(::pwrite(fd.get(), bytes.data(), 8 * page, 0) == static_cast<ssize_t>(8 * page));
    auto mapping = Mapping::file(fd.get(), 0, 16 * page, Mapping::Access::read_write);
    REQUIRE(mapping.ok());
    // From the middle of the third page to the middle of the thirteenth.
    const Span span(mapping->data() + 2 * page + page / 2, 10 * page);
    if (by_touching) {
      populate_by_touching(span);
    } else {
      REQUIRE(populate(span).ok());
    }
    CHECK(resident(mapping->data() + 2 * page, 11 * page));
    CHECK(!resident(mapping->data() + 13 * page, page));
    CHECK(std::memcmp(mapping->data(), bytes.data(), 8 * page) == 0);
    CHECK(std::memcmp(mapping->data() + 8 * page, Bytes(8 * page, 0).data(), 8 * page) == 0);
  }
}

TEST(page_states_runs_and_counts) {
  PageStates states(1000);
  states.mark(10, 300, PageState::written);
  states.mark(64, 128, PageState::mapped);
  states.mark(100, 130, PageState::mapped);
  CHECK_EQ(states.mapped(), 66u);
  const std::pair<std::uint64_t, PageState> expected[] = {{10, PageState::fresh},
                                                          {64, PageState::written},
                                                          {130, PageState::mapped},
                                                          {300, PageState::written},
                                                          {1000, PageState::fresh}};
  std::uint64_t page = 0;
  for (const auto& [end, state] : expected) {
    const auto run = states.run(page, 1000);
    CHECK_EQ(run.end, end);
    CHECK_EQ(run.state, state);
    CHECK_EQ(states.run(page, page + 1).end, page + 1);
    page = run.end;
  }
}
