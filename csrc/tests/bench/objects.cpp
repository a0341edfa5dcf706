// What the object layer costs, without Python. Build and run from the project's root:
//   g++ -std=c++17 -O2 -pthread -Icsrc csrc/tests/bench/objects.cpp csrc/objects/*.cpp
//       csrc/memory/*.cpp csrc/fabric/*.cpp csrc/fabric/socket/*.cpp csrc/fabric/shm/*.cpp
//       csrc/base/*.cpp -o build/bench_objects && build/bench_objects
// The owner is another process, but for what is measured within one.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "objects/instance.h"

using namespace pshpc;
using namespace pshpc::objects;

namespace {

template <class T>
T must(Expected<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().message().c_str());
    std::exit(1);
  }
  return std::move(result).value();
}

// Nanoseconds a call: the median of the rounds, each of many calls.
void measure(const std::string& what, int calls, const std::function<void()>& call) {
  constexpr int kRounds = 21;
  std::vector<double> rounds;
  for (int i = 0; i < calls; ++i) call();
  for (int round = 0; round < kRounds; ++round) {
    const Nanoseconds begin = now();
    for (int i = 0; i < calls; ++i) call();
    rounds.push_back(static_cast<double>(now() - begin) / calls);
  }
  std::sort(rounds.begin(), rounds.end());
  std::printf("%-58s %9.0f ns   best %9.0f\n", what.c_str(), rounds[kRounds / 2], rounds.front());
}

std::unique_ptr<Instance> open(std::vector<std::string> doors) {
  InstanceOptions options;
  options.store = "bench";
  options.owner.arena.capacity = 256 << 20;
  options.pool.capacity = 64 << 20;
  options.doors = std::move(doors);
  return must(Instance::create(std::move(options)));
}

Deadline soon() { return Deadline::after(10 * kSecond); }

Key put(Instance& instance, std::size_t size) {
  const Bytes bytes(size, 1);
  return must(instance.owner()->put(size, {{0, bytes}}, {}));
}

void put_and_evict(Instance& here, std::size_t size, int calls, const std::string& what) {
  const Bytes bytes(size, 1);
  const std::vector<Part> parts = {{0, bytes}};
  measure(what, calls, [&] {
    const Key key = must(here.owner()->put(size, parts, {}));
    static_cast<void>(here.owner()->evict(key.object_id, key.capability));
  });
}

void within_one_process() {
  auto here = open({"self"});
  put_and_evict(*here, 100, 5000, "put of 100 B and evict");
  std::vector<Key> many;
  for (int i = 0; i < 100'000; ++i) many.push_back(put(*here, 100));
  put_and_evict(*here, 100, 5000, "put of 100 B and evict, beside 100 000 objects");
  const Key key = put(*here, 1 << 20);
  measure("get of 1 MiB, self", 5000, [&] { must(here->reader().get(key, {}, soon())); });
  auto reader = open({"shm"});
  must(reader->reader().get(key, {}, soon()));
  put_and_evict(*here, 100, 5000, "put of 100 B and evict, with a reader on the node");
  std::vector<Lease> views;
  for (int i = 0; i < 4000; ++i) views.push_back(must(reader->reader().get(many[i], {}, soon())));
  put_and_evict(*here, 1 << 20, 200, "put of 1 MiB and evict, with 4000 pins to look through");
  views.clear();
  for (int i = 0; i < 1000; ++i)
    static_cast<void>(here->owner()->evict(many[i].object_id, many[i].capability));
}

void between_processes() {
  int ends[2];
  if (::pipe(ends) != 0) std::exit(1);
  const pid_t child = ::fork();
  if (child == 0) {
    auto owner = open({});
    for (const std::size_t size : {std::size_t{100}, std::size_t{1} << 20, std::size_t{64} << 20}) {
      Bytes packed = put(*owner, size).encode();
      packed.resize(200);
      if (::write(ends[1], packed.data(), packed.size()) != 200) ::_exit(1);
    }
    ::pause();
  }
  std::vector<Key> keys;
  Bytes packed(200);
  for (int i = 0; i < 3 && ::read(ends[0], packed.data(), 200) == 200; ++i) {
    std::size_t size = packed.size();
    while (!Key::parse(ConstSpan(packed).slice(0, size)).ok() && size > 0) --size;
    keys.push_back(must(Key::parse(ConstSpan(packed).slice(0, size))));
  }
  const char* sizes[] = {"100 B", "1 MiB", "64 MiB"};
  {
    auto reader = open({"shm"});
    for (std::size_t i = 0; i < keys.size(); ++i)
      measure(std::string("get of ") + sizes[i] + ", shm", 5000,
              [&] { must(reader->reader().get(keys[i], {}, soon())); });
    measure("exists of one", 200,
            [&] { static_cast<void>(reader->reader().exists({keys[0]}, soon())); });
    const std::vector<Key> thousand(1000, keys[0]);
    measure("exists of a thousand", 20,
            [&] { static_cast<void>(reader->reader().exists(thousand, soon())); });
    const Bytes bytes(100, 1);
    const OwnerAddress owner = keys[0].owner;
    measure("put of 100 B elsewhere and evict", 100, [&] {
      const Key key = must(reader->reader().put_to(owner, 100, {{0, bytes}}, {}, soon()));
      static_cast<void>(reader->reader().evict({key}, false, soon()));
    });
  }
  {
    auto reader = open({"socket"});
    measure("get of 100 B, socket", 200, [&] { must(reader->reader().get(keys[0], {}, soon())); });
    measure("get of 1 MiB, socket", 20, [&] { must(reader->reader().get(keys[1], {}, soon())); });
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

}  // namespace

int main() {
  ::setenv("PROXYSTORE_HPC_LOG", "off", 1);
  between_processes();
  within_one_process();
}
