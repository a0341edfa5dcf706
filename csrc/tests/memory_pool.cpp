#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "memory/pool.h"
#include "tests/check.h"
#include "tests/eventually.h"

using namespace pshpc;
using namespace pshpc::memory;
using pshpc::test::eventually;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

ArenaOptions options(std::uint64_t capacity) {
  ArenaOptions chosen;
  chosen.name = "pshpc-test";
  chosen.capacity = capacity;
  return chosen;
}

}  // namespace

TEST(pool_hands_out_the_same_warm_block_again) {
  auto pool = Pool::create(options(32 * kMiB));
  std::uint8_t* address = nullptr;
  for (int i = 0; i < 5; ++i) {
    auto buffer = pool->take(5 * kMiB);
    REQUIRE(buffer.ok());
    CHECK_EQ(buffer->span().size, 5 * kMiB);
    if (address != nullptr) CHECK_EQ(buffer->span().data, address);
    address = buffer->span().data;
    // Faulted in once, however often it is taken.
    CHECK_EQ(pool->arena().stats().warm, 5 * kMiB);
  }
  CHECK_EQ(pool->arena().stats().used, 0u);
  CHECK_EQ(pool->stats().taken, 5u);
}

TEST(pool_does_not_grow_under_those_who_cannot_wait) {
  auto pool = Pool::create(options(64 * kMiB));
  {
    auto first = pool->take_at_once(20 * kMiB);
    REQUIRE(first.ok());
    CHECK_EQ(first->block().segment, Pool::kNoSegment);
    std::memset(first->span().data, 1, first->span().size);
    CHECK_EQ(pool->stats().overflow_bytes, 20 * kMiB);
  }
  CHECK_EQ(pool->stats().overflow_bytes, 0u);
  // It has grown by then.
  CHECK(eventually([&] { return pool->arena().stats().warm >= 20 * kMiB; }));
  CHECK(eventually([&] { return pool->arena().stats().used == 0; }));
  auto second = pool->take_at_once(20 * kMiB);
  REQUIRE(second.ok());
  CHECK(second->block().segment != Pool::kNoSegment);
  // Past the capacity it stays as it was at first.
  for (int i = 0; i < 3; ++i) {
    auto large = pool->take_at_once(100 * kMiB);
    REQUIRE(large.ok());
    CHECK_EQ(large->block().segment, Pool::kNoSegment);
  }
}

TEST(pool_ends_while_it_grows) {
  for (int i = 0; i < 20; ++i) {
    auto pool = Pool::create(options(64 * kMiB));
    auto taken = pool->take_at_once(1 * kMiB);
    CHECK(taken.ok());
  }
}

TEST(pool_refuses_at_once_what_the_machine_has_not) {
  auto chosen = options(64 * kMiB);
  chosen.limits = [] {
    MemoryLimits limits = read_memory_limits();
    limits.machine_available = 1 * kMiB;
    return limits;
  };
  auto pool = Pool::create(chosen);
  CHECK_EQ(pool->take_at_once(32 * kMiB).status().code(), Code::full);
}

TEST(pool_buffer_moves_and_returns_once) {
  auto pool = Pool::create(options(32 * kMiB));
  auto taken = pool->take(1000);
  REQUIRE(taken.ok());
  Pool::Buffer first = std::move(taken).value();
  CHECK(static_cast<bool>(first));
  Pool::Buffer second(std::move(first));
  CHECK(!first);  // NOLINT(bugprone-use-after-move): that it is empty is what is asked
  Pool::Buffer third;
  third = std::move(second);
  CHECK(static_cast<bool>(third));
  CHECK_EQ(pool->arena().stats().used, 1024u);
  third = Pool::Buffer();
  CHECK_EQ(pool->arena().stats().used, 0u);
}

TEST(pool_buffer_keeps_the_pool) {
  Pool::Buffer kept;
  std::weak_ptr<Pool> watched;
  {
    auto pool = Pool::create(options(32 * kMiB));
    watched = pool;
    auto buffer = pool->take(100'000);
    REQUIRE(buffer.ok());
    kept = std::move(buffer).value();
  }
  CHECK(!watched.expired());
  std::memset(kept.span().data, 1, kept.span().size);
  kept = Pool::Buffer();
  CHECK(watched.expired());
}

TEST(pool_overflows_past_its_capacity) {
  auto pool = Pool::create(options(16 * kMiB));
  auto inside = pool->take(16 * kMiB);
  REQUIRE(inside.ok());
  {
    auto outside = pool->take(3 * kMiB + 1);
    REQUIRE(outside.ok());
    CHECK_EQ(outside->block().segment, Pool::kNoSegment);
    CHECK_EQ(outside->span().size, 3 * kMiB + 1);
    std::memset(outside->span().data, 1, outside->span().size);
    CHECK_EQ(pool->stats().overflowed, 1u);
    CHECK(pool->stats().overflow_bytes >= 3 * kMiB + 1);
  }
  CHECK_EQ(pool->stats().overflow_bytes, 0u);
  CHECK_EQ(pool->arena().stats().used, 16 * kMiB);
}

TEST(pool_overflow_respects_the_limits) {
  ArenaOptions chosen = options(16 * kMiB);
  std::uint64_t available = 1024 * kMiB;
  chosen.limits = [&] {
    MemoryLimits limits;
    limits.machine_total = 4096 * kMiB;
    limits.machine_available = available;
    return limits;
  };
  auto pool = Pool::create(chosen);
  auto inside = pool->take(16 * kMiB);
  REQUIRE(inside.ok());
  available = 90 * kMiB;
  auto refused = pool->take(64 * kMiB);
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), Code::full);
}

TEST(pool_many_threads) {
  auto pool = Pool::create(options(64 * kMiB));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int step = 0; step < 500; ++step) {
        auto buffer = pool->take(static_cast<std::uint64_t>(1 + step % 7) * 30'000);
        if (!buffer.ok()) {
          ++wrong;
          continue;
        }
        const Span span = buffer->span();
        std::memset(span.data, i, span.size);
        for (std::size_t at = 0; at < span.size; at += 4099) wrong += span.data[at] != i;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong, 0);
  CHECK_EQ(pool->arena().stats().used, 0u);
}
