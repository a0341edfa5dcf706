// Messages between two instances of this process over rings, and what a ring does with a peer that
// is slow, gone, or out of its mind.

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "fabric/ring/door.h"
#include "rpc/diagnostics.h"
#include "rpc/probe.h"
#include "tests/eventually.h"
#include "tests/objects_instance.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::fabric;
using namespace pshpc::test;
using pshpc::fabric::ring::RingDoor;

namespace {

// Notes what arrives; payloads land in memory of its own.
class Notebook final : public Receiver {
 public:
  struct Note {
    Bytes header;
    Bytes payload;
    Code code;
  };

  Span destination(const std::shared_ptr<Channel>&, ConstSpan header, std::size_t size) override {
    std::lock_guard<std::mutex> lock(mutex_);
    ++announced;
    if (refuse) return {};
    auto& landing = landings_.emplace_back(std::make_unique<Bytes>(size));
    static_cast<void>(header);
    return {landing->data(), size};
  }
  void arrived(const std::shared_ptr<Channel>& from, ConstSpan header, Span payload,
               Status status) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      notes_.push_back({header.copy(), ConstSpan(payload).copy(), status.code()});
    }
    if (answer) from->send({header, {}}, nullptr);
    ++count;
  }
  void lost(const std::shared_ptr<Channel>&, Status why) override {
    std::lock_guard<std::mutex> lock(mutex_);
    lost_code = why.code();
    ++losses;
  }

  std::vector<Note> notes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return notes_;
  }

  std::atomic<int> announced{0}, count{0}, losses{0};
  std::atomic<Code> lost_code{Code::ok};
  std::atomic<bool> refuse{false}, answer{false};

 private:
  std::mutex mutex_;
  std::vector<Note> notes_;
  std::vector<std::unique_ptr<Bytes>> landings_;
};

struct Side {
  explicit Side(bool lends = true) {
    REQUIRE(progress.start().ok());
    auto made = RingDoor::create(lends);
    REQUIRE(made.ok());
    door = std::move(made).value();
    REQUIRE(door->start(progress, notebook).ok());
  }
  ~Side() {
    channel.reset();
    door->stop();
    progress.stop();
  }

  Progress progress{Progress::Options{}};
  Notebook notebook;
  std::shared_ptr<RingDoor> door;
  std::shared_ptr<Channel> channel;
};

struct Connected {
  explicit Connected(bool fetching = true, bool lends = true) : left(lends) {
    const Peer here{true, fetching ? ::getpid() : 0};
    auto offer = left.door->offer(here);
    REQUIRE(offer.ok());
    Offer told;
    for (const GuardedFd& fd : offer->fds) told.fds.emplace_back(Fd(::dup(fd.get())));
    offer->fds.clear();
    auto accepted = right.door->accept(here, std::move(told));
    REQUIRE(accepted.ok());
    right.channel = accepted->channel;
    auto channel = left.door->connect(here, std::move(offer).value(), std::move(accepted->answer));
    REQUIRE(channel.ok());
    left.channel = std::move(channel).value();
  }

  // With an operation, by which the sender is done with the payload for ThreadSanitizer too: it
  // sees nothing of what is ordered through the rings.
  void send(Side& from, const Bytes& header, const Payload& payload) {
    operations.push_back(std::make_unique<Operation>());
    from.channel->send({header, payload}, operations.back().get());
  }
  bool all_sent() {
    return eventually([&] {
      return std::all_of(operations.begin(), operations.end(),
                         [](const auto& operation) { return operation->done(); });
    });
  }

  Side left, right;
  std::vector<std::unique_ptr<Operation>> operations;
};

Bytes numbered(std::uint32_t n, std::size_t size = 24) {
  Bytes header(std::max(size, sizeof n), static_cast<std::uint8_t>(n));
  std::memcpy(header.data(), &n, sizeof n);
  return header;
}

std::uint32_t number_of(const Bytes& header) {
  std::uint32_t n = 0;
  std::memcpy(&n, header.data(), sizeof n);
  return n;
}

}  // namespace

