#include "tests/socket_server.h"

#include <fcntl.h>

#include "rpc/address.h"
#include "tests/check.h"

namespace pshpc::test {

using namespace fabric;

TestServer::TestServer() {
  const Tag random = random_tag();
  name_ = "proxystore-hpc-test/" + rpc::to_hex({random.data(), random.size()});
  REQUIRE(progress_.start().ok());
  auto listener = listen_abstract(name_);
  REQUIRE(listener.ok());
  REQUIRE(server_.listen(std::move(listener).value(), true).ok());
}

TestServer::~TestServer() {
  server_.stop();
  progress_.stop();
}

Fd TestServer::connect_raw() {
  auto fd = connect_abstract(name_, soon());
  REQUIRE(fd.ok());
  return std::move(fd).value();
}

std::unique_ptr<ClientConnection> TestServer::connect() {
  return std::make_unique<ClientConnection>(connect_raw());
}

void TestServer::opened(const std::shared_ptr<ServerConnection>& connection) {
  ++opened_count;
  if (admitting) connection->admit();
}

void TestServer::closed(const std::shared_ptr<ServerConnection>&) { ++closed_count; }

void TestServer::answer_held() {
  std::vector<Held> held;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    held.swap(held_);
  }
  for (const Held& one : held) one.connection->send(kLater, one.id, {});
}

Status TestServer::frame(const std::shared_ptr<ServerConnection>& connection, Frame frame) {
  ++frames;
  switch (frame.kind) {
    case kEcho: connection->send(kEcho, frame.id, frame.body, std::move(frame.fds)); break;
    case kSilence: break;
    case kLater: {
      std::lock_guard<std::mutex> lock(mutex_);
      held_.push_back({connection, frame.id});
      break;
    }
    case kFlood: connection->send(kFlood, frame.id, Bytes(1 << 20, 0x5a)); break;
    case kDescriptor: {
      std::vector<Fd> fds;
      fds.emplace_back(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
      connection->send(kDescriptor, frame.id, {}, std::move(fds));
      break;
    }
    default: return {Code::protocol, "a frame that the test server does not know"};
  }
  return {};
}

}  // namespace pshpc::test
