// Peers that die, stop, or are forked away, seen from another process.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "fabric/ucx/inspect.h"
#include "tests/check.h"
#include "tests/ucx_node.h"

using namespace pshpc;
using namespace pshpc::test;
using fabric::ucx::Options;

namespace {

// The door promises a second; the rest is for a machine that is busy with other things.
constexpr double kNoticed = 5;

struct Connection {
  explicit Connection(const Options& options) : peer(options), node(options) {
    REQUIRE(peer.running());
    REQUIRE(node.failure().empty());
    const Bytes hello = node.hello();
    REQUIRE(node.join(peer.hello()).ok());
    REQUIRE(peer.join(hello));
    std::string answer;
    REQUIRE(node.echo("hello", &answer).ok());
  }
  UcxPeer peer;
  UcxNode node;
};

enum class Work { echo, fetch, read, push, write };

Status run(UcxNode& node, Work work, Bytes& bytes) {
  std::string answer;
  switch (work) {
    case Work::echo: return node.echo("x", &answer, kNoticed);
    case Work::fetch: return node.fetch(0, bytes, kNoticed);
    case Work::read: return node.read(0, bytes, kNoticed);
    case Work::push: return node.push(0, bytes, kNoticed);
    case Work::write: return node.write(0, bytes, kNoticed);
  }
  return {};
}

}  // namespace

TEST(ucx_processes_exchange_bytes_both_ways) {
  for (const Options& options : shared_memory_and_tcp()) {
    Connection connection(options);
    for (const std::size_t size : {1, 5000, 70000, 300000, 4 << 20}) {
      Bytes into(size);
      CHECK(connection.node.fetch(10, into).ok());
      for (std::size_t i = 0; i < size; i += 997) CHECK_EQ(into[i], pattern(10 + i));
      CHECK(connection.node.read(20, into).ok());
      for (std::size_t i = 0; i < size; i += 997) CHECK_EQ(into[i], pattern(20 + i));
    }
    const Bytes sent(3 << 20, 42);
    CHECK(connection.node.push(0, sent).ok());
    CHECK(connection.node.write(4 << 20, sent).ok());
    Bytes back(7 << 20);
    CHECK(connection.node.fetch(0, back).ok());
    CHECK(std::memcmp(back.data(), sent.data(), sent.size()) == 0);
    CHECK(std::memcmp(back.data() + (4 << 20), sent.data(), sent.size()) == 0);
  }
}

TEST(ucx_shared_memory_and_death_notices_go_together) {
  Options options;
  options.tls = kSharedMemory;
  Connection connection(options);
  const std::string lanes = connection.node.channel().describe();
  CHECK(lanes.find("posix/memory(") != std::string::npos);
  CHECK(lanes.find("tcp") == std::string::npos);
  // Older ones have no switch to keep CMA beside peer error handling.
  if (fabric::ucx::version().at_least(1, 16) && options.tls != "posix,self") {
    CHECK(lanes.find("cma/memory(") != std::string::npos);
    CHECK(connection.node.channel().one_sided());
    CHECK(!connection.node.channel().prefers_message(1 << 20));
    CHECK(connection.node.channel().prefers_message(64 << 20));
  }
}

TEST(ucx_one_sided_transfers_need_no_running_owner) {
  Options options;
  options.tls = kSharedMemory;
  Connection connection(options);
  if (!connection.node.channel().one_sided()) return;
  Bytes into(4 << 20);
  connection.peer.stop();
  CHECK(connection.node.read(0, into).ok());
  CHECK_EQ(into[12345], pattern(12345));
  CHECK(connection.node.write(100, ConstSpan(into).slice(0, 100000)).ok());
  connection.peer.kill(SIGCONT);
  Bytes back(100000);
  CHECK(connection.node.fetch(100, back).ok());
  CHECK(std::memcmp(back.data(), into.data(), back.size()) == 0);
}

TEST(ucx_a_stopped_owner_ends_calls_at_their_deadline) {
  for (const Options& options : shared_memory_and_tcp()) {
    Connection connection(options);
    Bytes into(4 << 20);
    connection.peer.stop();
    const Nanoseconds started = now();
    CHECK(connection.node.fetch(0, into, 0.2).code() == Code::timed_out);
    CHECK(now() - started < static_cast<Nanoseconds>(kNoticed * kSecond));
    connection.peer.kill(SIGCONT);
  }
}

TEST(ucx_work_in_flight_ends_when_the_peer_is_killed) {
  for (const Options& options : shared_memory_and_tcp())
    for (const Work work : {Work::echo, Work::fetch, Work::read, Work::push, Work::write}) {
      Connection connection(options);
      const bool answered_by_hardware =
          connection.node.channel().one_sided() && (work == Work::read || work == Work::write);
      if (answered_by_hardware) continue;
      Bytes bytes(4 << 20);
      // Stopped first, so that the work is in flight for certain.
      connection.peer.stop();
      std::thread killer([&connection] {
        ::usleep(100000);
        connection.peer.kill(SIGKILL);
      });
      const Status status = run(connection.node, work, bytes);
      killer.join();
      if (!CHECK_EQ(status.code(), Code::peer_lost))
        std::fprintf(stderr, "%s, work %d: %s\n", options.tls.c_str(), static_cast<int>(work),
                     status.message().c_str());
      CHECK(connection.node.await_lost(kNoticed));
      CHECK(!connection.node.channel().alive());
      CHECK(run(connection.node, work, bytes).code() == Code::peer_lost);
    }
}

TEST(ucx_the_loss_of_an_idle_peer_is_reported) {
  for (const Options& options : shared_memory_and_tcp())
    for (const bool zombie : {true, false}) {
      Connection connection(options);
      connection.peer.kill(SIGKILL);
      if (!zombie) connection.peer.reap();
      CHECK(connection.node.await_lost(kNoticed));
      CHECK(connection.node.lost_because().code() == Code::peer_lost);
    }
}

TEST(ucx_a_forked_child_does_not_hide_its_parents_death) {
  // Over TCP the child holds the parent's sockets: that loss shows on the wire of the hello.
  for (const Options& options : shared_memory_and_tcp()) {
    if (options.tls == "tcp,self") continue;
    Connection connection(options);
    connection.peer.leave_a_child();
    CHECK(connection.node.await_lost(kNoticed));
  }
}

TEST(ucx_a_forked_child_is_told_so) {
  Options options;
  options.tls = kSharedMemory;
  Connection connection(options);
  const pid_t child = ::fork();
  if (child == 0) {
    Bytes into(100);
    fabric::Operation sent;
    connection.node.channel().send({Bytes(25), {}}, &sent);
    const bool told = connection.node.read(0, into).code() == Code::forked && sent.done() &&
                      sent.status().code() == Code::forked;
    ::_exit(told ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  std::string answer;
  CHECK(connection.node.echo("the parent goes on", &answer).ok());
}

TEST(ucx_connecting_to_a_dead_peer_is_an_error) {
  Options options;
  options.tls = kSharedMemory;
  UcxNode node(options);
  static_cast<void>(node.hello());
  UcxPeer peer(options);
  REQUIRE(peer.running());
  const Bytes hello = peer.hello();
  peer.kill(SIGKILL);
  peer.reap();
  CHECK(node.join(hello).code() == Code::peer_lost);
}
