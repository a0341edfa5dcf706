// Pulling and pushing between two instances in this process, over every way.

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

constexpr std::uint8_t kBoth = kBulkRead | kBulkWrite;
constexpr Nanoseconds kShort = 50 * kMillisecond;

enum class Way { self, segment, process, one_sided, messages, socket };
constexpr Way kWays[] = {Way::self,      Way::segment,  Way::process,
                         Way::one_sided, Way::messages, Way::socket};

const char* door_of(Way way) {
  switch (way) {
    case Way::self: return kSelfDoor;
    case Way::segment:
    case Way::process: return kShmDoor;
    case Way::one_sided:
    case Way::messages: return "fake";
    case Way::socket: return kSocketDoor;
  }
  return "";
}

// An owner and another instance, between which one way is open.
struct Pair {
  explicit Pair(Way w) : way(w), owner(open_instance()) {
    if (way == Way::self) return;
    const bool fake = std::string(door_of(way)) == "fake";
    reader = open_instance({door_of(way)});
    if (!fake) return;
    there = FakeDoor::create(way == Way::one_sided);
    here = FakeDoor::create(way == Way::one_sided);
    REQUIRE(owner->open_door(there).ok());
    REQUIRE(reader->open_door(here).ok());
  }

  // Memory of the kind that the way is for.
  Span memory(std::size_t size) {
    if (way != Way::segment) {
      kept.push_back(std::make_unique<Bytes>(size));
      return *kept.back();
    }
    auto block = owner->owner()->arena().allocate(size);
    REQUIRE(block.ok());
    return {block->data, size};
  }
  std::unique_ptr<BulkMemory> expose(const std::vector<Span>& spans, std::uint8_t mode = kBoth) {
    auto exposed = owner->bulks().expose(spans, mode);
    REQUIRE(exposed.ok());
    return std::move(exposed).value();
  }
  Instance& user() { return reader ? *reader : *owner; }
  BulkOrder order(Direction direction, const Bulk& bulk, std::uint64_t offset,
                  std::vector<Span> local, Deadline deadline = in_time()) {
    BulkOrder made;
    // As it arrives from elsewhere.
    made.bulk = Bulk::parse(bulk.encode()).value();
    made.direction = direction;
    made.offset = offset;
    made.local = std::move(local);
    made.deadline = deadline;
    return made;
  }
  Status move(Direction direction, const Bulk& bulk, std::uint64_t offset, std::vector<Span> local,
              Deadline deadline = in_time()) {
    auto moved =
        user().bulk_client().move(order(direction, bulk, offset, std::move(local), deadline));
    if (moved.ok()) CHECK_EQ(std::string(moved.value()), door_of(way));
    return moved.status();
  }
  std::shared_ptr<BulkTransfer> submit(Direction direction, const Bulk& bulk, std::uint64_t offset,
                                       std::vector<Span> local, Deadline deadline = in_time()) {
    return user().bulk_client().submit(order(direction, bulk, offset, std::move(local), deadline));
  }
  Status pull(const Bulk& bulk, Span into) { return move(Direction::pull, bulk, 0, {into}); }
  Status push(const Bulk& bulk, Span from) { return move(Direction::push, bulk, 0, {from}); }

  const Way way;
  std::shared_ptr<FakeDoor> there, here;
  std::unique_ptr<Instance> owner, reader;
  std::vector<std::unique_ptr<Bytes>> kept;
};

bool expect_ok(const Status& status) {
  if (!status.ok()) note_failure(__FILE__, __LINE__, status.message());
  return status.ok();
}

bool same(ConstSpan a, ConstSpan b) {
  return a.size == b.size && (a.empty() || std::memcmp(a.data, b.data, a.size) == 0);
}

}  // namespace

