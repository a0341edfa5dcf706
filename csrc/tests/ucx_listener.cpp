// Connections by host and port.

#include "fabric/ucx/listener.h"

#include <condition_variable>

#include "tests/check.h"
#include "tests/ucx_node.h"

using namespace pshpc;
using namespace pshpc::test;
using fabric::ucx::Options;

namespace {

class Door {
 public:
  fabric::ucx::UcxChannel::Ready accept() {
    return [this](std::shared_ptr<fabric::Channel> channel) {
      std::lock_guard<std::mutex> lock(mutex_);
      channel_ = std::move(channel);
      came_.notify_all();
    };
  }
  std::shared_ptr<fabric::Channel> await() {
    std::unique_lock<std::mutex> lock(mutex_);
    came_.wait_for(lock, std::chrono::seconds(10), [this] { return channel_ != nullptr; });
    return std::move(channel_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::shared_ptr<fabric::Channel> channel_;
};

Options tcp() {
  Options options;
  options.tls = "tcp,self";
  return options;
}

}  // namespace

TEST(ucx_a_connection_by_port_carries_messages_both_ways) {
  if (!UcxNode::tcp_over_loopback()) return;
  UcxNode server(tcp()), client(tcp());
  Door door;
  auto listener = server.door().listen("127.0.0.1", 0, door.accept());
  REQUIRE(listener.ok());
  CHECK(listener.value()->port() != 0);
  auto channel = client.door().dial("127.0.0.1", listener.value()->port());
  REQUIRE(channel.ok());
  client.take(channel.value());
  std::string answer;
  // Sent before the other side can be known: it waits for it.
  CHECK(client.echo("hello", &answer).ok());
  CHECK_EQ(answer, "hello");
  auto accepted = door.await();
  REQUIRE(accepted != nullptr);
  server.take(std::move(accepted));
  CHECK(server.echo("hello to you", &answer).ok());
  Bytes into(1 << 20);
  CHECK(client.fetch(5, into).ok());
  CHECK_EQ(into[4000], pattern(4005));
  server.channel().close();
  CHECK(client.await_lost(10));
}

TEST(ucx_nobody_listens_to_all_networks_by_accident) {
  UcxNode server(tcp());
  Door door;
  CHECK(server.door().listen("0.0.0.0", 0, door.accept()).status().code() == Code::denied);
  CHECK(server.door().listen("::", 0, door.accept()).status().code() == Code::denied);
  CHECK(server.door().listen("localhost", 0, door.accept()).status().code() == Code::invalid);
}

TEST(ucx_a_port_where_nobody_listens_is_a_lost_channel) {
  UcxNode server(tcp()), client(tcp());
  std::uint16_t port = 0;
  {
    Door door;
    auto listener = server.door().listen("127.0.0.1", 0, door.accept());
    REQUIRE(listener.ok());
    port = listener.value()->port();
  }
  auto channel = client.door().dial("127.0.0.1", port);
  if (!channel.ok()) return;
  client.take(channel.value());
  std::string answer;
  CHECK(client.echo("anybody?", &answer).code() != Code::ok);
  CHECK(!client.channel().alive());
}
