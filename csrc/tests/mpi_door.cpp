// The mpi door on a real MPI whose only rank talks to itself: what it does with memory, messages,
// loans and streams is the same as between ranks. Between ranks it is tested from Python.

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "fabric/mpi/door.h"
#include "tests/check.h"
#include "tests/eventually.h"
#include "tests/mpi_world.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::fabric;
using namespace pshpc::test;
using pshpc::fabric::mpi::MpiDoor;

namespace {

class Notebook final : public Receiver {
 public:
  struct Note {
    Bytes header, payload;
    Code code;
  };

  Span destination(const std::shared_ptr<Channel>&, ConstSpan, std::size_t size) override {
    std::lock_guard<std::mutex> lock(mutex_);
    return *landings_.emplace_back(std::make_unique<Bytes>(size));
  }
  void arrived(const std::shared_ptr<Channel>&, ConstSpan header, Span payload,
               Status status) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      notes_.push_back({header.copy(), ConstSpan(payload).copy(), status.code()});
    }
    ++count;
  }
  void lost(const std::shared_ptr<Channel>&, Status) override { ++losses; }

  std::vector<Note> notes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return notes_;
  }
  std::atomic<unsigned> count{0}, losses{0};

 private:
  std::mutex mutex_;
  std::vector<Note> notes_;
  std::vector<std::unique_ptr<Bytes>> landings_;
};

// A door with both ends of one connection.
struct Rank {
  Rank() {
    REQUIRE(progress.start().ok());
    auto made = MpiDoor::create(world.port, {});
    REQUIRE(made.ok());
    door = std::move(made).value();
    REQUIRE(door->start(progress, notebook).ok());
    connect();
  }
  void connect() {
    auto offer = door->offer({});
    REQUIRE(offer.ok());
    Offer told;
    told.address = offer->address;
    told.token = offer->token;
    auto accepted = door->accept({}, std::move(told));
    REQUIRE(accepted.ok());
    there = accepted->channel;
    auto connected = door->connect({}, std::move(offer).value(), std::move(accepted->answer));
    REQUIRE(connected.ok());
    here = std::move(connected).value();
  }
  ~Rank() {
    here.reset();
    there.reset();
    door->stop();
    progress.stop();
  }

  // Waits until the door needs the payload no more.
  Status send(const Bytes& header, const Payload& payload) {
    Operation sent;
    here->send({header, payload}, &sent);
    CHECK(door->wait(sent, Deadline::after(20 * kSecond), {}).ok());
    return sent.status();
  }
  Status wait(const Operation& operation) {
    CHECK(door->wait(operation, Deadline::after(20 * kSecond), {}).ok());
    return operation.status();
  }

  MpiWorld world;
  Progress progress{Progress::Options{}};
  Notebook notebook;
  std::shared_ptr<MpiDoor> door;
  std::shared_ptr<Channel> here, there;
};

bool no_mpi() {
  if (mpi_api() != nullptr) return false;
  std::cout << "skip   the mpi door: PSHPC_TEST_MPI names no Open MPI" << std::endl;
  return true;
}

Bytes numbered(std::uint32_t n) {
  Bytes header(sizeof n);
  std::memcpy(header.data(), &n, sizeof n);
  return header;
}

}  // namespace

