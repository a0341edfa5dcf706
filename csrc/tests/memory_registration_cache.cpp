#include <atomic>
#include <thread>
#include <vector>

#include "memory/registration_cache.h"
#include "tests/check.h"

using namespace pshpc;
using namespace pshpc::memory;

namespace {

// A door that counts what is registered with it.
struct CountingDoor {
  std::atomic<int> made{0};
  std::atomic<int> live{0};

  RegistrationCache::Register callback() {
    return [this](Span span) -> Expected<std::shared_ptr<void>> {
      ++made;
      ++live;
      return std::shared_ptr<void>(new Span(span), [this](void* handle) {
        --live;
        delete static_cast<Span*>(handle);
      });
    };
  }
};

}  // namespace

TEST(registration_is_shared_while_it_lives) {
  CountingDoor door;
  RegistrationCache cache(door.callback());
  std::vector<std::uint8_t> memory(1000);
  auto first = cache.acquire({memory.data(), 1000});
  auto same = cache.acquire({memory.data(), 1000});
  auto inner = cache.acquire({memory.data() + 100, 50});
  REQUIRE(first.ok() && same.ok() && inner.ok());
  CHECK_EQ(door.made, 1);
  CHECK(first.value() == same.value() && first.value() == inner.value());
  CHECK_EQ(inner.value()->as<Span>().data, memory.data());
  first.value().reset();
  same.value().reset();
  CHECK_EQ(door.live, 1);
  inner.value().reset();
  CHECK_EQ(door.live, 0);
  CHECK_EQ(cache.size(), 0u);
}

TEST(registration_never_outlives_its_last_user) {
  CountingDoor door;
  RegistrationCache cache(door.callback());
  std::uint8_t memory[64];
  for (int i = 1; i <= 3; ++i) {
    // The same address again is other memory as far as anyone knows.
    auto registration = cache.acquire({memory, sizeof memory});
    REQUIRE(registration.ok());
    CHECK_EQ(door.made, i);
  }
  CHECK_EQ(door.live, 0);
}

TEST(registration_overlap_is_registered_by_itself) {
  CountingDoor door;
  RegistrationCache cache(door.callback());
  std::uint8_t memory[300];
  auto low = cache.acquire({memory, 200});
  auto high = cache.acquire({memory + 100, 200});
  REQUIRE(low.ok() && high.ok());
  CHECK_EQ(door.made, 2);
  auto both = cache.acquire({memory + 120, 60});
  REQUIRE(both.ok());
  CHECK_EQ(door.made, 2);
  // A larger one covers the others for those who come later.
  auto all = cache.acquire({memory, 300});
  REQUIRE(all.ok());
  CHECK_EQ(door.made, 3);
  low.value().reset();
  high.value().reset();
  both.value().reset();
  auto part = cache.acquire({memory + 50, 100});
  REQUIRE(part.ok());
  CHECK(part.value() == all.value());
  CHECK_EQ(door.live, 1);
}

TEST(registration_finds_a_long_span_behind_short_ones) {
  CountingDoor door;
  RegistrationCache cache(door.callback());
  std::vector<std::uint8_t> memory(10'000);
  std::vector<std::shared_ptr<const Registration>> held;
  for (std::size_t i = 0; i < 100; ++i) {
    auto small = cache.acquire({memory.data() + i * 64, 64});
    REQUIRE(small.ok());
    held.push_back(small.value());
  }
  auto all = cache.acquire({memory.data(), memory.size()});
  REQUIRE(all.ok());
  CHECK_EQ(door.made, 101);
  auto across = cache.acquire({memory.data() + 6000, 200});
  REQUIRE(across.ok());
  CHECK(across.value() == all.value());
}

TEST(registration_failure_leaves_nothing) {
  bool failing = true;
  RegistrationCache cache([&](Span) -> Expected<std::shared_ptr<void>> {
    if (failing) return Status(Code::system, "memlock");
    return std::shared_ptr<void>(std::make_shared<int>(1));
  });
  std::uint8_t memory[64];
  auto refused = cache.acquire({memory, 64});
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), Code::system);
  CHECK_EQ(cache.size(), 0u);
  failing = false;
  CHECK(cache.acquire({memory, 64}).ok());
  CHECK_EQ(cache.acquire({memory, 0}).status().code(), Code::invalid);
  CHECK_EQ(cache.acquire({}).status().code(), Code::invalid);
}

TEST(registration_may_outlive_the_cache) {
  CountingDoor door;
  std::uint8_t memory[64];
  std::shared_ptr<const Registration> kept;
  {
    RegistrationCache cache(door.callback());
    auto registration = cache.acquire({memory, 64});
    REQUIRE(registration.ok());
    kept = registration.value();
  }
  CHECK_EQ(door.live, 1);
  kept.reset();
  CHECK_EQ(door.live, 0);
}

TEST(registration_many_threads) {
  CountingDoor door;
  RegistrationCache cache(door.callback());
  std::vector<std::uint8_t> memory(4096);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int step = 0; step < 2000; ++step) {
        const std::size_t at = static_cast<std::size_t>(step * 7 + i) % 32 * 64;
        const Span wanted(memory.data() + at, step % 3 == 0 ? 2048 : 64);
        auto registration = cache.acquire(wanted);
        if (!registration.ok()) {
          ++wrong;
          continue;
        }
        const Span span = registration.value()->span();
        if (span.data > wanted.data || span.data + span.size < wanted.data + wanted.size) ++wrong;
        if (registration.value()->as<Span>().data != span.data) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong, 0);
  CHECK_EQ(door.live, 0);
  CHECK_EQ(cache.size(), 0u);
}
