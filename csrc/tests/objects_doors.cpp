// Reading and storing through a transport, with the failures of one: two instances in this process
// and a door that does as it is told.

#include <atomic>
#include <thread>

#include "tests/eventually.h"
#include "tests/fake_door.h"
#include "tests/objects_instance.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

// An owner and a reader with a fake door between them; the reader has no other unless it is given.
struct Pair {
  explicit Pair(bool one_sided, std::vector<std::string> doors = {"fake"})
      : there(FakeDoor::create(one_sided)),
        here(FakeDoor::create(one_sided)),
        owner(open_instance()),
        reader(open_instance(std::move(doors))) {
    REQUIRE(owner->open_door(there).ok());
    REQUIRE(reader->open_door(here).ok());
  }
  Key put(ConstSpan bytes) { return store(*owner, bytes); }
  Expected<Lease> get(const Key& key, Deadline deadline = in_time()) {
    return reader->reader().get(key, {}, deadline);
  }
  Status put_to(ConstSpan bytes, Deadline deadline = in_time()) {
    auto key =
        reader->reader().put_to(owner->owner()->self(), bytes.size, {{0, bytes}}, {}, deadline);
    if (key.ok()) last = key.value();
    return key.status();
  }

  std::shared_ptr<FakeDoor> there, here;
  std::unique_ptr<Instance> owner, reader;
  Key last;
};

constexpr bool kBoth[] = {false, true};
constexpr Nanoseconds kShort = 30 * kMillisecond;

}  // namespace

TEST(door_reads_of_all_sizes) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    for (const std::size_t size : {0, 1, 100, 4000, 65472, 2 << 20}) {
      const Bytes bytes = patterned(size);
      const Key key = pair.put(bytes);
      auto got = pair.get(key);
      CHECK(holds(got, bytes));
      CHECK_EQ(std::string(got->door), "fake");
      CHECK(got->writable);
      Bytes into(size);
      CHECK(pair.reader->reader().read_into(key, 0, into, in_time()).ok());
      CHECK(into == bytes);
      if (size > 10)
        CHECK(holds(pair.reader->reader().get_range(key, 4, size - 9, in_time()),
                    ConstSpan(bytes).slice(4, size - 9)));
      CHECK(pair.reader->reader().evict({key}, false, in_time()).front().ok());
      CHECK_EQ(code_of(pair.get(key)), Code::evicted);
    }
    CHECK(one_sided ? pair.here->reads > 0 : pair.here->reads == 0);
    CHECK_EQ(pair.there->reads, 0);
  }
}

TEST(door_batches_are_under_way_at_once) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    std::vector<Key> keys;
    for (std::size_t i = 0; i < 20; ++i) keys.push_back(pair.put(patterned(1000 * i)));
    CHECK(pair.get(keys[1]).ok());
    keys.push_back(store(*pair.reader, patterned(5)));
    const Key gone = pair.put(Bytes(10));
    CHECK(pair.owner->owner()->evict(gone.object_id, gone.capability).ok());
    keys.push_back(gone);
    pair.here->hold_out = true;
    std::thread later([&] {
      const auto& count = one_sided ? pair.here->reads : pair.here->messages;
      CHECK(eventually([&] { return count >= 20; }));
      pair.here->release();
    });
    auto got = pair.reader->reader().get_batch(keys, {}, in_time());
    later.join();
    REQUIRE(got.size() == keys.size());
    for (std::size_t i = 0; i < 20; ++i) CHECK(holds(got[i], patterned(1000 * i)));
    CHECK(holds(got[20], patterned(5)));
    CHECK_EQ(code_of(got[21]), Code::evicted);
  }
}

TEST(door_live_memory) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    Bytes live = patterned(200'000);
    const Bytes prefix = patterned(50, 8);
    auto handle = pair.owner->expose_live(prefix, 64, live);
    REQUIRE(handle.ok());
    const int exposed = pair.there->exposed();
    const Key key = handle.value()->key();
    auto got = pair.get(key);
    REQUIRE(got.ok());
    REQUIRE(got->memory.size == 64 + live.size());
    CHECK(std::memcmp(got->memory.data, prefix.data(), prefix.size()) == 0);
    CHECK(std::memcmp(got->memory.data + 64, live.data(), live.size()) == 0);
    for (const std::uint64_t offset : {10, 60, 64, 5000})
      CHECK_EQ(pair.reader->reader().get_range(key, offset, 100, in_time())->memory.data[70],
               live[offset + 70 - 64]);
    CHECK(handle.value()->begin_writing().ok());
    CHECK_EQ(code_of(pair.get(key, Deadline::after(kShort))), Code::changed);
    CHECK(handle.value()->end_writing().ok());
    CHECK(pair.get(key).ok());
    CHECK(handle.value()->close(in_time()).ok());
    CHECK_EQ(pair.there->exposed(), exposed - 1);
    CHECK_EQ(code_of(pair.get(key)), Code::evicted);
  }
}

