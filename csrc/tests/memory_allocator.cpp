#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "base/mapping.h"
#include "memory/allocator.h"
#include "tests/check.h"

using namespace pshpc::memory;

namespace {

constexpr std::uint64_t kKiB = 1 << 10;
constexpr std::uint64_t kMiB = 1 << 20;

// What the allocator promises, kept in the plainest way.
class Model {
 public:
  // False if the extent breaks a promise.
  bool add(const Extent& extent, std::uint64_t asked, std::uint64_t segment_size) {
    const std::uint64_t alignment = asked >= 64 * kKiB ? pshpc::page_size() : 64;
    if (extent.size < asked || extent.offset % alignment != 0) return false;
    if (extent.offset + extent.size > segment_size) return false;
    auto& blocks = blocks_[extent.segment];
    const auto above = blocks.lower_bound(extent.offset);
    if (above != blocks.end() && above->first < extent.offset + extent.size) return false;
    if (above != blocks.begin()) {
      const auto below = std::prev(above);
      if (below->first + below->second > extent.offset) return false;
    }
    blocks.emplace(extent.offset, extent.size);
    used_ += extent.size;
    return true;
  }
  void remove(const Extent& extent) {
    blocks_[extent.segment].erase(extent.offset);
    used_ -= extent.size;
  }
  std::uint64_t used() const { return used_; }

 private:
  std::map<std::uint32_t, std::map<std::uint64_t, std::uint64_t>> blocks_;
  std::uint64_t used_ = 0;
};

std::uint64_t random_size(std::mt19937_64& random) {
  switch (random() % 4) {
    case 0: return random() % 300;
    case 1: return random() % (64 * kKiB);
    case 2: return 64 * kKiB - 130 + random() % 260;
    default: return random() % (2 * kMiB);
  }
}

}  // namespace

TEST(allocator_random_against_model) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    std::mt19937_64 random(seed);
    Allocator allocator;
    const std::uint64_t sizes[] = {16 * kMiB, 4 * kMiB, 64 * kKiB};
    for (std::uint32_t i = 0; i < 3; ++i) allocator.add_segment(i, sizes[i]);
    Model model;
    std::vector<Extent> live;
    int refused = 0;
    for (int step = 0; step < 20'000; ++step) {
      // Long phases of growing and shrinking fill the segments and empty them again.
      const bool growing = step / 1000 % 2 == 0;
      if (live.empty() || random() % 10 < (growing ? 7u : 3u)) {
        const std::uint64_t size = random_size(random);
        const std::uint64_t largest = allocator.largest_free();
        const auto extent = allocator.take(size);
        if (!extent) {
          ++refused;
          REQUIRE(size > largest || size > 64 * kKiB);
          continue;
        }
        REQUIRE(model.add(*extent, size, sizes[extent->segment]));
        REQUIRE(size <= largest || extent->size <= largest + 64);
        live.push_back(*extent);
      } else {
        const std::size_t which = random() % live.size();
        model.remove(live[which]);
        REQUIRE(allocator.give_back(live[which].segment, live[which].offset) == live[which].size);
        live[which] = live.back();
        live.pop_back();
      }
      REQUIRE(allocator.used() == model.used());
    }
    CHECK(refused > 0);
    for (const Extent& extent : live) {
      REQUIRE(allocator.give_back(extent.segment, extent.offset) == extent.size);
    }
    CHECK_EQ(allocator.used(), 0u);
    CHECK_EQ(allocator.free_extents(), 3u);
    CHECK_EQ(allocator.largest_free(), 16 * kMiB);
  }
}

TEST(allocator_largest_free_can_be_had) {
  std::mt19937_64 random(5);
  Allocator allocator;
  allocator.add_segment(0, 8 * kMiB);
  std::vector<Extent> live;
  for (int step = 0; step < 3000; ++step) {
    if (random() % 2 == 0 || live.empty()) {
      if (auto extent = allocator.take(random_size(random))) live.push_back(*extent);
    } else {
      allocator.give_back(0, live.back().offset);
      live.pop_back();
    }
    const std::uint64_t largest = allocator.largest_free();
    if (largest == 0) continue;
    const auto extent = allocator.take(largest);
    REQUIRE(extent.has_value());
    REQUIRE(allocator.give_back(0, extent->offset) == extent->size);
    REQUIRE(allocator.largest_free() == largest);
  }
}

TEST(allocator_gives_back_only_what_it_gave) {
  Allocator allocator;
  allocator.add_segment(3, kMiB);
  const auto extent = allocator.take(100);
  REQUIRE(extent.has_value());
  CHECK_EQ(extent->size, 128u);
  CHECK_EQ(allocator.give_back(3, extent->offset + 64), 0u);
  CHECK_EQ(allocator.give_back(2, extent->offset), 0u);
  CHECK_EQ(allocator.used(), 128u);
  CHECK_EQ(allocator.give_back(3, extent->offset), 128u);
  CHECK_EQ(allocator.give_back(3, extent->offset), 0u);
  CHECK_EQ(allocator.used(), 0u);
}

TEST(allocator_reuses_the_block_released_last) {
  Allocator allocator;
  allocator.add_segment(0, 64 * kMiB);
  std::vector<Extent> live;
  for (int i = 0; i < 6; ++i) live.push_back(*allocator.take(4 * kMiB));
  allocator.give_back(0, live[1].offset);
  allocator.give_back(0, live[3].offset);
  CHECK_EQ(allocator.take(4 * kMiB)->offset, live[3].offset);
  CHECK_EQ(allocator.take(4 * kMiB)->offset, live[1].offset);
  // Only now memory that nobody had.
  CHECK(allocator.take(4 * kMiB)->offset >= 24 * kMiB);
}

TEST(allocator_steady_use_never_fragments) {
  Allocator allocator;
  allocator.add_segment(0, 64 * kMiB);
  // Three frames of a large array, each with a small companion, for ever.
  std::vector<Extent> large, small;
  for (int i = 0; i < 3; ++i) {
    large.push_back(*allocator.take(8 * kMiB + 64));
    small.push_back(*allocator.take(400));
  }
  const std::size_t extents = allocator.free_extents();
  const std::uint64_t largest = allocator.largest_free();
  for (int step = 0; step < 30'000; ++step) {
    const std::size_t i = static_cast<std::size_t>(step) % 3;
    allocator.give_back(0, large[i].offset);
    allocator.give_back(0, small[i].offset);
    const auto next_small = allocator.take(400);
    const auto next_large = allocator.take(8 * kMiB + 64);
    REQUIRE(next_small && next_large);
    REQUIRE(next_large->offset == large[i].offset);
    small[i] = *next_small;
  }
  CHECK_EQ(allocator.free_extents(), extents);
  CHECK_EQ(allocator.largest_free(), largest);
}

TEST(allocator_small_blocks_leave_large_holes_whole) {
  Allocator allocator;
  allocator.add_segment(0, 16 * kMiB);
  const Extent first = *allocator.take(4 * kMiB);
  const Extent second = *allocator.take(4 * kMiB);
  allocator.give_back(0, first.offset);
  for (int i = 0; i < 100; ++i) REQUIRE(allocator.take(1000).has_value());
  const auto again = allocator.take(4 * kMiB);
  REQUIRE(again.has_value());
  CHECK_EQ(again->offset, first.offset);
  CHECK(again->offset < second.offset);
}
