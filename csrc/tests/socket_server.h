#pragma once
// A server on an abstract socket whose handler echoes, holds back or floods, as a test wants it.

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/wire.h"
#include "fabric/progress.h"
#include "fabric/socket/client.h"
#include "fabric/socket/server.h"

namespace pshpc::test {

// What the frames of a test ask for.
enum Ask : std::uint16_t { kEcho = 1, kSilence, kLater, kFlood, kFault, kDescriptor };

class TestServer : public fabric::FrameHandler {
 public:
  TestServer();
  ~TestServer() override;

  std::unique_ptr<fabric::ClientConnection> connect();
  Fd connect_raw();
  const std::string& name() const { return name_; }
  // Answers what was to be answered later.
  void answer_held();
  void stop() { server_.stop(); }
  fabric::Progress& progress() { return progress_; }

  std::atomic<int> opened_count{0};
  std::atomic<int> closed_count{0};
  std::atomic<int> frames{0};
  bool admitting = true;  // set before anybody connects

  void opened(const std::shared_ptr<fabric::ServerConnection>& connection) override;
  Status frame(const std::shared_ptr<fabric::ServerConnection>& connection,
               fabric::Frame frame) override;
  void closed(const std::shared_ptr<fabric::ServerConnection>& connection) override;

 private:
  struct Held {
    std::shared_ptr<fabric::ServerConnection> connection;
    std::uint64_t id;
  };

  std::string name_;
  fabric::Progress progress_{{}};
  fabric::SocketServer server_{progress_, *this};
  std::mutex mutex_;
  std::vector<Held> held_;
};

// Waits for what other threads do.
inline Deadline soon() { return Deadline::after(20 * kSecond); }

}  // namespace pshpc::test
