// Two ends of a ucx connection in one process.

#include <cstring>
#include <thread>

#include "tests/check.h"
#include "tests/ucx_node.h"

using namespace pshpc;
using namespace pshpc::test;
using fabric::ucx::Options;

namespace {

struct Pair {
  explicit Pair(const Options& options, std::size_t memory = UcxNode::kDefaultMemory)
      : left(options, memory), right(options, memory) {
    REQUIRE(left.failure().empty() && right.failure().empty());
    const Bytes from_left = left.hello();
    const Bytes from_right = right.hello();
    REQUIRE(left.join(from_right).ok());
    REQUIRE(right.join(from_left).ok());
    // A forced close in the middle of UCX's own handshake aborts the peer in UCX 1.13.
    std::string answer;
    REQUIRE(left.echo("hello", &answer).ok());
  }
  UcxNode left, right;
};

bool has_pattern(ConstSpan bytes, std::uint64_t offset) {
  for (std::size_t i = 0; i < bytes.size; ++i)
    if (bytes.data[i] != pattern(offset + i)) return false;
  return true;
}

// Around every threshold: short, copied by us, one fragment of a transport, rendezvous.
const std::size_t kSizes[] = {0,    1,    84,    93,    2047,   2048,          2049,
                              8192, 8257, 65535, 65536, 262144, (1 << 20) + 1, 6 << 20};

}  // namespace

TEST(ucx_reads_bring_the_bytes_of_every_size) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    for (const std::size_t size : kSizes) {
      Bytes into(size);
      CHECK(pair.left.read(1000, into).ok());
      CHECK(has_pattern(into, 1000));
    }
  }
}

TEST(ucx_writes_are_visible_when_they_complete) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    for (const std::size_t size : kSizes) {
      const Bytes from(size, static_cast<std::uint8_t>(size + 1));
      CHECK(pair.left.write(77, from).ok());
      CHECK(pair.right.holds(77, from));
    }
  }
}

TEST(ucx_payloads_of_every_size_arrive_both_ways) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    for (const std::size_t size : kSizes) {
      Bytes into(size);
      CHECK(pair.left.fetch(4096, into).ok());
      CHECK(has_pattern(into, 4096));
    }
    for (const std::size_t size : kSizes) {
      const Bytes from(size, static_cast<std::uint8_t>(size + 1));
      CHECK(pair.left.push(8, from).ok());
      CHECK(pair.right.holds(8, from));
    }
  }
}

TEST(ucx_headers_arrive_up_to_their_limit_and_no_further) {
  for (Options options : shared_memory_and_tcp()) {
    for (const std::size_t inline_limit : {std::size_t{0}, std::size_t{64}}) {
      options.max_inline_header = inline_limit;
      Pair pair(options);
      for (const std::size_t size : {0, 1, 63, 64, 65, 1000, 4000}) {
        const std::string text(size, 'h');
        std::string answer;
        CHECK(pair.left.echo(text, &answer).ok());
        CHECK_EQ(answer, text);
      }
      std::string answer;
      const Status refused = pair.left.echo(std::string(fabric::kMaxHeader, 'h'), &answer);
      CHECK(refused.code() == Code::invalid);
      CHECK(pair.left.echo("still there", &answer).ok());
    }
  }
}

TEST(ucx_messages_without_payload_keep_their_order) {
  for (Options options : shared_memory_and_tcp()) {
    options.max_inline_header = 100;
    Pair pair(options);
    constexpr std::uint32_t kCount = 1000;
    for (std::uint32_t i = 0; i < kCount; ++i)
      pair.left.tell(i, i % 7 == 3 ? 300000 : 0, i % 5 == 2 ? 500 : 0);
    REQUIRE(pair.right.await_heard(kCount));
    std::uint32_t last = 0;
    for (const std::uint32_t number : pair.right.heard()) {
      if (number % 7 == 3) continue;
      CHECK(number == 0 || number > last);
      last = number;
    }
  }
}

