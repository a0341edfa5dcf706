// When blocks of evicted objects are used again, and when they are not.

#include <atomic>
#include <thread>

#include "tests/objects_owner.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

constexpr std::size_t kMost = 700'000;  // of an owner of 1 MiB

void sleep_for(Nanoseconds time) { std::this_thread::sleep_for(std::chrono::nanoseconds(time)); }

}  // namespace

TEST(reuse_at_once_when_nobody_can_be_looking) {
  auto owner = new_owner(1 << 20);
  for (int i = 0; i < 20; ++i) CHECK(evict(*owner, must_put(*owner, Bytes(kMost))).ok());
  CHECK_EQ(owner->stats().retired_blocks, 0u);
}

TEST(reuse_waits_for_views_of_this_process) {
  auto owner = new_owner(1 << 20);
  const Key key = must_put(*owner, Bytes(kMost, 1));
  auto held = owner->pin(key.object_id, key.capability);
  REQUIRE(held.ok());
  CHECK(evict(*owner, key).ok());
  CHECK_EQ(put(*owner, Bytes(kMost, 2)).status().code(), Code::full);
  CHECK_EQ(owner->stats().retired_blocks, 1u);
  CHECK_EQ(held->block.data[kHeaderSize], 1);
  owner->unpin(held->block);
  CHECK(put(*owner, Bytes(kMost, 2)).ok());
}

TEST(reuse_waits_for_the_writers_own_array) {
  auto owner = new_owner(1 << 20);
  auto reservation = owner->reserve(kMost);
  REQUIRE(reservation.ok());
  auto key = owner->publish(reservation->object_id, {}, true);
  REQUIRE(key.ok());
  CHECK(evict(*owner, key.value()).ok());
  CHECK_EQ(put(*owner, Bytes(kMost)).status().code(), Code::full);
  owner->unpin(reservation->block);
  CHECK(put(*owner, Bytes(kMost)).ok());
}

TEST(reuse_waits_for_pins_of_a_reader) {
  auto owner = new_owner(1 << 20);
  PinningReader reader(*owner, 3);
  const Key key = must_put(*owner, Bytes(kMost, 1));
  const std::uint32_t slot = reader.pin(key);
  CHECK(evict(*owner, key).ok());
  owner->tend();
  CHECK_EQ(put(*owner, Bytes(kMost)).status().code(), Code::full);
  CHECK_EQ(owner->arena().segment(key.segment)->data()[key.offset + kHeaderSize], 1);
  reader.unpin(slot);
  CHECK(put(*owner, Bytes(kMost)).ok());
}

TEST(reuse_pins_of_a_reader_that_left_are_void) {
  auto owner = new_owner(1 << 20);
  PinningReader reader(*owner, 3);
  const Key key = must_put(*owner, Bytes(kMost));
  reader.pin(key);
  CHECK(evict(*owner, key).ok());
  CHECK_EQ(put(*owner, Bytes(kMost)).status().code(), Code::full);
  owner->leave(3);
  CHECK(put(*owner, Bytes(kMost)).ok());
  CHECK_EQ(owner->stats().readers, 0u);
  CHECK_EQ(owner->add_reader(3, nullptr).code(), Code::closed);
}

// Short of memory, a put waits for blocks whose time is about to end rather than fail.
TEST(reuse_grace_for_one_sided_readers) {
  const Nanoseconds grace = 30 * kMillisecond;
  auto owner = new_owner(1 << 20, grace);
  owner->join(3);
  REQUIRE(owner->grant_one_sided(3).ok());
  REQUIRE(owner->grant_one_sided(3).ok());
  const Key key = must_put(*owner, Bytes(kMost));
  const Nanoseconds begin = now();
  CHECK(evict(*owner, key).ok());
  owner->tend();
  CHECK_EQ(owner->stats().retired_blocks, 1u);
  CHECK(put(*owner, Bytes(kMost)).ok());
  CHECK(now() - begin >= grace);
  // Without such readers there is nothing to wait for.
  owner->leave(3);
  for (int i = 0; i < 3; ++i) {
    auto owner2 = new_owner(1 << 20, 1000 * kSecond);
    CHECK(evict(*owner2, must_put(*owner2, Bytes(kMost))).ok());
    CHECK(put(*owner2, Bytes(kMost)).ok());
  }
  CHECK_EQ(owner->grant_one_sided(3).code(), Code::closed);
}

// The wait of a foreign writer would be one of the thread that serves everybody.
TEST(reuse_foreign_writers_do_not_wait) {
  auto owner = new_owner(1 << 20, 1000 * kSecond);
  owner->join(3);
  REQUIRE(owner->grant_one_sided(3).ok());
  CHECK(evict(*owner, must_put(*owner, Bytes(kMost))).ok());
  CHECK_EQ(owner->reserve(kMost, 3).status().code(), Code::full);
}

TEST(reuse_a_grace_period_is_never_shorter_than_readers_count_on) {
  auto owner = new_owner(1 << 20, 0);
  owner->join(3);
  REQUIRE(owner->grant_one_sided(3).ok());
  const Nanoseconds begin = now();
  CHECK(evict(*owner, must_put(*owner, Bytes(kMost))).ok());
  CHECK(put(*owner, Bytes(kMost)).ok());
  CHECK(now() - begin >= kShortestGrace);
}