// Memory that is being sent cannot go away; a peer that does not take it keeps it, not for ever.
TEST(door_live_memory_is_not_closed_under_a_send) {
  Pair pair(false);
  Bytes live(1000, 3);
  auto handle = pair.owner->expose_live({}, 0, live);
  REQUIRE(handle.ok());
  CHECK(pair.get(handle.value()->key()).ok());
  pair.there->hold_out = true;
  std::thread reading(
      [&] { static_cast<void>(pair.get(handle.value()->key(), Deadline::after(kSecond))); });
  CHECK(eventually([&] { return pair.owner->owner()->sending(handle.value()->key()); }));
  CHECK_EQ(handle.value()->close(Deadline::after(kShort)).code(), Code::timed_out);
  pair.there->release();
  CHECK(handle.value()->close(in_time()).ok());
  reading.join();
}

// A block is reused while a one-sided read is under way: the second look tells.
TEST(door_reads_that_take_long_look_again) {
  Pair pair(true);
  const Bytes bytes = patterned(1000);
  const Key key = pair.put(bytes);
  CHECK(pair.get(key).ok());
  std::atomic<int> transfers{0};
  pair.here->before_transfer = [&] {
    // Not before the whole object is on its way: between it and the second look.
    if (++transfers != 2) return;
    CHECK(pair.owner->owner()->evict(key.object_id, key.capability).ok());
  };
  pair.here->hold_out = true;
  std::thread later([&] {
    CHECK(eventually([&] { return transfers == 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pair.here->release();
  });
  const auto got = pair.get(key);
  later.join();
  pair.here->before_transfer = nullptr;
  CHECK_EQ(code_of(got), Code::evicted);
  CHECK(transfers >= 2);
}

TEST(door_reads_that_time_out) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    const Bytes bytes = patterned(5000);
    const Key key = pair.put(bytes);
    CHECK(pair.get(key).ok());
    pair.here->hold_out = true;
    const Nanoseconds begin = now();
    CHECK_EQ(code_of(pair.get(key, Deadline::after(kShort))), Code::timed_out);
    CHECK(now() - begin < 2 * kSecond);
    // It ends late, into memory that is still its own.
    pair.here->release();
    CHECK(holds(pair.get(key), bytes));
    CHECK_EQ(pair.here->connected(), 1);
  }
}

// Into memory of the caller's: when the time is up, nothing may be written there any more.
TEST(door_reads_into_the_callers_memory_that_time_out) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided, {"fake", "socket"});
    const Bytes bytes = patterned(5000);
    const Key key = pair.put(bytes);
    CHECK(pair.get(key).ok());
    auto into = std::make_unique<Bytes>(5000);
    pair.here->hold_out = true;
    const Nanoseconds begin = now();
    CHECK_EQ(
        pair.reader->reader().read_into(key, 0, *into, Deadline::after(kShort)).status().code(),
        Code::timed_out);
    CHECK(now() - begin < 2 * kSecond);
    into.reset();
    pair.here->release();
    // The door was cut for that, and opens again with a new link.
    auto got = pair.get(key);
    CHECK(holds(got, bytes));
    CHECK_EQ(std::string(got->door), "fake");
    CHECK(eventually([&] { return pair.there->connected() == 1; }));
  }
}

