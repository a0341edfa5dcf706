// Calls between two instances in this process, over a door that does as it is told.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "rpc/diagnostics.h"
#include "rpc/probe.h"
#include "tests/eventually.h"
#include "tests/fake_door.h"
#include "tests/objects_instance.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::rpc;
using namespace pshpc::test;

namespace {

constexpr Nanoseconds kShort = 30 * kMillisecond;

// Answers at once, or keeps the responder for the test to use.
class Keeper final : public Handler {
 public:
  explicit Keeper(bool defer) : defer_(defer) {}
  void handle(Request& request) override {
    ++calls;
    last_provider = request.provider;
    last_body_size = request.body.size;
    last_payload_size = request.payload.span.size;
    if (!defer_) return request.responder.reply({}, request.body);
    std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_back(request.defer());
  }
  std::shared_ptr<Responder> take() {
    std::shared_ptr<Responder> taken;
    CHECK(eventually([&] {
      std::lock_guard<std::mutex> lock(mutex_);
      if (kept_.empty()) return false;
      taken = std::move(kept_.back());
      kept_.pop_back();
      return true;
    }));
    return taken;
  }

  std::atomic<int> calls{0};
  std::atomic<std::uint16_t> last_provider{0};
  std::atomic<std::size_t> last_body_size{0}, last_payload_size{0};

 private:
  const bool defer_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Responder>> kept_;
};

struct Pair {
  explicit Pair(objects::InstanceOptions server_options = small_options(),
                objects::InstanceOptions client_options = small_options())
      : there(FakeDoor::create(false)),
        here(FakeDoor::create(false)),
        server(open_with(std::move(server_options))),
        client(open_with(std::move(client_options))) {
    REQUIRE(server->open_door(there).ok());
    REQUIRE(client->open_door(here).ok());
  }

  std::shared_ptr<Keeper> serve(const std::string& name, bool defer = false,
                                std::uint16_t provider = 0) {
    auto handler = std::make_shared<Keeper>(defer);
    const Status added = server->messenger()->add_handler(name, method_id(name), provider, handler);
    CHECK(added.ok());
    return handler;
  }
  std::shared_ptr<objects::Link> link() {
    auto opened = client->reader().live_link(server->owner()->self(), in_time());
    REQUIRE(opened.ok());
    return std::move(opened).value();
  }
  std::unique_ptr<Call> start(const std::string& name, ConstSpan body, ConstSpan payload = {},
                              std::uint16_t provider = 0, Deadline deadline = in_time(),
                              bool watched = false) {
    auto call = std::make_unique<Call>(Call::Payload::pooled);
    const auto channel = link()->channel("fake");
    REQUIRE(channel != nullptr);
    client->messenger()->start(channel, {method_id(name), provider}, body, payload, deadline,
                               watched, call.get());
    return call;
  }
  Status finish(const std::unique_ptr<Call>& call, Deadline deadline = in_time()) {
    return link()->wait(*here, *call, deadline);
  }

  std::shared_ptr<FakeDoor> there, here;
  std::unique_ptr<objects::Instance> server, client;
};

bool same(ConstSpan a, ConstSpan b) {
  return a.size == b.size && (a.empty() || std::memcmp(a.data, b.data, a.size) == 0);
}

}  // namespace