TEST(messages_of_every_size_arrive) {
  if (no_mpi()) return;
  Rank rank;
  Random random(1);
  std::vector<Bytes> payloads;
  for (const std::size_t size : {0u, 1u, 4000u, 4096u, 16'000u, 17'000u, 300'000u, 5'000'000u})
    payloads.push_back(random.bytes(size));
  for (std::uint32_t i = 0; i < payloads.size(); ++i) {
    const ConstSpan whole(payloads[i]);
    Payload payload(whole.slice(0, whole.size / 3));
    payload.append(whole.from(whole.size / 3));
    CHECK(rank.send(numbered(i), payload).ok());
    REQUIRE(eventually([&] { return rank.notebook.count == i + 1; }));
    const auto note = rank.notebook.notes().back();
    CHECK(note.header == numbered(i));
    CHECK(note.payload == payloads[i]);
    CHECK_EQ(note.code, Code::ok);
  }
}

TEST(a_flood_from_several_threads_arrives_whole) {
  if (no_mpi()) return;
  Rank rank;
  constexpr std::uint32_t kThreads = 3, kEach = 700;
  const Bytes payload = Random(2).bytes(20'000);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < kEach; ++i) {
        const bool large = i % 50 == 7;
        rank.here->send({numbered(t * kEach + i), large ? Payload(payload) : Payload()}, nullptr);
      }
    });
  for (std::thread& thread : threads) thread.join();
  REQUIRE(eventually([&] { return rank.notebook.count == kThreads * kEach; }, 20 * kSecond));
  std::vector<std::uint32_t> next(kThreads, 0);
  for (const auto& note : rank.notebook.notes()) {
    std::uint32_t n = 0;
    std::memcpy(&n, note.header.data(), sizeof n);
    const bool large = n % kEach % 50 == 7;
    CHECK_EQ(note.payload.size(), large ? payload.size() : 0);
    if (large) continue;
    // Those without a payload keep the order of their sender.
    CHECK(n % kEach >= next[n / kEach]);
    next[n / kEach] = n % kEach;
  }
}

