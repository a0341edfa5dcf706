// Two instances that reach each other over the node socket and shared memory.

#include "tests/objects_instance.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/eventually.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

constexpr std::size_t kSizes[] = {0, 1, 100, 4096, 4097, 65471, 65472, 65536, 3 << 20};

}  // namespace

TEST(instance_reads_its_own) {
  auto here = open_instance();
  for (const std::size_t size : kSizes) {
    const Bytes bytes = patterned(size);
    const Key key = store(*here, bytes);
    auto view = here->reader().get(key, {}, in_time());
    CHECK(holds(view, bytes));
    CHECK_EQ(std::string(view->door), "self");
    CHECK(!view->writable);
    auto mine = here->reader().get(key, {true}, in_time());
    CHECK(holds(mine, bytes));
    CHECK(mine->writable);
    if (size > 0) mine->memory.data[0] ^= 255;
    CHECK(holds(here->reader().get(key, {}, in_time()), bytes));
  }
}

TEST(instance_reads_another_ones_through_shared_memory) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  for (const std::size_t size : kSizes) {
    const Bytes bytes = patterned(size);
    const Key key = store(*owner, bytes);
    auto view = reader->reader().get(key, {}, in_time());
    CHECK(holds(view, bytes));
    CHECK_EQ(std::string(view->door), "shm");
    CHECK(!view->writable);
    auto mine = reader->reader().get(key, {true}, in_time());
    CHECK(holds(mine, bytes));
    CHECK(mine->writable);
    if (size > 0) mine->memory.data[0] ^= 255;
    CHECK(holds(reader->reader().get(key, {}, in_time()), bytes));
    Bytes copy(size);
    auto door = reader->reader().read_into(key, 0, copy, in_time());
    REQUIRE(door.ok());
    CHECK(copy == bytes);
    if (size < 10) continue;
    CHECK(holds(reader->reader().get_range(key, 3, size - 5, in_time()),
                ConstSpan(bytes).slice(3, size - 5)));
    CHECK_EQ(code_of(reader->reader().get_range(key, 3, size, in_time())), Code::invalid);
    CHECK_EQ(code_of(reader->reader().get_range(key, ~0ull, 1, in_time())), Code::invalid);
  }
  CHECK_EQ(owner->owner()->stats().readers, 1u);
}

TEST(instance_reads_another_ones_through_the_socket) {
  auto owner = open_instance();
  auto reader = open_instance({"socket"});
  for (const std::size_t size : kSizes) {
    const Bytes bytes = patterned(size);
    const Key key = store(*owner, bytes);
    auto got = reader->reader().get(key, {}, in_time());
    CHECK(holds(got, bytes));
    CHECK_EQ(std::string(got->door), "socket");
    if (size > 10)
      CHECK(holds(reader->reader().get_range(key, 5, 3, in_time()), ConstSpan(bytes).slice(5, 3)));
  }
}

TEST(instance_without_a_way_says_so) {
  auto owner = open_instance();
  auto reader = open_instance({"ucx"});
  const auto got = reader->reader().get(store(*owner, Bytes(10)), {}, in_time());
  CHECK_EQ(code_of(got), Code::unavailable);
  CHECK(got.status().message().find("allowed: ucx") != std::string::npos);
}

// A view of an evicted object is what it was, for as long as it lives.
TEST(instance_evict_while_it_is_looked_at) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const std::size_t most = 12 << 20;
  const Bytes bytes = patterned(most, 1);
  const Key key = store(*owner, bytes);
  auto view = reader->reader().get(key, {}, in_time());
  auto copy_on_write = reader->reader().get(key, {true}, in_time());
  REQUIRE(view.ok() && copy_on_write.ok());
  CHECK(reader->reader().evict({key}, false, in_time()).front().ok());
  CHECK_EQ(code_of(reader->reader().get(key, {}, in_time())), Code::evicted);
  CHECK_EQ(owner->owner()->put(most, {}, {}).status().code(), Code::full);
  CHECK(holds(view, bytes));
  view = Status(Code::invalid, "dropped");
  CHECK_EQ(owner->owner()->put(most, {}, {}).status().code(), Code::full);
  CHECK(holds(copy_on_write, bytes));
  copy_on_write = Status(Code::invalid, "dropped");
  auto next = owner->owner()->put(most, {}, {});
  REQUIRE(next.ok());
  // Its bytes are where the old key points to now.
  CHECK_EQ(code_of(reader->reader().get(key, {}, in_time())), Code::evicted);
}

