#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "tests/check.h"
#include "tests/eventually.h"
#include "tests/random.h"
#include "tests/socket_server.h"

using namespace pshpc;
using namespace pshpc::fabric;
using namespace pshpc::test;

namespace {

void send_raw(const Fd& fd, ConstSpan bytes) {
  while (!bytes.empty()) {
    auto sent = send_some(fd.get(), bytes, {}, {});
    REQUIRE(sent.ok());
    bytes = bytes.from(sent.value());
  }
}

bool reaches_its_end(const Fd& fd) {
  return eventually([&] {
    Bytes bytes(4096);
    std::vector<Fd> fds;
    return !receive_some(fd.get(), bytes, fds).ok();
  });
}

}  // namespace

TEST(connection_calls_are_answered) {
  TestServer server;
  auto client = server.connect();
  for (const std::size_t size : {0, 1, 1000, 65536, 1 << 20, 4 << 20}) {
    const Bytes body = Random(size).bytes(size);
    auto reply = client->call(kEcho, body, soon());
    REQUIRE(reply.ok());
    CHECK(reply->body == body);
  }
  CHECK(client->alive());
}

TEST(connection_many_threads_call_at_once) {
  TestServer server;
  auto client = server.connect();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      for (int i = 0; i < 150; ++i) {
        const Bytes body = random.bytes(random.below(random.below(10) == 0 ? 300'000 : 200));
        auto reply = client->call(kEcho, body, soon());
        if (!reply.ok() || reply->body != body) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong, 0);
  CHECK_EQ(server.frames, 900);
}

// Several frames in one receive, more than one turn's worth.
TEST(connection_frames_that_come_in_one_piece) {
  TestServer server;
  const Fd fd = server.connect_raw();
  Bytes all;
  for (int i = 0; i < 5000; ++i) {
    const Bytes frame = encode_frame(kSilence, static_cast<std::uint64_t>(i), Bytes(100), 0);
    all.insert(all.end(), frame.begin(), frame.end());
  }
  send_raw(fd, all);
  CHECK(eventually([&] { return server.frames == 5000; }));
}

TEST(connection_timeouts_hit_the_impatient_only) {
  TestServer server;
  auto client = server.connect();
  std::thread patient([&] { CHECK(client->call(kLater, {}, soon()).ok()); });
  for (int i = 0; i < 5; ++i) {
    const auto reply = client->call(kSilence, {}, Deadline::after(20 * kMillisecond));
    CHECK_EQ(reply.status().code(), Code::timed_out);
  }
  CHECK(client->call(kEcho, {}, soon()).ok());
  CHECK(client->alive());
  CHECK(eventually([&] { return server.frames == 7; }));
  server.answer_held();
  patient.join();
}

TEST(connection_an_answer_that_comes_too_late_is_dropped) {
  TestServer server;
  auto client = server.connect();
  CHECK_EQ(client->call(kLater, {}, Deadline::after(kMillisecond)).status().code(),
           Code::timed_out);
  CHECK(eventually([&] { return server.frames == 1; }));
  server.answer_held();
  const Bytes body{1, 2};
  auto reply = client->call(kEcho, body, soon());
  REQUIRE(reply.ok());
  CHECK(reply->body == body);
}

TEST(connection_descriptors_travel_with_their_frame) {
  TestServer server;
  auto client = server.connect();
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const Fd in(ends[0]);
  Fd out(ends[1]);
  auto reply = client->call(kEcho, Bytes{7}, soon(), {out.get()});
  REQUIRE(reply.ok());
  REQUIRE(reply->fds.size() == 1);
  out.reset();
  CHECK(::write(reply->fds.front().get(), "x", 1) == 1);
  char got = 0;
  CHECK(::read(in.get(), &got, 1) == 1);
  CHECK_EQ(got, 'x');
  auto zero = client->call(kDescriptor, {}, soon());
  REQUIRE(zero.ok() && zero->fds.size() == 1);
}

TEST(connection_lost_in_the_middle) {
  TestServer server;
  auto client = server.connect();
  std::vector<std::thread> waiting;
  std::atomic<int> told{0};
  for (int i = 0; i < 3; ++i) {
    waiting.emplace_back([&] {
      if (client->call(kSilence, {}, soon()).status().code() == Code::peer_lost) ++told;
    });
  }
  CHECK(eventually([&] { return server.frames == 3; }));
  server.stop();
  for (auto& thread : waiting) thread.join();
  CHECK_EQ(told, 3);
  CHECK(!client->alive());
  CHECK_EQ(client->call(kEcho, {}, soon()).status().code(), Code::peer_lost);
}

TEST(connection_half_a_frame_and_then_nothing) {
  TestServer server;
  {
    const Fd fd = server.connect_raw();
    const Bytes frame = encode_frame(kEcho, 1, Bytes(1000), 0);
    send_raw(fd, ConstSpan(frame).slice(0, 500));
    CHECK(eventually([&] { return server.opened_count == 1; }));
  }
  CHECK(eventually([&] { return server.closed_count == 1; }));
  CHECK_EQ(server.frames, 0);
  CHECK(server.connect()->call(kEcho, {}, soon()).ok());
}

// Somebody who is no peer at all, or a broken one, harms nobody else.
TEST(connection_garbage_ends_it) {
  TestServer server;
  auto good = server.connect();
  Random random(4);
  for (int i = 0; i < 50; ++i) {
    const Fd fd = server.connect_raw();
    send_raw(fd, random.bytes(24 + random.below(2000)));
    CHECK(reaches_its_end(fd));
  }
  CHECK(good->call(kEcho, {}, soon()).ok());
  CHECK(eventually([&] { return server.closed_count == 50; }));
  CHECK_EQ(server.opened_count, 51);
}

// What a peer told us while it was served, such as its pins, must hold until its end goes: it may
// have views that depend on it.
TEST(connection_that_is_dropped_lasts_until_the_peer_goes) {
  TestServer server;
  auto client = server.connect();
  CHECK(client->call(kEcho, {}, soon()).ok());
  CHECK_EQ(client->call(kFault, {}, soon()).status().code(), Code::peer_lost);
  CHECK(!client->alive());
  CHECK_EQ(server.closed_count, 0);
  client.reset();
  CHECK(eventually([&] { return server.closed_count == 1; }));
}

TEST(connection_that_was_never_admitted_is_closed_at_once) {
  TestServer server;
  server.admitting = false;
  auto client = server.connect();
  CHECK_EQ(client->call(kFault, {}, soon()).status().code(), Code::peer_lost);
  CHECK(eventually([&] { return server.closed_count == 1; }));
  auto other = server.connect();
  CHECK(other->call(kEcho, Bytes(1000), soon()).ok());
  CHECK_EQ(other->call(kEcho, Bytes(100'000), soon()).status().code(), Code::peer_lost);
}

TEST(connection_calls_can_be_ended_without_closing) {
  TestServer server;
  auto client = server.connect();
  std::thread waiting(
      [&] { CHECK_EQ(client->call(kSilence, {}, soon()).status().code(), Code::closed); });
  CHECK(eventually([&] { return server.frames == 1; }));
  client->end_calls({Code::closed, "the store is closed"});
  waiting.join();
  CHECK_EQ(client->call(kEcho, {}, soon()).status().code(), Code::closed);
  CHECK_EQ(server.closed_count, 0);
  client.reset();
  CHECK(eventually([&] { return server.closed_count == 1; }));
}

// A peer that asks for much and takes nothing: what it asks for is not piled up, and once it takes
// its answers all of them come.
TEST(connection_slow_reader_is_held_back) {
  TestServer server;
  const Fd fd = server.connect_raw();
  constexpr int kAsked = 64;
  Bytes all;
  for (int i = 0; i < kAsked; ++i) {
    const Bytes frame = encode_frame(kFlood, static_cast<std::uint64_t>(i), {}, 0);
    all.insert(all.end(), frame.begin(), frame.end());
  }
  send_raw(fd, all);
  CHECK(eventually([&] { return server.frames >= 8; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(server.frames < 20);
  CHECK(server.connect()->call(kEcho, {}, soon()).ok());

  FrameParser parser;
  int got = 0;
  const Deadline deadline = soon();
  while (got < kAsked && !deadline.passed()) {
    auto ready = wait_ready(fd.get(), POLLIN, deadline);
    REQUIRE(ready.ok() && ready.value());
    std::vector<Fd> fds;
    auto received = receive_some(fd.get(), parser.room(), fds);
    REQUIRE(received.ok());
    REQUIRE(parser.commit(received.value(), {}).ok());
    for (; parser.has_frame(); ++got) {
      const Frame frame = parser.take();
      CHECK_EQ(frame.id, static_cast<std::uint64_t>(got));
      CHECK_EQ(frame.body.size(), std::size_t{1} << 20);
    }
  }
  CHECK_EQ(got, kAsked);
}

TEST(connection_slow_reader_that_goes_away) {
  TestServer server;
  {
    const Fd fd = server.connect_raw();
    for (int i = 0; i < 30; ++i) send_raw(fd, encode_frame(kFlood, 1, {}, 0));
    CHECK(eventually([&] { return server.frames >= 8; }));
  }
  CHECK(eventually([&] { return server.closed_count == 1; }));
}

// One caller that cannot get rid of a large request does not hold up the others beyond their time.
TEST(connection_a_peer_that_takes_nothing) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  ClientConnection client{Fd(ends[0])};
  const Fd other(ends[1]);
  std::thread stuck([&] {
    const auto sent = client.call(kEcho, Bytes(4 << 20), Deadline::after(300 * kMillisecond));
    CHECK_EQ(sent.status().code(), Code::timed_out);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const Nanoseconds begin = now();
  CHECK_EQ(client.call(kEcho, {}, Deadline::after(20 * kMillisecond)).status().code(),
           Code::timed_out);
  CHECK(now() - begin < 200 * kMillisecond);
  stuck.join();
  // Half a frame is on its way: nothing can follow it.
  CHECK_EQ(client.call(kEcho, {}, soon()).status().code(), Code::peer_lost);
  CHECK(!client.alive());
}

TEST(connection_to_nobody) {
  CHECK_EQ(connect_abstract("proxystore-hpc-test/nobody", soon()).status().code(),
           Code::owner_gone);
}

TEST(connection_to_a_process_that_accepts_none) {
  const std::string name = TestServer().name();
  auto listener = listen_abstract(name);
  REQUIRE(listener.ok());
  REQUIRE(::listen(listener.value().get(), 1) == 0);
  std::vector<Fd> waiting;
  for (;;) {
    auto fd = connect_abstract(name, Deadline::after(20 * kMillisecond));
    if (!fd) {
      CHECK_EQ(fd.status().code(), Code::timed_out);
      break;
    }
    waiting.push_back(std::move(fd).value());
    REQUIRE(waiting.size() < 10);
  }
}

// The listener is always readable then: it must rest, not spin, and go on when there are some
// again.
TEST(connection_when_descriptors_run_out) {
  TestServer server;
  auto before = server.connect();
  CHECK(before->call(kEcho, {}, soon()).ok());
  const Fd fd = server.connect_raw();
  CHECK(eventually([&] { return server.opened_count == 2; }));
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  std::vector<Fd> hoard;
  rlimit tight = limit;
  tight.rlim_cur = 64;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &tight) == 0);
  Fd waiting(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (int one = 0; (one = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;)
    hoard.emplace_back(one);
  CHECK_EQ(errno, EMFILE);
  hoard.pop_back();
  auto last = connect_abstract(server.name(), soon());
  CHECK(last.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK_EQ(server.opened_count, 2);
  CHECK(before->call(kEcho, {}, soon()).ok());
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  hoard.clear();
  CHECK(eventually([&] { return server.opened_count == 3; }));
}

// A child keeps no end of ours: the peer of a parent that dies learns of it.
TEST(connection_of_a_forked_child) {
  TestServer server;
  int ready[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
  const pid_t parent = ::fork();
  REQUIRE(parent >= 0);
  if (parent == 0) {
    auto fd = connect_abstract(server.name(), soon());
    if (!fd.ok()) ::_exit(1);
    ClientConnection client(std::move(fd).value());
    if (!client.call(kEcho, {}, soon()).ok()) ::_exit(2);
    const pid_t child = ::fork();
    if (child == 0) {
      const bool refused = client.call(kEcho, {}, soon()).status().code() == Code::forked;
      static_cast<void>(::write(ready[1], refused ? "y" : "n", 1));
      ::close(ready[1]);
      ::sleep(20);
      ::_exit(0);
    }
    char answer = 0;
    static_cast<void>(::read(ready[0], &answer, 1));
    static_cast<void>(::write(ready[1], &child, sizeof child));
    ::_exit(answer == 'y' ? 0 : 3);
  }
  int status = -1;
  REQUIRE(::waitpid(parent, &status, 0) == parent);
  CHECK_EQ(status, 0);
  pid_t child = 0;
  REQUIRE(::read(ready[0], &child, sizeof child) == sizeof child);
  CHECK(eventually([&] { return server.closed_count == 1; }, kSecond));
  ::kill(child, SIGKILL);
  for (int end : ready) ::close(end);
}

TEST(connection_over_tcp) {
  TestServer server;
  auto listener = listen_tcp("127.0.0.1", 0);
  REQUIRE(listener.ok());
  auto port = local_port(listener.value().get());
  REQUIRE(port.ok());
  SocketServer tcp(server.progress(), server);
  REQUIRE(tcp.listen(std::move(listener).value(), false).ok());
  auto fd = connect_tcp("127.0.0.1", port.value(), soon());
  REQUIRE(fd.ok());
  {
    ClientConnection client(std::move(fd).value());
    const Bytes body(100'000, 3);
    auto reply = client.call(kEcho, body, soon());
    REQUIRE(reply.ok());
    CHECK(reply->body == body);
    // Nothing on another node depends on this end.
    CHECK_EQ(client.call(kFault, {}, soon()).status().code(), Code::peer_lost);
    CHECK(eventually([&] { return server.closed_count == 1; }));
  }
  tcp.stop();
  CHECK(!connect_tcp("127.0.0.1", port.value(), soon()).ok());
}

TEST(connection_credentials_are_the_kernels) {
  TestServer server;
  const Fd fd = server.connect_raw();
  auto credentials = peer_credentials(fd.get());
  REQUIRE(credentials.ok());
  CHECK_EQ(credentials->pid, ::getpid());
  CHECK_EQ(credentials->uid, ::geteuid());
}