TEST(ucx_messages_wait_for_a_channel_that_is_not_connected_yet) {
  for (const Options& options : shared_memory_and_tcp()) {
    UcxNode left(options), right(options);
    const Bytes from_left = left.hello();
    const Bytes from_right = right.hello();
    REQUIRE(left.join(from_right).ok());
    for (std::uint32_t i = 0; i < 10; ++i) left.tell(i, i == 4 ? 100000 : 0);
    CHECK(!right.await_heard(1, 0.05));
    REQUIRE(right.join(from_left).ok());
    CHECK(right.await_heard(10));
  }
}

TEST(ucx_messages_to_an_unknown_token_are_dropped_and_counted) {
  Options options;
  options.tls = "posix,self";
  Pair pair(options);
  Bytes hello = pair.right.hello();
  hello[0] ^= 0xff;
  UcxNode stranger(options);
  static_cast<void>(stranger.hello());
  REQUIRE(stranger.join(hello).ok());
  stranger.tell(1, 0);
  stranger.tell(2, 300000);
  const auto dropped = [&] {
    for (const auto& [key, value] : pair.right.door().facts())
      if (key == "messages dropped") return value;
    return std::string();
  };
  const Deadline deadline = Deadline::after(5 * kSecond);
  while (dropped() != "2" && !deadline.passed()) std::this_thread::yield();
  CHECK_EQ(dropped(), "2");
  std::string answer;
  CHECK(pair.left.echo("still there", &answer).ok());
}

TEST(ucx_a_refused_payload_harms_nobody) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    const Bytes from(400000, 1);
    for (int i = 0; i < 3; ++i) {
      CHECK(pair.left.push(UcxNode::kDefaultMemory - 10, from).ok());
      CHECK(pair.left.push(UcxNode::kDefaultMemory - 10, ConstSpan(from).slice(0, 100)).ok());
    }
    std::string answer;
    CHECK(pair.left.echo("still there", &answer).ok());
    CHECK(has_pattern(pair.right.memory(), 0));
  }
}

TEST(ucx_threads_share_a_door) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&pair, t] {
        UcxNode& node = t % 2 ? pair.left : pair.right;
        for (std::uint64_t i = 0; i < 40; ++i) {
          Bytes into(i % 4 == 0 ? 300000 : 500);
          CHECK((t < 2 ? node.fetch(i, into) : node.read(i, into)).ok());
          CHECK(has_pattern(into, i));
          std::string answer;
          CHECK(node.echo(std::to_string(i), &answer).ok());
          CHECK_EQ(answer, std::to_string(i));
        }
      });
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(ucx_spans_outside_of_a_region_are_refused) {
  Options options;
  options.tls = kSharedMemory;
  Pair pair(options);
  Bytes bytes(100);
  const std::uint64_t end = UcxNode::kDefaultMemory;
  CHECK(pair.left.read(end - 99, bytes).code() == Code::invalid);
  CHECK(pair.left.write(end + 1, {}).code() == Code::invalid);
  CHECK(pair.left.read(~std::uint64_t{0} - 10, bytes).code() == Code::invalid);
  CHECK(pair.left.read(end - 100, bytes).ok());
}

TEST(ucx_garbage_from_a_peer_is_refused) {
  Options options;
  options.tls = "posix,self";
  Pair pair(options);
  auto& door = pair.left.door();
  const Bytes address = door.address();
  CHECK(door.reach({}, 1, 2).status().code() == Code::protocol);
  CHECK(door.reach(ConstSpan(address).slice(0, address.size() - 1), 1, 2).status().code() ==
        Code::protocol);
  CHECK(pair.left.channel().import({}).status().code() == Code::protocol);
  CHECK(pair.left.channel().import(Bytes(19, 0xff)).status().code() == Code::protocol);
}

TEST(ucx_another_version_is_refused) {
  Options options;
  options.tls = "posix,self";
  UcxNode node(options);
  Bytes address = node.door().address();
  const std::size_t minor = 4 + 8 + 8 + 2;
  address[minor] ^= 1;
  const Status refused = node.door().reach(address, 1, 2).status();
  CHECK_EQ(refused.code(), Code::unavailable);
  CHECK(refused.message().find("UCX_HOME") != std::string::npos);
}