TEST(door_payloads_that_arrive_after_their_reader_gave_up) {
  Pair pair(false);
  const Bytes bytes = patterned(5000);
  const Key key = pair.put(bytes);
  CHECK(pair.get(key).ok());
  pair.here->hold_in = true;
  auto into = std::make_unique<Bytes>(5000);
  std::thread reading([&] {
    // The payload has its destination already: only when it has landed is the memory free.
    const auto read = pair.reader->reader().read_into(key, 0, *into, Deadline::after(kShort));
    CHECK(!read.ok());
    into.reset();
  });
  CHECK(eventually([&] { return pair.here->payloads_in == 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  pair.here->release();
  reading.join();
  CHECK(holds(pair.get(key), bytes));
}

TEST(door_that_is_lost) {
  for (const bool one_sided : kBoth) {
    {
      Pair pair(one_sided);
      const Bytes bytes = patterned(5000);
      const Key key = pair.put(bytes);
      CHECK(pair.get(key).ok());
      pair.here->lose_next = true;
      // The owner lives: the door is opened anew.
      CHECK(holds(pair.get(key), bytes));
      CHECK(pair.reader->reader().exists({key}, in_time()).front().ok());
    }
    Pair pair(one_sided, {"fake", "socket"});
    const Bytes bytes = patterned(5000);
    const Key key = pair.put(bytes);
    CHECK(pair.get(key).ok());
    pair.here->lose_next = true;
    auto got = pair.get(key);
    CHECK(holds(got, bytes));
    CHECK_EQ(std::string(got->door), "socket");
  }
}

TEST(door_lost_while_waiting) {
  Pair pair(false);
  const Key key = pair.owner->owner()->new_key();
  CHECK(pair.reader->reader().exists({key}, in_time()).front().code() == Code::not_found);
  const int asked = pair.here->messages;
  const Bytes bytes = patterned(100);
  std::thread later([&] {
    CHECK(eventually([&] { return pair.here->messages > asked; }));
    pair.here->lose_next = true;
    // The next message takes the channel with it; the wait goes on over the socket.
    static_cast<void>(pair.reader->reader().exists({key}, in_time()));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(pair.owner->owner()->put(100, {{0, bytes}}, {}, key.object_id).ok());
  });
  auto found = pair.reader->reader().wait_for(key, in_time());
  later.join();
  CHECK(found.ok());
}

TEST(door_that_refuses_payloads) {
  Pair pair(false, {"fake", "socket"});
  const Bytes bytes = patterned(5000);
  const Key key = pair.put(bytes);
  CHECK(pair.get(key).ok());
  pair.here->refuse_payloads = true;
  CHECK_EQ(code_of(pair.get(key)), Code::invalid);
  pair.here->refuse_payloads = false;
  CHECK(holds(pair.get(key), bytes));
}

// Requests and answers that are too long for a header travel as payload.
TEST(door_long_requests) {
  Pair pair(false);
  std::vector<Key> keys;
  for (std::size_t i = 0; i < kMaxBatch + 5; ++i) keys.push_back(pair.put({}));
  for (const Status& status : pair.reader->reader().exists(keys, in_time())) CHECK(status.ok());
  for (const Status& status : pair.reader->reader().evict(keys, false, in_time()))
    CHECK(status.ok());
  CHECK_EQ(pair.owner->owner()->stats().objects, 0u);
}

// Storing.

TEST(door_writes_of_all_sizes) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    for (const std::size_t size : {0, 1, 100, 65472, 2 << 20}) {
      const Bytes bytes = patterned(size, 5);
      REQUIRE(pair.put_to(bytes).ok());
      CHECK(holds(pair.owner->reader().get(pair.last, {}, in_time()), bytes));
      CHECK(holds(pair.get(pair.last), bytes));
    }
    CHECK(one_sided ? pair.here->writes > 0 : pair.here->writes == 0);
  }
}

TEST(door_writes_that_fail_leave_nothing_behind) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    const Bytes bytes = patterned(100'000);
    REQUIRE(pair.put_to(bytes).ok());
    CHECK(pair.reader->reader().evict({pair.last}, false, in_time()).front().ok());
    // The reservation is the first message, the bytes come next.
    const int so_far = pair.here->messages;
    std::thread later([&] {
      CHECK(eventually([&] { return pair.here->messages > so_far; }));
      pair.here->hold_out = true;
    });
    pair.there->hold_in = true;
    const Status status = pair.put_to(bytes, Deadline::after(200 * kMillisecond));
    later.join();
    pair.there->release();
    pair.here->release();
    if (status.ok()) CHECK(pair.reader->reader().evict({pair.last}, false, in_time()).front().ok());
    CHECK(eventually([&] {
      pair.owner->owner()->tend();
      return pair.owner->owner()->stats().objects == 0 &&
             pair.owner->owner()->stats().arena.used == 0;
    }));
    CHECK(pair.put_to(bytes).ok());
  }
}