TEST(ring_carries_messages_of_all_sizes_in_order) {
  Connected pair;
  Random random(7);
  std::vector<Bytes> headers, payloads;
  for (std::uint32_t i = 0; i < 400; ++i) {
    const std::size_t header = 4 + random.below(i % 7 == 0 ? kMaxHeader - 4 : 300);
    const std::size_t payload = i % 5 == 0 ? random.below(400'000) : random.below(100);
    headers.push_back(numbered(i, header));
    payloads.push_back(patterned(payload, static_cast<std::uint8_t>(i)));
  }
  for (std::size_t i = 0; i < headers.size(); ++i)
    pair.send(pair.left, headers[i], ConstSpan(payloads[i]));
  const int expected = static_cast<int>(headers.size());
  CHECK(eventually([&] { return pair.right.notebook.count == expected; }));
  CHECK(pair.all_sent());
  std::vector<bool> seen(headers.size());
  std::uint32_t last = 0;
  for (const auto& note : pair.right.notebook.notes()) {
    const std::uint32_t n = number_of(note.header);
    REQUIRE(n < headers.size());
    CHECK(!seen[n]);
    seen[n] = true;
    CHECK(note.header == headers[n]);
    CHECK(note.payload == payloads[n]);
    CHECK_EQ(note.code, Code::ok);
    // What has no payload to wait for keeps its place.
    if (payloads[n].size() > 16 * 1024) continue;
    CHECK(n >= last);
    last = n;
  }
}

namespace {

void check_parts(bool fetching, bool lends = true) {
  Connected pair(fetching, lends);
  const Bytes first = patterned(70'000, 1), second = patterned(1, 2), third = patterned(200'000, 3);
  Payload payload{ConstSpan(first)};
  payload.append(ConstSpan(second));
  payload.append(ConstSpan(third));
  Operation sent;
  pair.left.channel->send({numbered(1), payload}, &sent);
  CHECK(eventually([&] { return pair.right.notebook.count == 1 && sent.done(); }));
  CHECK(sent.status().ok());
  Bytes whole(payload.size());
  payload.copy_to(whole.data());
  CHECK(pair.right.notebook.notes()[0].payload == whole);
  // More parts than are told to the other side.
  Payload many;
  for (std::size_t i = 0; i < 100; ++i) many.append(ConstSpan(third).slice(i, 1000 + i));
  Bytes all(many.size());
  many.copy_to(all.data());
  pair.send(pair.left, numbered(2), many);
  CHECK(eventually([&] { return pair.right.notebook.count == 2; }));
  CHECK(pair.all_sent());
  CHECK(pair.right.notebook.notes()[1].payload == all);
}

}  // namespace

TEST(ring_sends_what_lies_apart_as_one) {
  check_parts(true);
  check_parts(false);
}

// The process that readers take us for may be another one.
TEST(ring_that_lends_nothing_sends_all_pieces_itself) { check_parts(true, false); }

TEST(ring_payloads_come_whole_while_both_sides_move_them) {
  for (const bool fetching : {true, false}) {
    Connected pair(fetching);
    Random random(5);
    std::vector<Bytes> payloads;
    for (int i = 0; i < 40; ++i)
      payloads.push_back(patterned(20'000 + random.below(3'000'000), static_cast<std::uint8_t>(i)));
    for (std::uint32_t i = 0; i < payloads.size(); ++i) {
      pair.send(pair.left, numbered(i), ConstSpan(payloads[i]));
      pair.send(pair.right, numbered(i), ConstSpan(payloads[i]));
    }
    CHECK(eventually([&] { return pair.right.notebook.count == 40; }));
    CHECK(eventually([&] { return pair.left.notebook.count == 40; }));
    CHECK(pair.all_sent());
    for (const auto& operation : pair.operations) CHECK(operation->status().ok());
    for (const auto& note : pair.right.notebook.notes())
      CHECK(note.payload == payloads[number_of(note.header)]);
  }
}

TEST(ring_reader_helps_itself_where_the_writer_does_not_run) {
  Connected pair;
  pair.left.progress.stop();
  const Bytes large = patterned(9'000'001);
  Operation sent;
  pair.left.channel->send({numbered(1), ConstSpan(large)}, &sent);
  CHECK(eventually([&] { return pair.right.notebook.count == 1; }));
  CHECK(pair.right.notebook.notes()[0].payload == large);
  CHECK(!sent.done());  // it is for the writer to find out that its memory is free again
  CHECK(pair.left.door->wait(sent, in_time(), {}).ok());
  CHECK(sent.status().ok());
}

TEST(ring_goes_on_where_the_kernel_does_not_let_it_fetch) {
  Connected pair;
  // What is at the other end of the first process number is not ours to read.
  Side reader;
  auto offer = pair.left.door->offer({true, 1});
  REQUIRE(offer.ok());
  Offer told;
  for (const GuardedFd& fd : offer->fds) told.fds.emplace_back(Fd(::dup(fd.get())));
  offer->fds.clear();
  auto accepted = reader.door->accept({true, (1 << 22) - 1}, std::move(told));
  REQUIRE(accepted.ok());
  auto channel = pair.left.door->connect({true, 0}, std::move(offer).value(), {});
  REQUIRE(channel.ok());
  const Bytes large = patterned(5 << 20);
  Operation sent;
  channel.value()->send({numbered(1), ConstSpan(large)}, &sent);
  CHECK(eventually([&] { return reader.notebook.count == 1 && sent.done(); }));
  CHECK(reader.notebook.notes()[0].payload == large);
}

TEST(ring_lets_short_messages_pass_a_long_payload) {
  Connected pair;
  const Bytes large = patterned(64 << 20);
  Operation sent;
  pair.left.channel->send({numbered(0), ConstSpan(large)}, &sent);
  pair.left.channel->send({numbered(1), {}}, nullptr);
  CHECK(eventually([&] { return pair.right.notebook.count == 2; }));
  const auto notes = pair.right.notebook.notes();
  CHECK_EQ(number_of(notes[0].header), 1u);
  CHECK_EQ(number_of(notes[1].header), 0u);
  CHECK(notes[1].payload == large);
  CHECK(eventually([&] { return sent.done(); }));
}

TEST(ring_refuses_a_payload_and_goes_on) {
  Connected pair;
  pair.right.notebook.refuse = true;
  const Bytes large = patterned(1 << 20), small = patterned(100);
  pair.send(pair.left, numbered(1), ConstSpan(large));
  pair.send(pair.left, numbered(2), ConstSpan(small));
  pair.left.channel->send({numbered(3), {}}, nullptr);
  CHECK(eventually([&] { return pair.right.notebook.count == 3; }));
  pair.right.notebook.refuse = false;
  pair.send(pair.left, numbered(4), ConstSpan(large));
  CHECK(eventually([&] { return pair.right.notebook.count == 4; }));
  CHECK(pair.all_sent());
  for (const auto& note : pair.right.notebook.notes()) {
    const std::uint32_t n = number_of(note.header);
    CHECK_EQ(note.code, n <= 2 ? Code::invalid : Code::ok);
    CHECK_EQ(note.payload.size(), n == 4 ? large.size() : 0u);
  }
}

TEST(ring_wakes_a_sleeper) {
  Connected pair;
  pair.right.notebook.answer = true;
  for (int i = 1; i <= 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // both sides are asleep by now
    pair.left.channel->send({numbered(static_cast<std::uint32_t>(i)), {}}, nullptr);
    CHECK(eventually([&] { return pair.left.notebook.count == i; }));
  }
}

TEST(ring_takes_messages_of_many_threads) {
  Connected pair;
  constexpr int kThreads = 4, kEach = 5000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i)
        pair.left.channel->send({numbered(static_cast<std::uint32_t>(t * kEach + i)), {}}, nullptr);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(eventually([&] { return pair.right.notebook.count == kThreads * kEach; }));
  std::uint32_t next[kThreads] = {};
  for (const auto& note : pair.right.notebook.notes()) {
    const std::uint32_t n = number_of(note.header);
    CHECK_EQ(n % kEach, next[n / kEach]++);
  }
}

TEST(ring_tells_what_was_sent_before_the_end) {
  Connected pair;
  for (std::uint32_t i = 0; i < 500; ++i) pair.left.channel->send({numbered(i), {}}, nullptr);
  pair.left.channel->close();
  CHECK(eventually([&] { return pair.right.notebook.losses == 1; }));
  CHECK_EQ(pair.right.notebook.count.load(), 500);
  CHECK_EQ(pair.right.notebook.lost_code.load(), Code::peer_lost);
  CHECK(!pair.right.channel->alive());
  CHECK_EQ(pair.left.notebook.losses.load(), 0);  // who closes knows it
  Operation late;
  pair.right.channel->send({numbered(1), {}}, &late);
  CHECK(late.done());
  CHECK_EQ(late.status().code(), Code::peer_lost);
}

TEST(ring_ends_a_payload_that_was_cut_short) {
  Connected pair;
  const Bytes large = patterned(32 << 20);
  Operation sent;
  pair.left.channel->send({numbered(1), ConstSpan(large)}, &sent);
  CHECK(eventually([&] { return pair.right.notebook.announced == 1; }));
  pair.left.channel->close();
  CHECK(sent.done());
  CHECK(eventually([&] { return pair.right.notebook.losses == 1; }));
  for (const auto& note : pair.right.notebook.notes())
    CHECK(note.code == Code::peer_lost || note.payload == large);
}

// Whoever gave memory for a payload is told that it does not come, also when nobody holds the
// channel any more.
TEST(ring_gives_back_where_a_payload_was_to_go) {
  Connected pair(false);
  const Bytes large = patterned(64 << 20);
  Operation sent;
  pair.left.channel->send({numbered(1), ConstSpan(large)}, &sent);
  CHECK(eventually([&] { return pair.right.notebook.announced == 1; }));
  pair.right.channel->close();
  pair.right.channel.reset();
  CHECK(eventually([&] { return pair.right.notebook.count == 1 && sent.done(); }));
  const auto notes = pair.right.notebook.notes();
  REQUIRE(notes.size() == 1);
  const auto& note = notes[0];
  CHECK(note.code == Code::peer_lost || note.payload == large);
}

TEST(ring_survives_the_end_of_the_receiver_in_the_middle) {
  Connected pair;
  const Bytes large = patterned(32 << 20);
  Operation sent;
  pair.left.channel->send({numbered(1), ConstSpan(large)}, &sent);
  pair.right.channel->close();
  CHECK(eventually([&] { return sent.done() && pair.left.notebook.losses == 1; }));
}

TEST(ring_refuses_what_is_no_ring) {
  Side side;
  CHECK_EQ(side.door->offer({}).status().code(), Code::unavailable);
  CHECK_EQ(side.door->accept({}, {}).status().code(), Code::protocol);
  auto offer = side.door->offer({true, 0});
  REQUIRE(offer.ok());
  Offer swapped;
  swapped.fds.push_back(std::move(offer->fds[1]));
  swapped.fds.push_back(std::move(offer->fds[0]));
  CHECK_EQ(side.door->accept({true, 0}, std::move(swapped)).status().code(), Code::protocol);
}

TEST(ring_ends_a_connection_that_brings_garbage) {
  Random random(11);
  for (int round = 0; round < 60; ++round) {
    Side side;
    auto offer = side.door->offer({true, 0});
    REQUIRE(offer.ok());
    // The other side's view of the memory, to write into as a peer gone mad would.
    auto theirs = ring::Shared::open(offer->fds[0].get());
    REQUIRE(theirs.ok());
    const int bell = ::dup(offer->fds[1].get());
    auto channel = side.door->connect({true, 0}, std::move(offer).value(), {});
    REQUIRE(channel.ok());
    const Bytes garbage = random.bytes(256);
    std::memcpy(theirs->outgoing_bytes(), garbage.data(), garbage.size());
    theirs->outgoing().tail.store(round % 3 == 0 ? random.below(~0ull)
                                                 : 16 * (1 + random.below(16)));
    theirs->outgoing().reader_sleeps = 0;
    const char sound = 0;
    // Unless the garbage was noticed already.
    [[maybe_unused]] const ssize_t rung = ::send(bell, &sound, 1, MSG_NOSIGNAL);
    CHECK(eventually([&] {
      return side.notebook.losses == 1 || side.notebook.count > 0 || side.notebook.announced > 0;
    }));
    ::close(bell);
    CHECK(eventually([&] { return side.notebook.losses == 1; }));
  }
}

namespace {

// A peer gone mad: it begins a payload, then breaks the rules of its pieces.
void check_mad_writer(const ring::Claim& claim, std::size_t piece) {
  Side side;
  auto offer = side.door->offer({true, 0});
  REQUIRE(offer.ok());
  auto theirs = ring::Shared::open(offer->fds[0].get());
  REQUIRE(theirs.ok());
  const Fd bell(::dup(offer->fds[1].get()));
  auto channel = side.door->connect({true, ::getpid()}, std::move(offer).value(), {});
  REQUIRE(channel.ok());
  static const Bytes payload(200'000);
  ring::RecordHead head;
  head.kind = ring::RecordKind::begin;
  head.size = 16 + sizeof(ring::Place);
  head.header_size = 16;
  head.payload_size = payload.size();
  const ring::Place place{reinterpret_cast<std::uintptr_t>(payload.data()), payload.size()};
  std::uint8_t* at = theirs->outgoing_bytes();
  std::memcpy(at, &head, sizeof head);
  std::memset(at + sizeof head, 7, 16);
  std::memcpy(at + sizeof head + 16, &place, sizeof place);
  std::uint64_t tail = sizeof head + 16 + sizeof place;
  theirs->outgoing().claim.store(claim.pack());
  if (piece > 0) {
    ring::RecordHead next;
    next.kind = ring::RecordKind::piece;
    next.size = static_cast<std::uint32_t>(piece);
    std::memcpy(at + tail, &next, sizeof next);
    tail += align_up(sizeof next + piece, 16);
  }
  theirs->outgoing().tail.store(tail);
  const char sound = 0;
  [[maybe_unused]] const ssize_t rung = ::send(bell.get(), &sound, 1, MSG_NOSIGNAL);
  CHECK(eventually([&] { return side.notebook.losses == 1; }));
  CHECK_EQ(side.notebook.lost_code.load(), Code::protocol);
  CHECK(eventually([&] { return side.notebook.count == 1; }));  // that it does not come
  CHECK_EQ(side.notebook.notes()[0].code, Code::protocol);
}

}  // namespace

TEST(ring_does_not_believe_a_writer_gone_mad) {
  check_mad_writer({1, 0, 2}, 0);       // the end moved
  check_mad_writer({1, 0, 2}, 1);       // and a piece of one byte
  check_mad_writer({1, 7, 7}, 1);       // that alone
  check_mad_writer({1, 7, 7}, 33'000);  // a long one
  check_mad_writer({1, 0, 0xffff}, 0);  // more pieces than there are
}

TEST(ring_connects_instances_for_calls) {
  auto options = small_options();
  options.rings = true;
  auto server = open_with(options), client = open_with(options);
  auto link = client->reader().live_link(server->owner()->self(), in_time());
  REQUIRE(link.ok());
  REQUIRE(link.value()->channel("ring") != nullptr);
  const auto measured =
      rpc::probe(*link.value()->wire(), {2000, 64, 100}, Deadline::after(20 * kSecond));
  CHECK(measured.ok());
  const auto large =
      rpc::probe(*link.value()->wire(), {20, 4, 300'000}, Deadline::after(20 * kSecond));
  CHECK(large.ok());
  const auto door = server->exposure().door("ring");
  REQUIRE(door != nullptr);
  CHECK_EQ(door->facts()[0].second, "1");
  server->close();
  const auto ended = rpc::probe(*link.value()->wire(), {1, 1, 0}, Deadline::after(kSecond));
  CHECK(!ended.ok());
}
