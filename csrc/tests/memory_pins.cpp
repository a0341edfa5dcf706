#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "memory/pins.h"
#include "tests/check.h"

using namespace pshpc;
using namespace pshpc::memory;

namespace {

std::unique_ptr<PinTable> new_table() {
  auto table = PinTable::create();
  REQUIRE(table.ok());
  return std::move(table).value();
}

std::unique_ptr<PinTableView> view_of(const PinTable& table) {
  auto view = PinTableView::open(Fd(::fcntl(table.fd(), F_DUPFD_CLOEXEC, 0)));
  REQUIRE(view.ok());
  return std::move(view).value();
}

Code refusal(Fd fd) {
  auto view = PinTableView::open(std::move(fd));
  return view.ok() ? Code::ok : view.status().code();
}

constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK;
constexpr off_t kTableSize = 64 + 4096 * 16;

Fd memfd(off_t size, int seals, bool reserve = true) {
  Fd fd(::memfd_create("pshpc-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(fd.get(), size) == 0);
  if (reserve) REQUIRE(::fallocate(fd.get(), 0, 0, size) == 0);
  REQUIRE(::fcntl(fd.get(), F_ADD_SEALS, seals) == 0);
  return fd;
}

}  // namespace

TEST(pins_are_seen_by_the_owner) {
  auto table = new_table();
  auto view = view_of(*table);
  // Block 0 of segment 0 is as good as any other.
  const std::uint64_t words[] = {block_word(0, 0), block_word(0, 64),
                                 block_word(65534, (1ull << 48) - 64)};
  std::vector<std::uint32_t> slots;
  for (std::uint64_t word : words) {
    CHECK(!view->holds(word));
    slots.push_back(table->acquire(word, 3));
    CHECK(view->holds(word));
  }
  std::vector<std::uint64_t> all;
  view->collect(all);
  CHECK((std::set<std::uint64_t>(all.begin(), all.end()) ==
         std::set<std::uint64_t>(std::begin(words), std::end(words))));
  table->release(slots[1]);
  CHECK(!view->holds(words[1]));
  CHECK(view->holds(words[2]));
  CHECK_EQ(table->in_use(), 2u);
}

TEST(pins_of_one_block_are_counted_by_slots) {
  auto table = new_table();
  auto view = view_of(*table);
  const std::uint64_t word = block_word(1, 4096);
  const std::uint32_t first = table->acquire(word, 1);
  const std::uint32_t second = table->acquire(word, 1);
  CHECK(first != second);
  table->release(first);
  CHECK(view->holds(word));
  table->release(second);
  CHECK(!view->holds(word));
}

TEST(pins_run_out_and_come_back) {
  auto table = new_table();
  std::vector<std::uint32_t> slots;
  for (std::uint32_t i = 0; i < PinTable::kSlots; ++i) {
    slots.push_back(table->acquire(block_word(0, i * 64ull), 1));
    REQUIRE(slots.back() != PinTable::kNone);
  }
  CHECK_EQ(std::set<std::uint32_t>(slots.begin(), slots.end()).size(), PinTable::kSlots);
  CHECK_EQ(table->acquire(1, 1), PinTable::kNone);
  table->release(slots[17]);
  CHECK_EQ(table->acquire(block_word(3, 0), 1), slots[17]);
  std::vector<std::uint64_t> all;
  view_of(*table)->collect(all);
  CHECK_EQ(all.size(), PinTable::kSlots);
}

TEST(pins_released_twice_are_released_once) {
  auto table = new_table();
  const std::uint32_t slot = table->acquire(64, 1);
  table->release(slot);
  table->release(slot);
  table->release(PinTable::kNone);
  CHECK_EQ(table->in_use(), 0u);
  const std::uint32_t first = table->acquire(64, 1);
  const std::uint32_t second = table->acquire(128, 1);
  CHECK(first != second);
}

TEST(pins_many_threads) {
  auto table = new_table();
  auto view = view_of(*table);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (std::uint64_t step = 1; step < 2000; ++step) {
        const std::uint64_t word = block_word(i, step * 64);
        const std::uint32_t slot = table->acquire(word, step);
        if (slot == PinTable::kNone || !view->holds(word)) ++wrong;
        table->release(slot);
        if (view->holds(word)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong, 0);
  CHECK_EQ(table->in_use(), 0u);
}

TEST(pins_of_a_forked_child_are_the_parents) {
  auto table = new_table();
  auto view = view_of(*table);
  const std::uint64_t word = block_word(2, 640);
  const std::uint32_t slot = table->acquire(word, 1);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    table->release(slot);
    const bool refused = table->acquire(word, 2) == PinTable::kNone && table->fd() == -1;
    table.reset();
    ::_exit(refused ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  CHECK(view->holds(word));
}

// The reader's table belongs to one process, the view to another.
TEST(pins_between_processes) {
  int to_owner[2], to_reader[2];
  REQUIRE(::pipe(to_owner) == 0 && ::pipe(to_reader) == 0);
  auto table = new_table();
  Fd handed(::fcntl(table->fd(), F_DUPFD, 0));
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto view = PinTableView::open(std::move(handed));
    if (!view.ok()) ::_exit(9);
    char step = 0;
    int wrong = 0;
    while (::read(to_owner[0], &step, 1) == 1 && step != 'q') {
      wrong += view.value()->holds(block_word(5, 4096)) != (step == 'p');
      if (::write(to_reader[1], &step, 1) != 1) ::_exit(8);
    }
    ::_exit(wrong);
  }
  const auto tell = [&](char step) {
    char answer = 0;
    REQUIRE(::write(to_owner[1], &step, 1) == 1);
    if (step != 'q') REQUIRE(::read(to_reader[0], &answer, 1) == 1);
  };
  for (int i = 0; i < 50; ++i) {
    tell('n');
    const std::uint32_t slot = table->acquire(block_word(5, 4096), 1);
    tell('p');
    table->release(slot);
  }
  tell('q');
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  for (int fd : {to_owner[0], to_owner[1], to_reader[0], to_reader[1]}) ::close(fd);
}

TEST(pins_refuse_what_a_stranger_could_pull_away) {
  CHECK_EQ(refusal(memfd(kTableSize, F_SEAL_GROW)), Code::denied);
  CHECK_EQ(refusal(memfd(kTableSize, F_SEAL_SHRINK)), Code::denied);
  CHECK_EQ(refusal(memfd(kTableSize, 0)), Code::denied);
  CHECK_EQ(refusal(memfd(kTableSize - 1, kSeals)), Code::denied);
  CHECK_EQ(refusal(memfd(kTableSize * 2, kSeals)), Code::denied);
  CHECK_EQ(refusal(memfd(0, kSeals, false)), Code::denied);
  CHECK_EQ(refusal(memfd(kTableSize, kSeals, false)), Code::denied);
  CHECK_EQ(refusal(memfd(kTableSize, kSeals)), Code::protocol);
  CHECK_EQ(refusal(Fd(::open("/dev/null", O_RDWR | O_CLOEXEC))), Code::denied);
  CHECK_EQ(refusal(Fd()), Code::system);
}