TEST(ucx_a_wait_ends_by_its_deadline_and_when_it_is_given_up) {
  Options options;
  options.tls = "posix,self";
  UcxNode node(options);
  const fabric::Operation never;
  const Nanoseconds started = now();
  CHECK(node.door().wait(never, Deadline::after(30 * kMillisecond), nullptr).code() ==
        Code::timed_out);
  CHECK(now() - started >= 30 * kMillisecond);
  int asked = 0;
  const auto enough = [&asked] {
    ++asked;
    return asked == 5;
  };
  CHECK(node.door().wait(never, Deadline::after(60 * kSecond), enough).code() == Code::peer_lost);
  CHECK_EQ(asked, 5);
}

TEST(ucx_a_closed_channel_refuses_and_ends_what_is_in_flight) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    Bytes into(4 << 20);
    std::thread closer([&pair] { pair.left.channel().close(); });
    // Either it was quicker than the close, or it ends with it.
    const Status raced = pair.left.read(0, into, 5);
    CHECK(raced.ok() || raced.code() == Code::peer_lost);
    closer.join();
    CHECK(!pair.left.channel().alive());
    CHECK(pair.left.read(0, into).code() == Code::peer_lost);
    std::string answer;
    CHECK(pair.left.echo("x", &answer).code() == Code::peer_lost);
    CHECK(pair.left.channel().import(into).status().code() == Code::peer_lost);
    pair.left.channel().close();
  }
}

TEST(ucx_sends_of_exposed_memory_end_with_their_channel) {
  for (const Options& options : shared_memory_and_tcp())
    for (const bool sender_closes : {true, false}) {
      Pair pair(options);
      std::vector<std::unique_ptr<fabric::Operation>> sends;
      for (int i = 0; i < 20; ++i) {
        sends.push_back(std::make_unique<fabric::Operation>());
        Bytes header(25);
        header[0] = 3;
        pair.left.channel().send({header, ConstSpan(pair.left.memory().slice(0, 1 << 20))},
                                 sends.back().get());
      }
      (sender_closes ? pair.left : pair.right).channel().close();
      // The other side is told by UCX, or by the wire of the hello as here.
      (sender_closes ? pair.right : pair.left).channel().close();
      for (const auto& send : sends)
        CHECK(pair.left.door().wait(*send, Deadline::after(10 * kSecond), nullptr).ok());
      // Memory that a receiver gave is given back.
      CHECK(pair.right.await_landed());
    }
}

TEST(ucx_doors_stop_with_transfers_in_flight) {
  for (const Options& options : shared_memory_and_tcp()) {
    Pair pair(options);
    for (std::uint32_t i = 0; i < 50; ++i) pair.left.tell(i, 1 << 20);
    pair.right.door().stop();
    pair.left.door().stop();
    pair.left.door().stop();
    CHECK(!pair.left.channel().alive());
  }
}

TEST(ucx_completions_that_post_do_not_pile_up) {
  // Each send completes at once and posts the next: the stack must not grow with their number.
  struct Chain : fabric::Operation {
    Chain(fabric::Channel& to, int more) : channel(to), left(more) {}
    void on_complete() override {
      if (left == 0) return;
      auto next = std::make_unique<Chain>(channel, left - 1);
      Chain* raw = next.get();
      abandon(std::move(next));
      channel.send({Bytes(25, 3), {}}, raw);
    }
    fabric::Channel& channel;
    int left;
  };
  Options options;
  options.tls = "posix,self";
  Pair pair(options);
  auto first = std::make_unique<Chain>(pair.left.channel(), 20000);
  Chain* raw = first.get();
  fabric::Operation::abandon(std::move(first));
  // It lives until it completes. NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDelete)
  pair.left.channel().send({Bytes(25, 3), {}}, raw);
  CHECK(pair.right.await_heard(20001));
}