TEST(memory_is_read_and_written) {
  if (no_mpi()) return;
  Rank rank;
  Bytes memory = Random(3).bytes(3'000'000);
  const Bytes before = memory;
  auto handle = rank.door->expose({7, memory, -1, memory::MemoryType::host});
  REQUIRE(handle.ok());
  auto region = rank.here->import(handle.value());
  REQUIRE(region.ok());
  for (const std::size_t size : {1u, 8u, 100'000u, 3'000'000u}) {
    Bytes into(size);
    Operation read;
    rank.here->read(*region.value(), before.size() - size, into, &read);
    CHECK(rank.wait(read).ok());
    CHECK(std::equal(into.begin(), into.end(), before.end() - static_cast<std::ptrdiff_t>(size)));
  }
  std::vector<std::unique_ptr<Operation>> writes;
  const Bytes source(1000, 0x5a);
  for (std::size_t i = 0; i < 50; ++i) {
    writes.push_back(std::make_unique<Operation>());
    rank.here->write(*region.value(), i * 2000, source, writes.back().get());
  }
  for (const auto& write : writes) CHECK(rank.wait(*write).ok());
  for (std::size_t i = 0; i < 50; ++i) {
    CHECK_EQ(memory[i * 2000], 0x5a);
    CHECK_EQ(memory[i * 2000 + 999], 0x5a);
    CHECK_EQ(memory[i * 2000 + 1000], before[i * 2000 + 1000]);
  }
  Operation outside;
  Bytes into(10);
  rank.here->read(*region.value(), memory.size() - 9, into, &outside);
  CHECK_EQ(rank.wait(outside).code(), Code::invalid);
  rank.door->withdraw(7);
}

TEST(memory_that_lies_open_is_fetched_from_where_it_is) {
  if (no_mpi()) return;
  Rank rank;
  Bytes memory = Random(4).bytes(9'000'000);
  REQUIRE(rank.door->expose({7, memory, -1, memory::MemoryType::host}).ok());
  const Bytes other = Random(5).bytes(70'000);
  // Parts that lie open, between others that do not.
  Payload payload(ConstSpan(memory).slice(5, 4'000'000));
  payload.append(other);
  payload.append(ConstSpan(memory).slice(5'000'000, 10));
  payload.append(ConstSpan(memory).from(5'000'010));
  Operation sent;
  rank.here->send({numbered(1), payload}, &sent);
  // Its region may end meanwhile; the memory stays as long as the message is under way.
  rank.door->withdraw(7);
  CHECK(rank.wait(sent).ok());
  REQUIRE(eventually([&] { return rank.notebook.count == 1; }));
  Bytes whole(payload.size());
  payload.copy_to(whole.data());
  const auto notes = rank.notebook.notes();
  CHECK_EQ(notes[0].code, Code::ok);
  CHECK(notes[0].payload == whole);
}

TEST(what_is_lent_stays_until_it_was_fetched_though_the_connection_is_closed) {
  if (no_mpi()) return;
  for (int turn = 0; turn < 20; ++turn) {
    Rank rank;
    Bytes memory = Random(6).bytes(2'000'000);
    REQUIRE(rank.door->expose({7, memory, -1, memory::MemoryType::host}).ok());
    Operation sent;
    rank.here->send({numbered(1), ConstSpan(memory)}, &sent);
    rank.here->close();
    const Code code = rank.wait(sent).code();
    CHECK(code == Code::ok || code == Code::peer_lost);
    const Bytes before = memory;
    std::fill(memory.begin(), memory.end(), std::uint8_t{0});
    REQUIRE(eventually([&] { return rank.notebook.losses > 0; }));
    for (const auto& note : rank.notebook.notes())
      CHECK(note.code == Code::peer_lost || note.payload == before);
  }
}

TEST(what_nobody_takes_gives_its_slots_back) {
  if (no_mpi()) return;
  Rank rank;
  const Bytes payload = Random(7).bytes(3'000'000);
  for (int turn = 0; turn < 10; ++turn) {
    std::vector<std::unique_ptr<Operation>> sent;
    for (std::uint32_t i = 0; i < 3; ++i) {
      sent.push_back(std::make_unique<Operation>());
      rank.here->send({numbered(i), ConstSpan(payload)}, sent.back().get());
    }
    // By its receiver, while parts of it are on their way; then nobody sends on.
    rank.there->close();
    for (const auto& operation : sent) {
      const Code code = rank.wait(*operation).code();
      CHECK(code == Code::ok || code == Code::peer_lost);
    }
    CHECK(eventually([&] { return !rank.here->alive(); }));
    rank.connect();
  }
  const unsigned before = rank.notebook.count;
  CHECK(rank.send(numbered(9), ConstSpan(payload)).ok());
  REQUIRE(eventually([&] { return rank.notebook.count > before; }));
  CHECK(rank.notebook.notes().back().payload == payload);
}

TEST(a_stream_leads_to_who_was_introduced) {
  if (no_mpi()) return;
  Rank rank;
  const Tag whom = random_tag();
  CHECK_EQ(rank.door->dial(whom).status().code(), Code::unavailable);
  rank.door->introduce(whom, 0);
  std::mutex mutex;
  std::vector<Fd> taken;
  rank.door->take_calls([&](Fd fd) {
    std::lock_guard<std::mutex> lock(mutex);
    taken.push_back(std::move(fd));
  });
  constexpr std::size_t kStreams = 3;
  std::vector<Fd> dialled;
  for (std::size_t i = 0; i < kStreams; ++i) {
    auto stream = rank.door->dial(whom);
    REQUIRE(stream.ok());
    dialled.push_back(std::move(stream).value());
  }
  REQUIRE(eventually([&] {
    std::lock_guard<std::mutex> lock(mutex);
    return taken.size() == kStreams;
  }));
  const auto read_all = [](int fd, std::size_t size) {
    Bytes all;
    REQUIRE(eventually([&] {
      std::uint8_t buffer[4096];
      const ssize_t got = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) all.insert(all.end(), buffer, buffer + got);
      return all.size() >= size;
    }));
    return all;
  };
  // The side that was dialled speaks first, as a host does.
  for (std::size_t i = 0; i < kStreams; ++i) {
    const Bytes word = Random(i).bytes(100'000);
    std::thread writer([&] {
      for (std::size_t at = 0; at < word.size();) {
        const ssize_t sent = ::send(taken[i].get(), &word[at], word.size() - at, MSG_NOSIGNAL);
        if (sent > 0) at += static_cast<std::size_t>(sent);
      }
    });
    CHECK(read_all(dialled[i].get(), word.size()) == word);
    writer.join();
    CHECK_EQ(::send(dialled[i].get(), "thanks", 6, MSG_NOSIGNAL), 6);
    CHECK(read_all(taken[i].get(), 6) == Bytes({'t', 'h', 'a', 'n', 'k', 's'}));
  }
  const auto at_end = [](int fd) {
    return eventually([&] {
      char byte = 0;
      return ::recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
    });
  };
  dialled[0] = Fd();
  CHECK(at_end(taken[0].get()));
  taken[1] = Fd();
  CHECK(at_end(dialled[1].get()));
  rank.door->stop();
  CHECK(at_end(dialled[2].get()));
  CHECK(at_end(taken[2].get()));
  CHECK_EQ(rank.door->dial(whom).status().code(), Code::peer_lost);
}
