// Calls over real ucx doors, between two instances in this process.

#include <atomic>
#include <thread>
#include <vector>

#include "rpc/diagnostics.h"
#include "rpc/probe.h"
#include "tests/eventually.h"
#include "tests/objects_instance.h"
#include "tests/ucx_node.h"

using namespace pshpc;
using namespace pshpc::rpc;
using namespace pshpc::test;

namespace {

struct Pair {
  explicit Pair(const fabric::ucx::Options& options)
      : server(open_instance()), client(open_instance()) {
    for (auto* instance : {server.get(), client.get()}) {
      auto door = fabric::ucx::UcxDoor::create(options);
      REQUIRE(door.ok());
      REQUIRE(instance->open_door(std::move(door).value()).ok());
    }
  }
  std::shared_ptr<objects::Link> link() {
    auto opened = client->reader().live_link(server->owner()->self(), in_time());
    REQUIRE(opened.ok());
    return std::move(opened).value();
  }

  std::unique_ptr<objects::Instance> server, client;
};

std::unique_ptr<Call> echo(objects::Link& link, ConstSpan body, ConstSpan payload,
                           std::shared_ptr<const void> keep = nullptr) {
  auto call = std::make_unique<Call>(Call::Payload::pooled);
  const bool watched = keep != nullptr;
  link.messenger().start(link.wire()->best_channel(nullptr), {method_id(kEcho), 0}, body,
                         {payload, std::move(keep)}, in_time(), watched, call.get());
  return call;
}

Status finish(objects::Link& link, objects::Instance& instance, const Call& call) {
  return link.wait(*instance.exposure().doors().front(), call, in_time());
}

bool same(ConstSpan a, ConstSpan b) {
  return a.size == b.size && (a.empty() || std::memcmp(a.data, b.data, a.size) == 0);
}

}  // namespace

TEST(ucx_rpc_echo_of_all_sizes) {
  for (const auto& options : shared_memory_and_tcp()) {
    Pair pair(options);
    const auto link = pair.link();
    for (const std::size_t body_size : {0, 40, 900, 9000, 100'000}) {
      for (const std::size_t payload_size : {0, 10, 3000, 100'000, 3 << 20}) {
        const Bytes body = patterned(body_size, 1), payload = patterned(payload_size, 2);
        const auto call = echo(*link, body, payload);
        CHECK(finish(*link, *pair.client, *call).ok());
        const Delivery landed = call->take_payload();
        CHECK(same(call->reply(), body));
        CHECK(same(landed.span, payload));
      }
    }
  }
}

TEST(ucx_rpc_thousands_of_calls_are_in_flight) {
  for (const auto& options : shared_memory_and_tcp()) {
    Pair pair(options);
    const auto link = pair.link();
    std::vector<std::unique_ptr<Call>> calls;
    for (std::uint8_t i = 0; calls.size() < 3000; ++i)
      calls.push_back(echo(*link, Bytes(1 + i % 7, i), {}));
    std::uint8_t i = 0;
    for (const auto& call : calls) {
      CHECK(finish(*link, *pair.client, *call).ok());
      CHECK(call->reply() == Bytes(1 + i % 7, i));
      ++i;
    }
    CHECK_EQ(pair.client->messenger()->calls_in_flight(), 0u);
  }
}

TEST(ucx_rpc_threads_call_and_cancel_at_once) {
  for (const auto& options : shared_memory_and_tcp()) {
    Pair pair(options);
    const auto link = pair.link();
    std::vector<std::thread> threads;
    for (std::uint8_t seed = 0; seed < 4; ++seed) {
      threads.emplace_back([&, seed] {
        for (int i = 0; i < 50; ++i) {
          const Bytes body(20, seed);
          // Held by the message: it is sent, or not, long after a call is cancelled.
          const auto kept =
              std::make_shared<const Bytes>(patterned(i % 5 == 0 ? 200'000 : 0, seed));
          const ConstSpan payload(*kept);
          auto call = echo(*link, body, payload, kept);
          if (i % 3 == 0) {
            pair.client->messenger()->cancel(*call);
            CHECK(eventually([&] { return call->done(); }));
            CHECK(finish(*link, *pair.client, *echo(*link, {}, {})).ok());
            continue;
          }
          CHECK(finish(*link, *pair.client, *call).ok());
          CHECK(same(call->take_payload().span, payload));
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK_EQ(pair.client->messenger()->calls_in_flight(), 0u);
  }
}

TEST(ucx_rpc_both_sides_may_call_each_other) {
  for (const auto& options : shared_memory_and_tcp()) {
    Pair pair(options);
    const auto there = pair.link();
    auto back = pair.server->reader().live_link(pair.client->owner()->self(), in_time());
    REQUIRE(back.ok());
    std::thread other([&] { CHECK(probe(*back.value()->wire(), {300, 4, 100}, in_time()).ok()); });
    CHECK(probe(*there->wire(), {300, 4, 100}, in_time()).ok());
    other.join();
  }
}

TEST(ucx_rpc_ends_when_the_server_closes) {
  for (const auto& options : shared_memory_and_tcp()) {
    Pair pair(options);
    const auto link = pair.link();
    CHECK(probe(*link->wire(), {10, 1, 0}, in_time()).ok());
    std::atomic<bool> ended{false};
    std::thread calling([&] {
      while (probe(*link->wire(), {100, 8, 64}, in_time()).ok()) continue;
      ended = true;
    });
    pair.server->close();
    CHECK(eventually([&] { return ended.load(); }));
    calling.join();
  }
}
