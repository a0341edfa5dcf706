#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "base/mapping.h"
#include "memory/arena.h"
#include "tests/check.h"

using namespace pshpc;
using namespace pshpc::memory;

namespace {

constexpr std::uint64_t kKiB = 1 << 10;
constexpr std::uint64_t kMiB = 1 << 20;

MemoryLimits machine_with(std::uint64_t available) {
  MemoryLimits limits;
  limits.machine_total = 4096 * kMiB;  // of which spendable() keeps 82 MiB
  limits.machine_available = available;
  return limits;
}

ArenaOptions options(std::uint64_t capacity, std::uint64_t first_segment = 0) {
  ArenaOptions chosen;
  chosen.name = "pshpc-test";
  chosen.capacity = capacity;
  chosen.first_segment = first_segment;
  return chosen;
}

}  // namespace

TEST(arena_block_is_aligned_and_usable) {
  Arena arena(options(64 * kMiB));
  for (std::uint64_t size : {0ull, 1ull, 64ull, 65ull, 65535ull, 65536ull, 5'000'000ull}) {
    auto block = arena.allocate(size);
    REQUIRE(block.ok());
    CHECK(block->size >= size);
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(block->data) % (size >= 65536 ? page_size() : 64),
             0u);
    CHECK_EQ(block->data, arena.segment(block->segment)->data() + block->offset);
    std::memset(block->data, 7, block->size);
  }
}

TEST(arena_capacity_is_exact) {
  Arena arena(options(20 * kMiB));
  auto all = arena.allocate(20 * kMiB);
  REQUIRE(all.ok());
  CHECK_EQ(arena.stats().mapped, 20 * kMiB);
  auto more = arena.allocate(1);
  REQUIRE(!more.ok());
  CHECK_EQ(more.status().code(), Code::full);
  arena.release(all.value());
  CHECK_EQ(arena.stats().used, 0u);
  CHECK_EQ(arena.stats().largest_free, 20 * kMiB);
  CHECK(arena.allocate(1).ok());
}

TEST(arena_full_says_why) {
  Arena arena(options(32 * kMiB));
  auto block = arena.allocate(10 * kMiB);
  REQUIRE(block.ok());
  auto refused = arena.allocate(40 * kMiB);
  REQUIRE(!refused.ok());
  const std::string& message = refused.status().message();
  CHECK(message.find("no room for 41943040 bytes: the capacity is reached") == 0);
  const FullReport report = arena.last_full();
  CHECK_EQ(report.requested, 40 * kMiB);
  CHECK_EQ(report.capacity, 32 * kMiB);
  CHECK_EQ(report.used, 10 * kMiB);
  CHECK_EQ(report.largest_free, 6 * kMiB);
  CHECK(report.available > 0);
}

TEST(arena_too_small_to_hold_anything) {
  Arena arena(options(100));
  auto refused = arena.allocate(1);
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), Code::full);
}

TEST(arena_refuses_absurd_sizes) {
  Arena arena(options(32 * kMiB));
  for (std::uint64_t size :
       {std::uint64_t{1} << 48, (std::uint64_t{1} << 48) + 1, ~std::uint64_t{0}}) {
    auto refused = arena.allocate(size);
    REQUIRE(!refused.ok());
    CHECK_EQ(refused.status().code(), Code::full);
  }
}

TEST(arena_stops_at_the_limit_of_the_machine) {
  std::atomic<std::uint64_t> available{100 * kMiB};
  ArenaOptions chosen = options(1024 * kMiB);
  chosen.limits = [&] { return machine_with(available); };
  Arena arena(chosen);
  auto refused = arena.allocate(64 * kMiB);  // 18 MiB are spendable
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), Code::full);
  CHECK(refused.status().message().find("left to the machine") != std::string::npos);
  CHECK_EQ(arena.stats().mapped, 0u);
  CHECK(arena.last_full().available < 20 * kMiB);
  // A segment smaller than usual is better than none.
  CHECK(arena.allocate(8 * kMiB).ok());
  CHECK(arena.stats().mapped < 16 * kMiB);
  available = 1024 * kMiB;
  CHECK(arena.allocate(64 * kMiB).ok());
}

// The memory goes to others while a segment is being reserved.
TEST(arena_reservation_that_loses_the_race_leaves_nothing) {
  std::atomic<int> asked{0};
  ArenaOptions chosen = options(1024 * kMiB);
  chosen.limits = [&] { return machine_with(asked++ < 4 ? 2048 * kMiB : 90 * kMiB); };
  Arena arena(chosen);
  auto refused = arena.allocate(200 * kMiB);
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), Code::full);
  CHECK(asked > 4);
  CHECK_EQ(arena.stats().mapped, 0u);
  CHECK_EQ(arena.stats().segments, 0u);
  asked = 0;
  CHECK(arena.allocate(4 * kMiB).ok());
  CHECK_EQ(arena.segments().at(0)->id(), 0u);
}

