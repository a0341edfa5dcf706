// What memory/ costs, beside memcpy in the same run. Build and run from the project's root:
//   g++ -std=c++17 -O2 -pthread -Icsrc csrc/tests/bench/memory.cpp csrc/memory/*.cpp
//       csrc/base/*.cpp -o build/bench_memory && build/bench_memory [largest MiB, default 1024]

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mapping.h"
#include "memory/arena.h"
#include "memory/pins.h"
#include "memory/pool.h"

using namespace pshpc;
using namespace pshpc::memory;

namespace {

constexpr std::uint64_t kKiB = 1 << 10;
constexpr std::uint64_t kMiB = 1 << 20;

struct Variant {
  std::string name;
  std::function<void()> before;  // not timed
  std::function<void()> run;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The variants take turns, so that a busy moment of the machine hits all of them. The first one is
// what the others are compared with.
void compare(const std::string& title, std::uint64_t size, int rounds,
             const std::vector<Variant>& variants) {
  std::vector<std::vector<double>> seconds(variants.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < variants.size(); ++i) {
      if (variants[i].before) variants[i].before();
      const Nanoseconds start = now();
      variants[i].run();
      seconds[i].push_back(static_cast<double>(now() - start) * 1e-9);
    }
  }
  std::printf("%s\n", title.c_str());
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const double took = median(seconds[i]);
    std::printf("  %-52s %8.2f GB/s  %5.2f\n", variants[i].name.c_str(),
                static_cast<double>(size) * 1e-9 / took, median(seconds[0]) / took);
  }
}

void latency(const std::string& name, int count, const std::function<void()>& run) {
  std::vector<double> batches;
  for (int batch = 0; batch < 20; ++batch) {
    const Nanoseconds start = now();
    for (int i = 0; i < count; ++i) run();
    batches.push_back(static_cast<double>(now() - start) / count);
  }
  std::printf("  %-52s %8.0f ns\n", name.c_str(), median(batches));
}

std::string label(std::uint64_t size) {
  return size < kMiB ? std::to_string(size / kKiB) + " KiB" : std::to_string(size / kMiB) + " MiB";
}

Mapping warm_memory(std::uint64_t size) {
  Mapping memory = Mapping::anonymous(size).value();
  ::madvise(memory.data(), size, MADV_HUGEPAGE);
  std::memset(memory.data(), 1, size);
  return memory;
}

void check(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void put_into_warm(std::uint64_t size, int rounds) {
  const Mapping source = warm_memory(size), target = warm_memory(size);
  ArenaOptions options;
  options.capacity = size + 4 * kMiB;
  Arena arena(options);
  check(arena.warm(options.capacity));
  const Block other = arena.allocate(size).value();
  std::memset(other.data, 1, size);
  arena.release(other);
  Block block;
  compare(
      "put of " + label(size) + " into a warm arena", size, rounds,
      {{"memcpy into warm memory", {}, [&] { std::memcpy(target.data(), source.data(), size); }},
       {"allocate, fill, release",
        {},
        [&] {
          block = arena.allocate(size).value();
          check(arena.fill(block, 0, {source.data(), size}));
          arena.release(block);
        }},
       {"memcpy into the same block", {}, [&] { std::memcpy(block.data, source.data(), size); }}});
}

// Ways to get bytes into reserved pages that nobody touched.
void put_into_fresh(std::uint64_t size, int rounds) {
  const Mapping source = warm_memory(size), target = warm_memory(size);
  std::unique_ptr<Segment> segment;
  const auto renew = [&] {
    Segment::Options options;
    options.name = "pshpc-bench";
    options.size = size;
    options.reservation = Segment::Reservation::by_file;
    options.limits = [] { return read_memory_limits(); };
    segment.reset();
    segment = Segment::create(options).value();
  };
  const ConstSpan bytes(source.data(), size);
  compare(
      "first put of " + label(size) + " into reserved pages", size, rounds,
      {{"memcpy into warm memory", {}, [&] { std::memcpy(target.data(), source.data(), size); }},
       {"reserving them (not part of what follows)", {}, renew},
       {"memcpy through the mapping", renew,
        [&] { std::memcpy(segment->data(), source.data(), size); }},
       {"MADV_POPULATE_WRITE, memcpy", renew,
        [&] {
          check(populate({segment->data(), size}));
          std::memcpy(segment->data(), source.data(), size);
        }},
       {"fill (through the file)", renew, [&] { check(segment->fill(0, bytes)); }},
       {"second fill (faults the mapping in)", {}, [&] { check(segment->fill(0, bytes)); }},
       {"third fill (warm)", {}, [&] { check(segment->fill(0, bytes)); }}});
}

void small_costs() {
  std::printf("bookkeeping\n");
  ArenaOptions options;
  options.capacity = 256 * kMiB;
  options.first_segment = 256 * kMiB;
  Arena arena(options);
  check(arena.warm(256 * kMiB));
  for (std::uint64_t size : {std::uint64_t{256}, 64 * kKiB, 64 * kMiB}) {
    latency("allocate and release " + std::to_string(size) + " bytes", 2000,
            [&] { arena.release(arena.allocate(size).value()); });
  }
  for (int i = 0; i < 20'000; ++i) {
    const Block hole = arena.allocate(256 + static_cast<std::uint64_t>(i) % 40 * 64).value();
    static_cast<void>(arena.allocate(256).value());
    arena.release(hole);
  }
  latency("the same, 256 bytes among 20 000 blocks and holes", 2000,
          [&] { arena.release(arena.allocate(256).value()); });
  latency("allocate, fill and release 1 KiB", 2000, [&] {
    static const Bytes bytes(1024, 1);
    const Block block = arena.allocate(1024).value();
    check(arena.fill(block, 0, bytes));
    arena.release(block);
  });
  const auto pool = Pool::create(options);
  latency("pool: take and return 64 KiB", 2000, [&] { static_cast<void>(pool->take(64 * kKiB)); });
  latency("pool: take and return 64 MiB", 500, [&] { static_cast<void>(pool->take(64 * kMiB)); });

  const auto table = std::move(PinTable::create()).value();
  const auto view =
      std::move(PinTableView::open(Fd(::fcntl(table->fd(), F_DUPFD_CLOEXEC, 0)))).value();
  latency("pin and release", 2000, [&] { table->release(table->acquire(64, 1)); });
  for (int pins : {10, 1000}) {
    while (table->in_use() < static_cast<std::uint32_t>(pins)) {
      static_cast<void>(table->acquire(block_word(1, table->in_use() * 64ull), 1));
    }
    latency("owner: look for a block among " + std::to_string(pins) + " pins", 500,
            [&] { static_cast<void>(view->holds(64)); });
  }
  latency("reading the limits of machine and cgroups", 20,
          [] { static_cast<void>(read_memory_limits()); });
}

}  // namespace

int main(int count, char** arguments) {
  const std::uint64_t largest =
      (count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1024) * kMiB;
  small_costs();
  const std::vector<std::pair<std::uint64_t, int>> sizes = {
      {64 * kKiB, 2001}, {kMiB, 501}, {64 * kMiB, 21}, {1024 * kMiB, 7}};
  for (const auto& [size, rounds] : sizes) {
    if (size <= largest) put_into_warm(size, rounds);
  }
  for (const auto& [size, rounds] : sizes) {
    if (size >= kMiB && size <= largest / 4) put_into_fresh(size, rounds > 100 ? 51 : 9);
  }
  return 0;
}