TEST(instance_views_outlive_everything) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const Bytes bytes = patterned(100'000);
  auto view = reader->reader().get(store(*owner, bytes), {}, in_time());
  auto own = owner->reader().get(store(*owner, bytes), {}, in_time());
  CHECK(holds(view, bytes));
  reader->close();
  reader.reset();
  // The owner still honours the pin of a reader that closed.
  const Key key = store(*owner, bytes);
  CHECK_EQ(owner->owner()->stats().readers, 1u);
  CHECK(owner->owner()->evict(key.object_id, key.capability).ok());
  CHECK(holds(view, bytes));
  owner.reset();
  CHECK(holds(view, bytes));
  CHECK(holds(own, bytes));
}

TEST(instance_more_views_than_a_pin_table_has_slots) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const Bytes bytes = patterned(64);
  const Key key = store(*owner, bytes);
  std::vector<Expected<Lease>> views;
  for (std::uint32_t i = 0; i < 2 * memory::PinTable::kSlots + 10; ++i) {
    views.push_back(reader->reader().get(key, {}, in_time()));
    REQUIRE(views.back().ok());
  }
  CHECK_EQ(owner->owner()->stats().readers, 3u);
  views.clear();
  CHECK(holds(reader->reader().get(key, {}, in_time()), bytes));
}

TEST(instance_many_threads_need_another_pin_table_at_once) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const Key key = store(*owner, patterned(64));
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      std::vector<Expected<Lease>> views;
      for (std::uint32_t i = 0; i < memory::PinTable::kSlots / 2; ++i) {
        views.push_back(reader->reader().get(key, {}, in_time()));
        if (!views.back().ok()) ++failed;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(failed, 0);
}

TEST(instance_exists_and_evicts_in_batches) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  std::vector<Key> keys;
  for (std::size_t i = 0; i < 2 * kMaxBatch + 7; ++i) keys.push_back(store(*owner, {}));
  keys.push_back(store(*reader, {}));
  for (const Status& status : reader->reader().exists(keys, in_time())) CHECK(status.ok());
  Key unknown = keys.front();
  unknown.object_id = 1'000'000;
  keys.push_back(unknown);
  auto evicted = reader->reader().evict(keys, false, in_time());
  CHECK_EQ(evicted.back().code(), Code::denied);
  evicted.pop_back();
  for (const Status& status : evicted) CHECK(status.ok());
  keys.pop_back();
  for (const Status& status : reader->reader().exists(keys, in_time()))
    CHECK_EQ(status.code(), Code::evicted);
  const Key pinned = store(*owner, {}, {0, kPinned});
  CHECK_EQ(reader->reader().evict({pinned}, false, in_time()).front().code(), Code::pinned);
  CHECK(reader->reader().evict({pinned}, true, in_time()).front().ok());
}

TEST(instance_waits_for_deferred_objects) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  for (auto* waiting : {owner.get(), reader.get()}) {
    const Key key = owner->owner()->new_key();
    CHECK_EQ(code_of(waiting->reader().get(key, {}, in_time())), Code::not_found);
    CHECK_EQ(waiting->reader().wait_for(key, Deadline::after(30 * kMillisecond)).status().code(),
             Code::timed_out);
    const Bytes bytes = patterned(1000);
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      CHECK(owner->owner()->put(1000, {{0, bytes}}, {}, key.object_id).ok());
    });
    auto found = waiting->reader().wait_for(key, in_time());
    later.join();
    REQUIRE(found.ok());
    CHECK(holds(waiting->reader().get(found.value(), {}, in_time()), bytes));
    CHECK(holds(waiting->reader().get(key, {}, in_time()), bytes));
    CHECK(waiting->reader().evict({key}, false, in_time()).front().ok());
    CHECK_EQ(waiting->reader().wait_for(key, in_time()).status().code(), Code::evicted);
  }
}