TEST(arena_file_size_limit_is_an_error_not_a_signal) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    rlimit limit{1 * kMiB, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    Arena arena(options(32 * kMiB));
    auto refused = arena.allocate(2 * kMiB);
    const bool said = !refused.ok() && refused.status().code() == Code::full &&
                      refused.status().message().find("ulimit -f") != std::string::npos;
    ::_exit(said && arena.allocate(100).ok() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
}

TEST(arena_grows_by_doubling) {
  Arena arena(options(256 * kMiB, 4 * kMiB));
  std::vector<std::uint64_t> sizes;
  for (int i = 0; i < 40; ++i) REQUIRE(arena.allocate(1 * kMiB).ok());
  for (const Segment* segment : arena.segments()) sizes.push_back(segment->size());
  CHECK((sizes == std::vector<std::uint64_t>{4 * kMiB, 8 * kMiB, 16 * kMiB, 32 * kMiB}));
}

TEST(arena_hook_sees_segments_and_can_refuse) {
  std::vector<std::uint32_t> seen;
  bool refusing = true;
  ArenaOptions chosen = options(64 * kMiB);
  chosen.first_region = 1000;
  Arena arena(chosen, [&](const Segment& segment) {
    seen.push_back(segment.region().id);
    CHECK(segment.region().memfd >= 0);
    CHECK_EQ(segment.region().span.size, segment.size());
    return refusing ? Status(Code::unavailable, "no door") : Status();
  });
  auto refused = arena.allocate(100);
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), Code::unavailable);
  CHECK_EQ(arena.stats().mapped, 0u);
  CHECK_EQ(arena.segment(0), nullptr);
  refusing = false;
  auto block = arena.allocate(100);
  REQUIRE(block.ok());
  // The number that a door may still know is not used again.
  CHECK((seen == std::vector<std::uint32_t>{1000, 1001}));
  CHECK_EQ(block->segment, 1u);
  CHECK(arena.segment(1) != nullptr);
  CHECK_EQ(arena.segment(2), nullptr);
}

TEST(arena_locates_addresses) {
  Arena arena(options(64 * kMiB, 2 * kMiB));
  auto first = arena.allocate(kMiB);
  auto second = arena.allocate(8 * kMiB);
  REQUIRE(first.ok() && second.ok());
  REQUIRE(first->segment != second->segment);
  for (const Block& block : {first.value(), second.value()}) {
    const auto found = arena.locate(block.data + 5, 100);
    REQUIRE(found.has_value());
    CHECK_EQ(found->segment, block.segment);
    CHECK_EQ(found->offset, block.offset + 5);
    const Segment* segment = arena.segment(block.segment);
    CHECK(arena.contains(segment->data(), segment->size()));
    CHECK(!arena.contains(segment->data(), segment->size() + 1));
  }
  int local = 0;
  CHECK(!arena.contains(&local, sizeof local));
}

TEST(arena_many_threads) {
  Arena arena(options(256 * kMiB, 2 * kMiB));
  std::atomic<int> wrong{0};
  const auto work = [&](unsigned self) {
    std::mt19937_64 random(self);
    std::vector<std::pair<Block, std::uint8_t>> mine;
    for (int step = 0; step < 3000; ++step) {
      if (mine.size() < 20 && random() % 2 == 0) {
        auto block = arena.allocate(random() % (random() % 20 == 0 ? 600'000 : 20'000));
        if (!block.ok()) {
          ++wrong;
          continue;
        }
        const auto mark = static_cast<std::uint8_t>(random());
        if (!arena.fill(block.value(), 0, Bytes(block->size, mark)).ok()) ++wrong;
        mine.emplace_back(block.value(), mark);
      } else if (!mine.empty()) {
        const auto [block, mark] = mine[random() % mine.size()];
        // Foreign bytes would be another thread's block.
        for (std::uint64_t i = 0; i < block.size; i += 509) wrong += block.data[i] != mark;
        for (auto it = mine.begin(); it != mine.end(); ++it) {
          if (it->first.data == block.data) {
            mine.erase(it);
            break;
          }
        }
        arena.release(block);
      }
    }
    for (const auto& entry : mine) arena.release(entry.first);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) threads.emplace_back(work, i + 1);
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong, 0);
  CHECK_EQ(arena.stats().used, 0u);
}

TEST(arena_grows_once_for_all_who_wait) {
  std::atomic<int> grown{0};
  Arena arena(options(256 * kMiB, 32 * kMiB), [&](const Segment&) {
    ++grown;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return Status();
  });
  std::vector<std::thread> threads;
  std::atomic<int> served{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { served += arena.allocate(kMiB).ok(); });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(served, 4);
  CHECK_EQ(grown, 1);
}

TEST(arena_growth_does_not_hold_up_others) {
  std::atomic<bool> growing{false}, go_on{false};
  Arena arena(options(256 * kMiB, 4 * kMiB), [&](const Segment& segment) {
    if (segment.id() == 0) return Status();
    growing = true;
    while (!go_on) std::this_thread::yield();
    return Status();
  });
  REQUIRE(arena.allocate(100).ok());
  std::thread large([&] { CHECK(arena.allocate(16 * kMiB).ok()); });
  while (!growing) std::this_thread::yield();
  // Would never return if growth held the allocator.
  auto block = arena.allocate(kMiB);
  CHECK(block.ok());
  if (block.ok()) arena.release(block.value());
  CHECK_EQ(arena.stats().segments, 1u);
  go_on = true;
  large.join();
  CHECK_EQ(arena.stats().segments, 2u);
}

TEST(arena_is_the_parents_alone) {
  Arena arena(options(32 * kMiB));
  auto block = arena.allocate(100);
  REQUIRE(block.ok());
  const int fd = arena.segment(0)->fd();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    bool good = arena.allocate(10).status().code() == Code::forked;
    good = good && arena.segments().empty() && arena.stats().used == 0;
    good = good && ::fcntl(fd, F_GETFD) == -1 && errno == EBADF;
    arena.release(block.value());
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  CHECK_EQ(arena.stats().used, 128u);
}

TEST(arena_double_release_is_harmless) {
  Arena arena(options(32 * kMiB));
  auto first = arena.allocate(1000);
  REQUIRE(first.ok());
  arena.release(first.value());
  auto second = arena.allocate(1000);
  REQUIRE(second.ok());
  arena.release({second->segment, second->offset + 64, 64, nullptr});
  CHECK_EQ(arena.stats().used, second->size);
}
