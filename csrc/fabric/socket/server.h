#pragma once
// The serving end: accepts connections and hands their frames to a handler on the progress thread.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/guarded_fd.h"
#include "fabric/progress.h"
#include "fabric/socket/frame.h"
#include "fabric/socket/socket.h"

namespace pshpc::fabric {

class ServerConnection;

class FrameHandler {
 public:
  virtual ~FrameHandler() = default;
  // On the progress thread; must not block.
  virtual void opened(const std::shared_ptr<ServerConnection>& connection) = 0;
  // A failure closes the connection; it is logged once.
  virtual Status frame(const std::shared_ptr<ServerConnection>& connection, Frame frame) = 0;
  virtual void closed(const std::shared_ptr<ServerConnection>& connection) = 0;
};

class ServerConnection : public Watcher, public std::enable_shared_from_this<ServerConnection> {
 public:
  ServerConnection(Fd fd, bool local, Progress& progress, FrameHandler& handler);

  // Any thread; never blocks. What the socket cannot take is queued; a peer that lets too much pile
  // up is dropped.
  void send(std::uint16_t kind, std::uint64_t id, ConstSpan body, std::vector<Fd> fds = {});
  void close();

  bool local() const { return local_; }  // a unix socket: same node, kernel-checked credentials
  const Credentials& credentials() const { return credentials_; }

  // The handler's own state for this connection.
  std::shared_ptr<void> context;

 private:
  friend class SocketServer;
  struct Outgoing {
    Bytes bytes;
    std::size_t sent = 0;
    std::vector<Fd> fds;
  };

  Status open();
  void on_ready(std::uint32_t events) override;
  Status flush_locked();

  GuardedFd fd_;
  const bool local_;
  Credentials credentials_;
  Progress& progress_;
  FrameHandler& handler_;
  FrameParser parser_;
  std::atomic<bool> open_{false};

  std::mutex mutex_;  // outgoing
  std::deque<Outgoing> outgoing_;
  std::size_t queued_ = 0;
  bool watching_out_ = false;
};

class SocketServer {
 public:
  SocketServer(Progress& progress, FrameHandler& handler);
  ~SocketServer();

  Status listen(Fd listener, bool local);
  // Closes listeners and connections.
  void stop();

 private:
  class Listener;

  Progress& progress_;
  FrameHandler& handler_;
  std::vector<std::shared_ptr<Listener>> listeners_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<ServerConnection>> connections_;
};

}  // namespace pshpc::fabric