// Not under TSan: the two sides of a pin table are two mappings, of which it does not know that
// they are one memory.
#if !defined(__SANITIZE_THREAD__)
// Owners evict and reuse in a loop while readers pin as hazard pointers are pinned: a reader whose
// second look at the header succeeded never sees foreign bytes.
TEST(reuse_stress_pins_against_reuse) {
  constexpr int kReaders = 3, kKeys = 8;
  auto owner = new_owner(2 << 20);
  std::mutex mutex;
  std::vector<Key> keys(kKeys);
  for (auto& key : keys) key = must_put(*owner, Bytes(4096, 1));
  std::atomic<bool> over{false};
  std::atomic<long> looks{0}, misses{0}, foreign{0};
  const memory::Segment* segment = owner->arena().segment(0);
  std::vector<std::thread> threads;
  for (int r = 0; r < kReaders; ++r) {
    threads.emplace_back([&, r] {
      PinningReader reader(*owner, static_cast<std::uint64_t>(10 + r));
      Random random(static_cast<std::uint64_t>(r));
      while (!over) {
        Key key;
        {
          std::lock_guard<std::mutex> lock(mutex);
          key = keys[random.below(kKeys)];
        }
        if (random.below(4) == 0) std::this_thread::yield();
        const std::uint32_t slot = reader.pin(key);
        const std::uint8_t* at = segment->data() + key.offset;
        if (!reinterpret_cast<const ObjectHeader*>(at)->is(key.object_id, key.generation)) {
          ++misses;
        } else {
          // Every object is filled with a byte of its own.
          const auto own = static_cast<std::uint8_t>(key.object_id);
          for (std::size_t i = 0; i < key.length; i += 512)
            if (key.object_id > kKeys && at[kHeaderSize + i] != own) ++foreign;
          ++looks;
        }
        reader.unpin(slot);
      }
      owner->leave(static_cast<std::uint64_t>(10 + r));
    });
  }
  Random random(99);
  const Deadline deadline = Deadline::after(2 * kSecond);
  for (std::uint64_t id = kKeys + 1; !deadline.passed(); ++id) {
    auto key = put(*owner, Bytes(2048 + random.below(4) * 1024, static_cast<std::uint8_t>(id)));
    REQUIRE(key.ok());
    REQUIRE(key->object_id == id);
    Key old = key.value();
    {
      std::lock_guard<std::mutex> lock(mutex);
      std::swap(old, keys[random.below(kKeys)]);
    }
    CHECK(evict(*owner, old).ok());
    if (id % 16 == 0) owner->tend();
  }
  over = true;
  for (auto& thread : threads) thread.join();
  CHECK_EQ(foreign, 0);
  CHECK(looks > 0);
  for (const Key& key : keys) CHECK(evict(*owner, key).ok());
  owner->tend();
  CHECK_EQ(owner->stats().arena.used, 0u);
}
#endif

// Everything at once; at the end every block is back.
TEST(reuse_stress_of_all_operations) {
  auto owner = new_owner(8 << 20, kShortestGrace);
  std::atomic<bool> over{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      std::vector<Key> mine;
      while (!over) {
        owner->join(t);
        if (random.below(2) == 0) static_cast<void>(owner->grant_one_sided(t));
        for (int i = 0; i < 50; ++i) {
          const std::size_t size =
              random.below(20) == 0 ? random.below(300'000) : random.below(500);
          const std::uint64_t what = random.below(6);
          if (what == 0) {
            auto reservation = owner->reserve(size, t);
            if (reservation && random.below(2) == 0) {
              auto key = owner->publish(reservation->object_id, {}, false, t);
              if (key) mine.push_back(key.value());
            }
          } else if (what == 1) {
            const Key deferred = owner->new_key();
            owner->when_published(deferred.object_id, deferred.capability, {t, kMillisecond},
                                  [](Status) {});
            if (random.below(2) == 0) {
              auto key = owner->put(size, {}, {}, deferred.object_id);
              if (key) mine.push_back(key.value());
            }
          } else if (what == 2) {
            auto key =
                put(*owner, Bytes(size), {static_cast<Nanoseconds>(random.below(200'000)), 0});
            if (key) mine.push_back(key.value());
          } else if (!mine.empty()) {
            const std::size_t at = random.below(mine.size());
            const Key key = mine[at];
            auto located = owner->pin(key.object_id, key.capability);
            if (located) {
              // The next number is that of an object which expired since; others mean reuse.
              if (located->header().generation - key.generation > 1) ++wrong;
              owner->unpin(located->block);
            }
            if (what > 3) {
              if (!evict(*owner, key).ok()) ++wrong;
              mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(at));
            }
          }
        }
        owner->leave(t);
      }
      for (const Key& key : mine) static_cast<void>(evict(*owner, key));
    });
  }
  const Deadline deadline = Deadline::after(kSecond);
  while (!deadline.passed()) {
    owner->tend();
    static_cast<void>(owner->stats());
    sleep_for(kMillisecond);
  }
  over = true;
  for (auto& thread : threads) thread.join();
  sleep_for(2 * kShortestGrace);
  owner->tend();
  owner->tend();
  CHECK_EQ(wrong, 0);
  CHECK_EQ(owner->stats().objects, 0u);
  CHECK_EQ(owner->stats().arena.used, 0u);
}