// Its writer is gone while its bytes are still arriving: the block must not become another object's
// before they have landed.
TEST(door_a_writer_that_leaves_in_the_middle_of_a_delivery) {
  Pair pair(false);
  const Bytes bytes = patterned(8 << 20, 9);
  CHECK(pair.put_to(Bytes(10'000)).ok());
  pair.there->hold_in = true;
  std::thread writing([&] { CHECK(!pair.put_to(bytes).ok()); });
  CHECK(eventually([&] { return pair.there->payloads_in == 2; }));
  pair.reader->close();
  writing.join();
  CHECK(eventually([&] { return pair.owner->owner()->stats().readers == 0; }));
  pair.owner->owner()->tend();
  CHECK_EQ(pair.owner->owner()->put(10 << 20, {}, {}).status().code(), Code::full);
  pair.there->release();
  CHECK(pair.owner->owner()->put(10 << 20, {}, {}).ok());
}

// Ends.

TEST(door_closing_ends_the_calls_that_wait) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    const Key key = pair.put(patterned(100));
    const Key deferred = pair.owner->owner()->new_key();
    CHECK(pair.get(key).ok());
    pair.here->hold_out = true;
    std::atomic<int> ended{0};
    std::vector<std::thread> threads;
    threads.emplace_back([&] { ended += !pair.get(key).ok(); });
    threads.emplace_back(
        [&] { ended += !pair.reader->reader().wait_for(deferred, in_time()).ok(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const Nanoseconds begin = now();
    pair.reader->close();
    for (auto& thread : threads) thread.join();
    CHECK(now() - begin < 5 * kSecond);
    CHECK_EQ(ended, 2);
  }
}

TEST(door_owner_that_closes) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    const Key key = pair.put(patterned(100));
    CHECK(pair.get(key).ok());
    pair.owner->close();
    // Whichever it notices first.
    const Code told = code_of(pair.get(key));
    CHECK(told == Code::owner_gone || told == Code::evicted);
    CHECK_EQ(pair.reader->reader().exists({key}, in_time()).front().code(), Code::owner_gone);
  }
}

// An owner shows its memory to the transport of those only who may have all of it: someone off the
// node who has but the key of one object gets that object.
TEST(door_is_not_opened_for_the_holder_of_a_mere_key) {
  const Tag secret = random_tag();
  auto options = small_options();
  options.secret = secret;
  options.host = "127.0.0.1";
  auto owner = open_with(options);
  auto there = FakeDoor::create(true);
  REQUIRE(owner->open_door(there).ok());
  const Bytes bytes = patterned(1000);
  Key key = store(*owner, bytes);
  // A uid that nobody has: the node socket is then not found, as from another node.
  key.owner.uid = 0x7ffffffe;
  for (const bool knows_secret : kBoth) {
    auto theirs = small_options();
    if (knows_secret) theirs.secret = secret;
    auto reader = open_with(theirs);
    auto here = FakeDoor::create(true);
    REQUIRE(reader->open_door(here).ok());
    auto got = reader->reader().get(key, {}, in_time());
    CHECK(holds(got, bytes));
    CHECK_EQ(std::string(got->door), knows_secret ? "fake" : "socket");
    const auto put = reader->reader().put_to(key.owner, 4, {}, {}, in_time());
    CHECK_EQ(put.status().code(), knows_secret ? Code::ok : Code::denied);
    Key forged = key;
    forged.capability[0] ^= 1;
    auto stranger = open_instance();
    CHECK_EQ(code_of(stranger->reader().get(forged, {}, in_time())), Code::denied);
  }
}

// Several readers against one owner that stores and evicts, over both kinds of transport.
TEST(door_stress) {
  for (const bool one_sided : kBoth) {
    Pair pair(one_sided);
    std::mutex mutex;
    std::vector<std::pair<Key, std::uint8_t>> keys;
    std::atomic<bool> over{false};
    std::atomic<int> foreign{0}, unexpected{0}, read{0};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        Random random(t);
        while (!over) {
          std::pair<Key, std::uint8_t> one;
          {
            std::lock_guard<std::mutex> lock(mutex);
            if (keys.empty()) continue;
            one = keys[random.below(keys.size())];
          }
          auto got = pair.get(one.first);
          if (!got.ok()) {
            unexpected += code_of(got) != Code::evicted;
            continue;
          }
          ++read;
          for (std::size_t i = 0; i < got->memory.size; i += 61)
            foreign += got->memory.data[i] != one.second;
        }
      });
    }
    Random random(7);
    const Deadline deadline = Deadline::after(kSecond);
    while (!deadline.passed()) {
      const auto seed = random.byte();
      auto key = pair.owner->owner()->put(3000, {{0, Bytes(3000, seed)}}, {});
      std::lock_guard<std::mutex> lock(mutex);
      if (key.ok()) keys.emplace_back(key.value(), seed);
      if (keys.size() < 10) continue;
      const Key victim = keys.front().first;
      keys.erase(keys.begin());
      CHECK(pair.owner->owner()->evict(victim.object_id, victim.capability).ok());
    }
    over = true;
    for (auto& thread : threads) thread.join();
    CHECK_EQ(foreign, 0);
    CHECK_EQ(unexpected, 0);
    CHECK(read > 0);
  }
}