TEST(rpc_echo_of_all_sizes) {
  Pair pair;
  const std::size_t bodies[] = {0, 1, 1000, 1001, 5000, 20'000, 300'000};
  const std::size_t payloads[] = {0, 1, 64, 70'000, 2 << 20};
  for (const std::size_t body_size : bodies) {
    for (const std::size_t payload_size : payloads) {
      const Bytes body = patterned(body_size, 1), payload = patterned(payload_size, 2);
      const auto call = pair.start(kEcho, body, payload);
      CHECK(pair.finish(call).ok());
      const Delivery landed = call->take_payload();
      CHECK(same(call->reply(), body));
      CHECK(same(landed.span, payload));
    }
  }
  CHECK_EQ(pair.client->messenger()->calls_in_flight(), 0u);
}

TEST(rpc_the_socket_answers_where_no_door_does) {
  auto server = open_instance(), client = open_instance();
  auto link = client->reader().live_link(server->owner()->self(), in_time());
  REQUIRE(link.ok());
  const Bytes body = patterned(100'000);
  auto answer = link.value()->wire()->ask({method_id(kEcho), 0}, body, in_time());
  REQUIRE(answer.ok());
  CHECK(answer->body == body);
  const auto names = link.value()->wire()->ask({method_id(kNames), 0}, {}, in_time());
  REQUIRE(names.ok());
  WireReader in(names->body);
  CHECK(in.get<std::uint32_t>() > 3u);
  CHECK_EQ(link.value()->wire()->ask({method_id("nothing"), 0}, {}, in_time()).status().code(),
           Code::no_method);
}

TEST(rpc_unknown_names_and_providers_are_told_apart) {
  Pair pair;
  const auto three = pair.serve("sum", false, 3), four = pair.serve("sum", false, 4);
  CHECK(pair.finish(pair.start("sum", Bytes{1}, {}, 4)).ok());
  CHECK_EQ(four->calls, 1);
  CHECK_EQ(three->calls, 0);
  CHECK_EQ(pair.finish(pair.start("sum", {}, {}, 5)).code(), Code::no_provider);
  CHECK_EQ(pair.finish(pair.start("difference", {}, {}, 3)).code(), Code::no_method);
  // A payload for nobody ends as an error, too.
  CHECK_EQ(pair.finish(pair.start("difference", {}, patterned(100'000), 3)).code(),
           Code::no_method);
  CHECK_EQ(pair.server->messenger()
               ->add_handler("sum", method_id("sum"), 3, std::make_shared<Keeper>(false))
               .code(),
           Code::invalid);
  CHECK(pair.server->messenger()->remove_handler({method_id("sum"), 3}).ok());
  CHECK_EQ(pair.finish(pair.start("sum", {}, {}, 3)).code(), Code::no_provider);
  CHECK(pair.finish(pair.start("sum", {}, {}, 4)).ok());
  CHECK(pair.server->messenger()->remove_handler({method_id("sum"), 4}).ok());
  CHECK_EQ(pair.finish(pair.start("sum", {}, {}, 4)).code(), Code::no_method);
}

TEST(rpc_what_a_handler_raises_arrives_whole) {
  Pair pair;
  const auto handler = pair.serve("fail", true);
  const auto first = pair.start("fail", {}), second = pair.start("fail", {});
  const Bytes raised = patterned(50'000);
  handler->take()->reply({Code::raised, ""}, raised, {}, {});
  handler->take()->reply({Code::failed, "out of cheese"});
  const Status one = pair.finish(first), two = pair.finish(second);
  const Call& with_body = one.code() == Code::raised ? *first : *second;
  const Status& failed = one.code() == Code::raised ? two : one;
  CHECK(same(with_body.reply(), raised));
  CHECK_EQ(failed.code(), Code::failed);
  CHECK_EQ(failed.message(), std::string("out of cheese"));
}

TEST(rpc_answers_may_come_late_and_in_any_order) {
  Pair pair;
  const auto handler = pair.serve("later", true);
  std::vector<std::unique_ptr<Call>> calls;
  for (std::uint8_t i = 0; i < 100; ++i) calls.push_back(pair.start("later", Bytes{i}));
  CHECK(eventually([&] { return handler->calls == 100; }));
  CHECK_EQ(pair.client->messenger()->calls_in_flight(), 100u);
  std::thread answering([&] {
    for (int i = 0; i < 100; ++i) handler->take()->reply({}, Bytes{9});
  });
  for (const auto& call : calls) CHECK(pair.finish(call).ok());
  answering.join();
  CHECK_EQ(pair.client->messenger()->calls_in_flight(), 0u);
}

TEST(rpc_a_cancelled_call_ends_at_once_and_its_handler_learns_of_it) {
  Pair pair;
  const auto handler = pair.serve("slow", true);
  const auto call = pair.start("slow", {});
  const auto responder = handler->take();
  CHECK(!responder->cancelled());
  CHECK(pair.client->messenger()->cancel(*call));
  CHECK(call->done());
  CHECK_EQ(call->status().code(), Code::cancelled);
  CHECK(!pair.client->messenger()->cancel(*call));
  CHECK(eventually([&] { return responder->cancelled(); }));
  responder->reply({}, Bytes{1});
  // Its place may have another call by now, which that answer must not reach.
  const auto next = pair.start("slow", {});
  handler->take()->reply({}, Bytes{2});
  CHECK(pair.finish(next).ok());
  CHECK((next->reply() == Bytes{2}));
}

TEST(rpc_watched_calls_end_at_their_deadline) {
  Pair pair;
  const auto handler = pair.serve("slow", true);
  const auto watched = pair.start("slow", {}, {}, 0, Deadline::after(kShort), true);
  const auto other = pair.start("slow", {});
  CHECK(eventually([&] { return watched->done(); }));
  CHECK_EQ(watched->status().code(), Code::timed_out);
  CHECK(!other->done());
  handler->take()->reply({});
  handler->take()->reply({});
  CHECK(pair.finish(other).ok());
}

TEST(rpc_one_way_requests_are_handled_and_never_answered) {
  Pair pair;
  const auto handler = pair.serve("tell", true);
  const auto channel = pair.link()->channel("fake");
  CHECK(pair.client->messenger()
            ->notify(channel, {method_id("tell"), 0}, Bytes{7}, {}, in_time())
            .ok());
  const auto responder = handler->take();
  const int sent = pair.there->messages;
  responder->reply({}, Bytes{1});
  responder->reply({Code::failed, "nobody hears this"});
  CHECK_EQ(pair.there->messages, sent);
}

TEST(rpc_calls_end_with_their_channel) {
  Pair pair;
  const auto handler = pair.serve("slow", true);
  const auto call = pair.start("slow", {});
  const auto responder = handler->take();
  pair.here->lose_next = true;
  const auto losing = pair.start("slow", {});
  CHECK_EQ(pair.finish(losing).code(), Code::peer_lost);
  CHECK_EQ(pair.finish(call).code(), Code::peer_lost);
  responder->reply({}, Bytes{1});
}

TEST(rpc_calls_end_when_their_own_side_closes) {
  Pair pair;
  const auto handler = pair.serve("slow", true);
  const auto call = pair.start("slow", {});
  const auto responder = handler->take();
  pair.client->close();
  CHECK(call->done());
  CHECK_EQ(call->status().code(), Code::closed);
  CHECK(eventually([&] { return responder->cancelled(); }));
  pair.server->close();
  responder->reply({}, Bytes{1});  // to nobody
}

TEST(rpc_a_server_that_refuses_says_so) {
  Pair pair;
  const auto handler = pair.serve("sum");
  CHECK(pair.finish(pair.start("sum", {})).ok());
  pair.server->messenger()->refuse_requests();
  CHECK_EQ(pair.finish(pair.start("sum", {})).code(), Code::closed);
  CHECK_EQ(handler->calls, 1);
}

TEST(rpc_needs_the_secret_where_users_are_not_trusted) {
  objects::InstanceOptions careful = small_options();
  careful.secret = random_tag();
  careful.trust_user = false;
  objects::InstanceOptions knowing = small_options();
  knowing.secret = careful.secret;
  objects::InstanceOptions guessing = small_options();
  guessing.secret = random_tag();
  {
    Pair pair(careful, knowing);
    CHECK(pair.finish(pair.start(kPing, {})).ok());
  }
  for (const auto& options : {guessing, small_options()}) {
    Pair pair(careful, options);
    const auto link = pair.client->reader().live_link(pair.server->owner()->self(), in_time());
    CHECK_EQ(link.status().code(), Code::denied);
  }
  // The key of an object opens the way to that object, and to no procedure.
  Pair pair(careful, small_options());
  const Bytes bytes = patterned(100);
  const objects::Key key = store(*pair.server, bytes);
  const auto link = pair.client->reader().link(key.owner, &key, in_time());
  REQUIRE(link.ok());
  CHECK(link.value()->ask(objects::Kind::exists, Bytes(4), in_time()).ok());
  const auto pinged = link.value()->wire()->ask({method_id(kPing), 0}, {}, in_time());
  CHECK_EQ(pinged.status().code(), Code::denied);
}

TEST(rpc_probe_measures_each_call) {
  Pair pair;
  const auto link = pair.link();
  auto one = probe(*link->wire(), {50, 1, 0}, in_time());
  REQUIRE(one.ok());
  CHECK_EQ(one->latencies.size(), 50u);
  CHECK(one->total > 0);
  auto many = probe(*link->wire(), {200, 16, 3000}, in_time());
  REQUIRE(many.ok());
  CHECK(many->latencies.empty());
}

// Whatever arrives: nothing crashes, nothing is answered twice, and calls go on.
TEST(rpc_garbage_harms_nobody) {
  Pair pair;
  const auto handler = pair.serve("sum", true);
  const auto link = pair.link();
  const auto channel = link->channel("fake");
  Random random(31);
  const auto call = pair.start("sum", {});
  const auto responder = handler->take();
  for (int i = 0; i < 2000; ++i) {
    Bytes header = random.bytes(random.below(60));
    if (!header.empty() && random.below(4) != 0)
      header[0] = static_cast<std::uint8_t>(1 + random.below(3));
    if (header.size() > 1) header[1] &= kOneWay | kBodyInPayload;
    const Bytes payload = random.bytes(random.below(200));
    channel->send({header, ConstSpan(payload)}, nullptr);
  }
  responder->reply({}, Bytes{5});
  CHECK(pair.finish(call).ok());
  CHECK((call->reply() == Bytes{5}));
  CHECK(pair.finish(pair.start(kPing, {})).ok());
}

TEST(rpc_handlers_come_and_go_while_calls_are_made) {
  Pair pair;
  std::atomic<bool> stop{false};
  std::thread changing([&] {
    while (!stop) {
      const auto handler = std::make_shared<Keeper>(false);
      CHECK(pair.server->messenger()->add_handler("sum", method_id("sum"), 1, handler).ok());
      CHECK(pair.server->messenger()->remove_handler({method_id("sum"), 1}).ok());
    }
  });
  for (int i = 0; i < 300; ++i) {
    const Code code = pair.finish(pair.start("sum", Bytes{1}, {}, 1)).code();
    CHECK(code == Code::ok || code == Code::no_method);
  }
  stop = true;
  changing.join();
}