TEST(bulk_of_all_sizes_both_ways) {
  for (const Way way : kWays) {
    Pair pair(way);
    for (const std::size_t size : {1, 100, 4096, 100'000, (3 << 20) + 5}) {
      const Span memory = pair.memory(size);
      const Bytes before = patterned(size, 3);
      copy_bytes(memory.data, before);
      auto exposed = pair.expose({memory});
      Bytes got(size);
      CHECK(expect_ok(pair.pull(exposed->bulk(), got)));
      CHECK(got == before);
      Bytes after = patterned(size, 9);
      CHECK(expect_ok(pair.push(exposed->bulk(), after)));
      CHECK(same(memory, after));
      CHECK(expect_ok(exposed->close(in_time())));
    }
  }
}

TEST(bulk_scatters_and_gathers) {
  for (const Way way : kWays) {
    Pair pair(way);
    Random random(5);
    std::vector<Span> spans;
    for (const std::size_t size : {1000, 0, 1, 70'000, 3}) spans.push_back(pair.memory(size));
    auto exposed = pair.expose(spans);
    const std::size_t total = 71'004;
    Bytes mirror = patterned(total);
    CHECK(expect_ok(pair.push(exposed->bulk(), mirror)));
    for (int i = 0; i < 20; ++i) {
      const std::size_t offset = random.below(total);
      const std::size_t size = random.below(total - offset) + 1;
      Bytes local = patterned(size, static_cast<std::uint8_t>(i));
      const std::size_t first = random.below(size + 1);
      const std::vector<Span> parts = {{local.data(), first}, {local.data() + first, size - first}};
      if (i % 2 == 0) {
        CHECK(expect_ok(pair.move(Direction::push, exposed->bulk(), offset, parts)));
        copy_bytes(mirror.data() + offset, local);
      } else {
        CHECK(expect_ok(pair.move(Direction::pull, exposed->bulk(), offset, parts)));
        CHECK(same(local, {mirror.data() + offset, size}));
      }
    }
    std::size_t at = 0;
    for (const Span& span : spans) {
      CHECK(same(span, {mirror.data() + at, span.size}));
      at += span.size;
    }
    const Bulk part = exposed->bulk().select(999, 10).value();
    Bytes ten(10), eleven(11);
    CHECK(expect_ok(pair.pull(part, ten)));
    CHECK(same(ten, {mirror.data() + 999, 10}));
    CHECK_EQ(pair.pull(part, eleven).code(), Code::invalid);
    CHECK_EQ(pair.move(Direction::push, part, 1, {ten}).code(), Code::invalid);
    CHECK(expect_ok(pair.move(Direction::pull, part, 10, {})));
  }
}

TEST(bulk_modes_and_capabilities) {
  for (const Way way : kWays) {
    Pair pair(way);
    const Span memory = pair.memory(5000);
    auto readable = pair.expose({memory}, kBulkRead);
    auto writable = pair.expose({memory}, kBulkWrite);
    Bytes local(5000, 1);
    CHECK_EQ(pair.push(readable->bulk(), local).code(), Code::denied);
    CHECK_EQ(pair.pull(writable->bulk(), local).code(), Code::denied);
    CHECK(expect_ok(pair.pull(readable->bulk(), local)));
    CHECK(expect_ok(pair.push(writable->bulk(), local)));
    // What the owner serves, it checks. What it does not serve is a matter between one user's
    // processes, once one of them was given the segment or the kernel allows it.
    if (way == Way::process || way == Way::segment) continue;
    Bulk forged = readable->bulk();
    forged.mode = kBoth;
    forged.pieces[0].region = 1;  // so that what is at hand already does not count
    const Bytes before = ConstSpan(memory).copy();
    Bytes other(5000, 7);
    if (way != Way::one_sided) CHECK_EQ(pair.push(forged, other).code(), Code::denied);
    forged.capability[3] ^= 1;
    CHECK_EQ(pair.push(forged, other).code(), Code::denied);
    CHECK_EQ(pair.pull(forged, other).code(), Code::denied);
    forged.id = 77;
    CHECK_EQ(pair.pull(forged, other).code(), Code::not_found);
    CHECK(same(memory, before));
  }
}

TEST(bulk_is_closed) {
  for (const Way way : kWays) {
    Pair pair(way);
    const Span memory = pair.memory(5000);
    Bytes local(5000, 1);
    auto exposed = pair.expose({memory});
    auto stays = pair.expose({memory});
    const Bulk bulk = exposed->bulk();
    CHECK(expect_ok(pair.push(bulk, local)));
    const int regions = pair.there ? pair.there->exposed() : 1;
    CHECK(expect_ok(exposed->close(in_time())));
    CHECK(expect_ok(exposed->close(in_time())));
    if (pair.there) CHECK_EQ(pair.there->exposed(), regions - 1);
    Bytes other(5000, 2);
    CHECK_EQ(pair.push(bulk, other).code(), Code::evicted);
    CHECK_EQ(pair.pull(bulk, other).code(), Code::evicted);
    CHECK(same(memory, local));
    CHECK(expect_ok(pair.pull(stays->bulk(), other)));
    CHECK(other == local);
  }
}

TEST(bulk_of_an_owner_that_is_gone) {
  for (const Way way : kWays) {
    if (way == Way::self) continue;
    Pair pair(way);
    const Span memory = pair.memory(5000);
    auto exposed = pair.expose({memory});
    Bytes local(5000, 1);
    CHECK(expect_ok(pair.pull(exposed->bulk(), local)));
    pair.owner->close();
    const Code code = pair.pull(exposed->bulk(), local).code();
    CHECK(code == Code::owner_gone || code == Code::evicted);
    CHECK(!pair.push(exposed->bulk(), local).ok());
    const auto transfer = pair.submit(Direction::push, exposed->bulk(), 0, {local});
    CHECK(transfer->wait(in_time()));
    CHECK(!transfer->outcome().ok());
    CHECK(expect_ok(exposed->close(in_time())));
  }
}

TEST(bulk_of_an_owner_that_is_closed_here) {
  for (const Way way : kWays) {
    Pair pair(way);
    auto exposed = pair.expose({pair.memory(100)});
    Bytes local(100);
    const Bulk bulk = exposed->bulk();
    pair.user().close();
    CHECK(!pair.pull(bulk, local).ok());
    const auto transfer = pair.submit(Direction::pull, bulk, 0, {local});
    CHECK(transfer->wait(in_time()));
    CHECK(!transfer->outcome().ok());
    CHECK(!pair.user().bulks().expose({local}, kBulkRead).ok());
  }
}

TEST(bulk_many_in_flight) {
  for (const Way way : kWays) {
    Pair pair(way);
    constexpr std::size_t kCount = 100;
    constexpr std::size_t kSize = 10'000;
    const Span memory = pair.memory(kCount * kSize);
    copy_bytes(memory.data, patterned(memory.size, 1));
    const Bytes before = patterned(memory.size, 1);
    auto exposed = pair.expose({memory});
    Bytes got(memory.size);
    std::vector<std::shared_ptr<BulkTransfer>> transfers;
    std::atomic<std::size_t> told{0};
    for (std::size_t i = 0; i < kCount; ++i) {
      transfers.push_back(pair.submit(Direction::pull, exposed->bulk(), i * kSize,
                                      {{got.data() + i * kSize, kSize}}));
      transfers.back()->when_done([&told] { ++told; });
    }
    for (std::size_t i = 0; i < kCount; i += 2) CHECK(transfers[i]->wait(in_time()));
    CHECK(eventually([&] { return told == kCount; }));
    for (const auto& transfer : transfers) {
      CHECK(transfer->done());
      auto outcome = transfer->outcome();
      if (expect_ok(outcome.status())) CHECK_EQ(std::string(outcome.value()), door_of(way));
    }
    CHECK(got == before);
  }
}

TEST(bulk_transfers_are_in_flight_at_once) {
  for (const Way way : {Way::one_sided, Way::messages}) {
    Pair pair(way);
    const Span memory = pair.memory(50'000);
    auto exposed = pair.expose({memory});
    Bytes local(50'000);
    CHECK(expect_ok(pair.pull(exposed->bulk(), local)));
    pair.here->hold_out = true;
    const int before = pair.here->reads + pair.here->messages;
    std::vector<std::shared_ptr<BulkTransfer>> transfers;
    for (std::size_t i = 0; i < 5; ++i)
      transfers.push_back(pair.submit(Direction::pull, exposed->bulk(), i * 10'000,
                                      {{local.data() + i * 10'000, 10'000}}));
    CHECK_EQ(pair.here->reads + pair.here->messages, before + 5);
    CHECK(!transfers[0]->done());
    CHECK(!transfers[0]->wait(Deadline::after(kMillisecond)));
    CHECK_EQ(transfers[0]->outcome().status().code(), Code::invalid);
    pair.here->release();
    for (const auto& transfer : transfers) {
      CHECK(transfer->wait(in_time()));
      CHECK(expect_ok(transfer->outcome().status()));
    }
  }
}

TEST(bulk_large_transfers_go_in_pieces) {
  Pair pair(Way::messages);
  const Span memory = pair.memory(50u << 20);
  copy_bytes(memory.data, patterned(memory.size, 5));
  auto exposed = pair.expose({memory});
  Bytes got(memory.size);
  const int before = pair.here->messages;
  CHECK(expect_ok(pair.pull(exposed->bulk(), got)));
  CHECK(same(got, memory));
  CHECK(pair.here->messages > before + 4);
}

TEST(bulk_waits_no_longer_than_it_may) {
  for (const Way way : {Way::one_sided, Way::messages}) {
    for (const Direction direction : {Direction::pull, Direction::push}) {
      Pair pair(way);
      auto exposed = pair.expose({pair.memory(5000)});
      Bytes local(5000);
      CHECK(expect_ok(pair.pull(exposed->bulk(), local)));
      pair.here->hold_out = true;
      CHECK_EQ(pair.move(direction, exposed->bulk(), 0, {local}, Deadline::after(kShort)).code(),
               Code::timed_out);
      const auto transfer =
          pair.submit(direction, exposed->bulk(), 0, {local}, Deadline::after(kShort));
      CHECK(transfer->wait(in_time()));
      CHECK_EQ(transfer->outcome().status().code(), Code::timed_out);
      pair.here->release();
      CHECK(eventually([&] { return pair.pull(exposed->bulk(), local).ok(); }));
    }
  }
}

TEST(bulk_transfers_can_be_cancelled) {
  for (const Way way : {Way::one_sided, Way::messages}) {
    Pair pair(way);
    auto exposed = pair.expose({pair.memory(5000)});
    Bytes local(5000);
    CHECK(expect_ok(pair.pull(exposed->bulk(), local)));
    pair.here->hold_out = true;
    const auto transfer = pair.submit(Direction::pull, exposed->bulk(), 0, {local});
    transfer->cancel();
    CHECK(transfer->done());
    CHECK_EQ(transfer->outcome().status().code(), Code::cancelled);
    transfer->cancel();
    pair.here->release();
  }
}

TEST(bulk_a_channel_that_breaks_is_replaced) {
  for (const Way way : {Way::one_sided, Way::messages}) {
    Pair pair(way);
    const Span memory = pair.memory(5000);
    copy_bytes(memory.data, patterned(5000));
    auto exposed = pair.expose({memory});
    Bytes local(5000);
    for (int i = 0; i < 3; ++i) {
      pair.here->lose_next = true;
      const Status status = pair.pull(exposed->bulk(), local);
      CHECK(status.ok() || status.code() == Code::unavailable || status.code() == Code::peer_lost);
      const auto transfer = pair.submit(Direction::pull, exposed->bulk(), 0, {local});
      CHECK(transfer->wait(in_time()));
    }
    CHECK(eventually([&] { return pair.pull(exposed->bulk(), local).ok(); }));
    CHECK(local == patterned(5000));
  }
}

// Memory that is being sent, or looked at, cannot go away.
TEST(bulk_is_not_closed_under_a_transfer) {
  for (const Way way : {Way::one_sided, Way::messages}) {
    Pair pair(way);
    auto exposed = pair.expose({pair.memory(5000)});
    Bytes local(5000);
    CHECK(expect_ok(pair.pull(exposed->bulk(), local)));
    FakeDoor& held = way == Way::one_sided ? *pair.here : *pair.there;
    held.hold_out = true;
    const int messages = pair.there->messages;
    const auto transfer = pair.submit(Direction::pull, exposed->bulk(), 0, {local});
    if (way == Way::messages) CHECK(eventually([&] { return pair.there->messages > messages; }));
    CHECK_EQ(exposed->close(Deadline::after(kShort)).code(), Code::timed_out);
    CHECK(!transfer->done());
    pair.here->release();
    pair.there->release();
    CHECK(expect_ok(exposed->close(in_time())));
    CHECK(transfer->wait(in_time()));
    CHECK(expect_ok(transfer->outcome().status()));
  }
}

// A registration that is refused, as of read-only memory, leaves the way by messages.
TEST(bulk_without_registration) {
  Pair pair(Way::one_sided);
  const Span memory = pair.memory(5000);
  auto exposed = pair.expose({memory});
  pair.owner->bulks().exposure().remove(exposed->bulk().pieces[0].region);
  Bytes local = patterned(5000);
  CHECK(expect_ok(pair.push(exposed->bulk(), local)));
  CHECK(same(memory, local));
  CHECK_EQ(pair.here->writes, 0);
}

TEST(bulk_refuses_nonsense) {
  Pair pair(Way::self);
  Bytes local(10);
  BulkTable& table = pair.owner->bulks();
  CHECK_EQ(table.expose({local}, 0).status().code(), Code::invalid);
  CHECK_EQ(table.expose({local}, 4).status().code(), Code::invalid);
  CHECK_EQ(table.expose(std::vector<Span>(5000, local), kBulkRead).status().code(), Code::invalid);
  auto nothing = table.expose({}, kBulkRead);
  REQUIRE(nothing.ok());
  CHECK(expect_ok(pair.move(Direction::pull, nothing.value()->bulk(), 0, {})));
}

// Handles that point elsewhere are found out before anything is touched.
TEST(bulk_handles_that_point_elsewhere) {
  Pair pair(Way::segment);
  auto exposed = pair.expose({pair.memory(5000)});
  Bytes local(5000);
  CHECK(expect_ok(pair.pull(exposed->bulk(), local)));
  Bulk garbled = exposed->bulk();
  garbled.pieces[0].place = std::uint64_t{1} << 40;
  CHECK_EQ(pair.pull(garbled, local).code(), Code::invalid);
  garbled = exposed->bulk();
  garbled.gate.offset = std::uint64_t{1} << 40;
  CHECK_EQ(pair.pull(garbled, local).code(), Code::invalid);
  garbled.gate.offset = exposed->bulk().gate.offset + 3;
  CHECK_EQ(pair.pull(garbled, local).code(), Code::invalid);
  garbled.gate.offset = exposed->bulk().gate.offset + 64;
  CHECK(!pair.pull(garbled, local).ok());
  garbled = exposed->bulk();
  garbled.pieces[0].segment = BulkPiece::kPrivate;
  garbled.pieces[0].place = 4096;
  CHECK(!pair.pull(garbled, local).ok());
  garbled = exposed->bulk();
  garbled.pieces[0].segment = 55;
  CHECK(!pair.pull(garbled, local).ok());
}

// Memory is exposed and taken back while transfers of it run: none of them may see it afterwards.
TEST(bulk_comes_and_goes_under_transfers) {
  for (const Way way : kWays) {
    Pair pair(way);
    std::mutex mutex;
    std::shared_ptr<const Bulk> current;
    std::atomic<bool> stop{false};
    std::atomic<int> good{0};
    std::vector<std::thread> users;
    for (int t = 0; t < 3; ++t) {
      users.emplace_back([&, t] {
        Bytes local(20'000, static_cast<std::uint8_t>(t));
        while (!stop) {
          std::shared_ptr<const Bulk> bulk;
          {
            std::lock_guard<std::mutex> lock(mutex);
            bulk = current;
          }
          if (!bulk) continue;
          // Threads write to parts of their own.
          const auto at = static_cast<std::uint64_t>(t) * 20'000;
          const Direction direction = t == 2 ? Direction::push : Direction::pull;
          const Status status = pair.move(direction, *bulk, at, {local});
          if (status.ok()) ++good;
          if (!status.ok() && status.code() != Code::evicted)
            note_failure(__FILE__, __LINE__, status.message());
        }
      });
    }
    for (int round = 0; round < 30; ++round) {
      Bytes memory(60'000, static_cast<std::uint8_t>(round));
      auto exposed = pair.expose({memory});
      {
        std::lock_guard<std::mutex> lock(mutex);
        current = std::make_shared<const Bulk>(exposed->bulk());
      }
      const int before = good;
      eventually([&] { return good >= before + 3; }, 200 * kMillisecond);
      CHECK(expect_ok(exposed->close(in_time())));
      std::fill(memory.begin(), memory.end(), std::uint8_t{0xee});
      const Bytes mark = memory;
      if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      CHECK(memory == mark);
    }
    stop = true;
    for (std::thread& user : users) user.join();
    CHECK(good > 0);
  }
}