TEST(instance_waits_end_with_the_owner) {
  for (const bool gracefully : {true, false}) {
    auto owner = open_instance();
    auto reader = open_instance({"shm"});
    const Key key = owner->owner()->new_key();
    std::atomic<Code> told{Code::ok};
    std::thread waiting([&] { told = reader->reader().wait_for(key, in_time()).status().code(); });
    CHECK(eventually([&] { return owner->owner()->stats().readers == 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (gracefully)
      CHECK(owner->owner()->evict(key.object_id, key.capability).ok());
    else
      owner->close();
    waiting.join();
    CHECK(told == Code::evicted || (!gracefully && told == Code::owner_gone));
  }
}

// Storing elsewhere.

TEST(instance_stores_at_another_one) {
  auto owner = open_instance();
  for (const char* door : {"shm", "socket"}) {
    auto writer = open_instance({door});
    for (const std::size_t size : kSizes) {
      const Bytes bytes = patterned(size, 3);
      const ConstSpan all(bytes);
      std::vector<Part> parts = {{0, all.slice(0, size / 2)}, {size / 2, all.from(size / 2)}};
      auto key = writer->reader().put_to(owner->owner()->self(), size, parts, {}, in_time());
      REQUIRE(key.ok());
      CHECK(holds(owner->reader().get(key.value(), {}, in_time()), bytes));
      CHECK(holds(writer->reader().get(key.value(), {}, in_time()), bytes));
      CHECK(writer->reader().evict({key.value()}, false, in_time()).front().ok());
    }
    const auto& self = owner->owner()->self();
    CHECK_EQ(writer->reader().put_to(self, 64 << 20, {}, {}, in_time()).status().code(),
             Code::full);
    CHECK_EQ(writer->reader().put_to(self, 1, {{1, Bytes(1)}}, {}, in_time()).status().code(),
             Code::invalid);
    CHECK_EQ(writer->reader().put_to(self, 1, {}, {-1, 0}, in_time()).status().code(),
             Code::invalid);
    auto pinned = writer->reader().put_to(self, 1, {}, {0, kPinned}, in_time());
    REQUIRE(pinned.ok());
    CHECK_EQ(writer->reader().evict({pinned.value()}, false, in_time()).front().code(),
             Code::pinned);
    CHECK(writer->reader().evict({pinned.value()}, true, in_time()).front().ok());
  }
  CHECK_EQ(owner->owner()->stats().objects, 0u);
}

// Live memory.

TEST(instance_live_memory_is_read_where_it_is) {
  auto owner = open_instance();
  Bytes live = patterned(500'000);
  const Bytes prefix = patterned(40, 9);
  auto handle = owner->expose_live(prefix, 64, live);
  REQUIRE(handle.ok());
  const Key key = handle.value()->key();
  for (const char* door : {"self", "shm", "socket"}) {
    auto other = open_instance({door});
    auto& reader = door == std::string("self") ? owner->reader() : other->reader();
    for (int change = 0; change < 3; ++change) {
      CHECK(handle.value()->begin_writing().ok());
      live[change] ^= 0x55;
      CHECK(handle.value()->end_writing().ok());
      auto got = reader.get(key, {}, in_time());
      REQUIRE(got.ok());
      CHECK_EQ(std::string(got->door), door);
      REQUIRE(got->memory.size == 64 + live.size());
      CHECK(std::memcmp(got->memory.data, prefix.data(), prefix.size()) == 0);
      CHECK(std::memcmp(got->memory.data + 64, live.data(), live.size()) == 0);
    }
    for (const std::uint64_t offset : {0, 30, 60, 64, 100}) {
      auto part = reader.get_range(key, offset, 50, in_time());
      REQUIRE(part.ok());
      for (std::size_t i = offset < 64 ? 64 - offset : 0; i < 50; ++i)
        CHECK_EQ(part->memory.data[i], live[offset + i - 64]);
    }
    CHECK(handle.value()->begin_writing().ok());
    CHECK_EQ(code_of(reader.get(key, {}, Deadline::after(20 * kMillisecond))), Code::changed);
    CHECK(handle.value()->end_writing().ok());
  }
  auto reader = open_instance({"shm"});
  CHECK(reader->reader().get(key, {}, in_time()).ok());
  CHECK(handle.value()->close(in_time()).ok());
  CHECK(handle.value()->close(in_time()).ok());
  CHECK_EQ(code_of(reader->reader().get(key, {}, in_time())), Code::evicted);
  CHECK_EQ(code_of(owner->reader().get(key, {}, in_time())), Code::evicted);
  CHECK_EQ(handle.value()->begin_writing().code(), Code::invalid);
}

TEST(instance_live_memory_outlives_its_instance) {
  Bytes live(1000);
  auto owner = open_instance();
  auto handle = owner->expose_live({}, 0, live);
  auto second = owner->expose_live({}, 0, live);
  REQUIRE(handle.ok() && second.ok());
  owner->close();
  CHECK(handle.value()->close(in_time()).ok());
  owner.reset();
  CHECK(second.value()->close(in_time()).ok());
}

// Keys that are wrong.

TEST(instance_bad_keys) {
  auto owner = open_instance();
  const Key good = store(*owner, patterned(1000));
  for (const char* door : {"self", "shm", "socket"}) {
    auto other = open_instance({door});
    auto& reader = door == std::string("self") ? owner->reader() : other->reader();
    Random random(1);
    for (int i = 0; i < 300; ++i) {
      auto parsed = Key::parse(random.garbled(good.encode()));
      if (!parsed.ok()) continue;
      const Key& key = parsed.value();
      const auto got = reader.get(key, {}, Deadline::after(2 * kSecond));
      // An owner does not need to be told where the object is.
      if (got.ok()) CHECK_EQ(got->memory.size, 1000u);
      const auto part = reader.get_range(key, 0, key.length, Deadline::after(2 * kSecond));
      if (part.ok()) CHECK(part->memory.size <= 1000u);
    }
    Key longer = good;
    longer.length = (1ull << 47);
    CHECK(!reader.get_range(longer, 0, longer.length, in_time()).ok());
    CHECK(!reader.get_range(longer, 2000, 10, in_time()).ok());
    Key other_segment = good;
    other_segment.segment = 77;
    if (door == std::string("shm"))
      CHECK_EQ(code_of(reader.get(other_segment, {}, in_time())), Code::not_found);
    Key forged = good;
    forged.capability[0] ^= 1;
    if (door != std::string("shm"))
      CHECK_EQ(code_of(reader.get(forged, {}, in_time())), Code::denied);
    Key nobody = good;
    nobody.owner.id[0] ^= 1;
    CHECK_EQ(code_of(reader.get(nobody, {}, in_time())), Code::owner_gone);
    CHECK_EQ(reader.exists({nobody}, in_time()).front().code(), Code::owner_gone);
  }
}

// Ends.

TEST(instance_that_closed_says_so) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const Key key = store(*owner, Bytes(10));
  CHECK(reader->reader().get(key, {}, in_time()).ok());
  reader->close();
  CHECK_EQ(reader->usable().code(), Code::closed);
  CHECK_EQ(code_of(reader->reader().get(key, {}, in_time())), Code::closed);
  CHECK_EQ(reader->reader().exists({key}, in_time()).front().code(), Code::closed);
  reader->close();
  CHECK(eventually([&] { return owner->owner()->stats().readers == 0; }));
}

TEST(instance_closing_ends_the_calls_that_wait) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const Key key = owner->owner()->new_key();
  std::atomic<Code> told{Code::ok};
  std::thread waiting([&] { told = reader->reader().wait_for(key, in_time()).status().code(); });
  CHECK(eventually([&] { return owner->owner()->stats().readers == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  reader->close();
  waiting.join();
  CHECK_EQ(told, Code::closed);
}

// Peers learn at once that an instance closed, while the object that was it still exists.
TEST(instance_peers_learn_of_a_close) {
  for (int round = 0; round < 10; ++round) {
    auto owner = open_instance();
    auto reader = open_instance({"shm"});
    const Key key = store(*owner, Bytes(10));
    auto link = reader->reader().link(key.owner, &key, in_time());
    REQUIRE(link.ok());
    CHECK(link.value()->alive());
    owner->close();
    CHECK(!link.value()->alive());
    CHECK_EQ(reader->reader().exists({key}, in_time()).front().code(), Code::owner_gone);
  }
}

TEST(instance_of_an_owner_that_was_killed) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto owner = Instance::create(small_options());
    if (!owner.ok()) ::_exit(1);
    const Bytes bytes = patterned(100'000);
    auto key = owner.value()->owner()->put(bytes.size(), {{0, bytes}}, {});
    const Bytes packed = key->encode();
    if (::write(ends[1], packed.data(), packed.size()) < 0) ::_exit(2);
    ::pause();
    ::_exit(0);
  }
  Bytes packed(300);
  const ssize_t size = ::read(ends[0], packed.data(), packed.size());
  REQUIRE(size > 0);
  auto key = Key::parse(ConstSpan(packed).slice(0, static_cast<std::size_t>(size)));
  REQUIRE(key.ok());
  auto reader = open_instance({"shm"});
  auto view = reader->reader().get(key.value(), {}, in_time());
  CHECK(holds(view, patterned(100'000)));
  // The owner need not run for what is mapped already.
  ::kill(child, SIGSTOP);
  REQUIRE(::waitpid(child, nullptr, WUNTRACED) == child);
  CHECK(holds(reader->reader().get(key.value(), {}, in_time()), patterned(100'000)));
  CHECK_EQ(
      reader->reader().exists({key.value()}, Deadline::after(50 * kMillisecond)).front().code(),
      Code::timed_out);
  std::atomic<Code> told{Code::ok};
  std::thread waiting(
      [&] { told = reader->reader().exists({key.value()}, in_time()).front().code(); });
  ::kill(child, SIGKILL);
  waiting.join();
  CHECK_EQ(told, Code::owner_gone);
  CHECK(holds(view, patterned(100'000)));
  ::waitpid(child, nullptr, 0);
  CHECK_EQ(reader->reader().exists({key.value()}, in_time()).front().code(), Code::owner_gone);
  for (int end : ends) ::close(end);
}

TEST(instance_of_an_owner_that_is_stopped_is_waited_for_in_time) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto owner = Instance::create(small_options());
    if (!owner.ok()) ::_exit(1);
    const Bytes packed = owner.value()->owner()->put(10, {}, {})->encode();
    if (::write(ends[1], packed.data(), packed.size()) < 0) ::_exit(2);
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  Bytes packed(300);
  const ssize_t size = ::read(ends[0], packed.data(), packed.size());
  REQUIRE(size > 0);
  auto key = Key::parse(ConstSpan(packed).slice(0, static_cast<std::size_t>(size)));
  REQUIRE(key.ok());
  CHECK(::waitpid(child, nullptr, WUNTRACED) == child);
  auto reader = open_instance();
  // Many at once: none waits for the one that is connecting beyond its own time.
  std::vector<std::thread> threads;
  for (const Nanoseconds patience : {kSecond, 20 * kMillisecond, 50 * kMillisecond}) {
    threads.emplace_back([&, patience] {
      const Nanoseconds begin = now();
      const auto got = reader->reader().get(key.value(), {}, Deadline::after(patience));
      CHECK_EQ(code_of(got), Code::timed_out);
      CHECK(now() - begin < patience + 500 * kMillisecond);
    });
  }
  for (auto& thread : threads) thread.join();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  for (int end : ends) ::close(end);
}

TEST(instance_in_a_forked_child) {
  auto owner = open_instance();
  auto reader = open_instance({"shm"});
  const Bytes bytes = patterned(100'000);
  const Key key = store(*owner, bytes);
  auto remote = std::make_unique<Expected<Lease>>(reader->reader().get(key, {}, in_time()));
  auto local = std::make_unique<Expected<Lease>>(owner->reader().get(key, {}, in_time()));
  Bytes live(1000);
  auto handle = owner->expose_live({}, 0, live);
  REQUIRE(handle.ok());
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(10);
    bool good = owner->usable().code() == Code::forked;
    good = good && std::memcmp((*remote)->memory.data, bytes.data(), bytes.size()) == 0;
    remote.reset();
    local.reset();
    handle.value().reset();
    owner->close();
#if defined(__SANITIZE_THREAD__)
    ::_exit(good ? 0 : 1);  // it forbids threads in a child of a process with threads
#endif
    auto fresh = Instance::create(small_options({"shm"}));
    good = good && fresh.ok();
    // The parent is reached as by any other process.
    auto got = fresh.value()->reader().get(key, {}, in_time());
    good = good && got.ok() && std::memcmp(got->memory.data, bytes.data(), bytes.size()) == 0;
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  CHECK(holds(*remote, bytes));
  CHECK(holds(reader->reader().get(handle.value()->key(), {}, in_time()), live));
}

// Everything at once between three instances.
TEST(instance_stress) {
  constexpr int kInstances = 3;
  std::vector<std::unique_ptr<Instance>> all;
  for (int i = 0; i < kInstances; ++i) all.push_back(open_instance());
  std::mutex mutex;
  std::vector<std::pair<Key, std::uint8_t>> shared;
  std::atomic<int> foreign{0}, unexpected{0}, read{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      Instance& here = *all[t % kInstances];
      const Deadline deadline = Deadline::after(1500 * kMillisecond);
      while (!deadline.passed()) {
        const auto seed = random.byte();
        const Bytes bytes(1 + random.below(random.below(8) == 0 ? 300'000 : 2'000), seed);
        const auto& target = all[random.below(kInstances)]->owner()->self();
        auto key = here.reader().put_to(target, bytes.size(), {{0, bytes}}, {}, in_time());
        std::pair<Key, std::uint8_t> other;
        {
          std::lock_guard<std::mutex> lock(mutex);
          if (key.ok()) shared.emplace_back(key.value(), seed);
          if (shared.empty()) continue;
          other = shared[random.below(shared.size())];
        }
        auto got = here.reader().get(other.first, {random.below(4) == 0}, in_time());
        if (got.ok()) {
          ++read;
          for (std::size_t i = 0; i < got->memory.size; i += 97)
            if (got->memory.data[i] != other.second) ++foreign;
        } else if (code_of(got) != Code::evicted && code_of(got) != Code::full) {
          ++unexpected;
        }
        std::vector<Key> victims;
        {
          std::lock_guard<std::mutex> lock(mutex);
          if (shared.size() > 20) {
            const std::size_t at = random.below(shared.size());
            victims.push_back(shared[at].first);
            shared.erase(shared.begin() + static_cast<std::ptrdiff_t>(at));
          }
        }
        for (const Status& status : here.reader().evict(victims, false, in_time()))
          if (!status.ok()) ++unexpected;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(foreign, 0);
  CHECK_EQ(unexpected, 0);
  CHECK(read > 0);
}
