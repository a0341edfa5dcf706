#pragma once
// The serving end: accepts connections and hands their frames to a handler on the progress thread.

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
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
  // After a failure the connection is not served any more; it is logged once.
  virtual Status frame(const std::shared_ptr<ServerConnection>& connection, Frame frame) = 0;
  // Nobody is at the other end any more, or this end is closing.
  virtual void closed(const std::shared_ptr<ServerConnection>& connection) = 0;
};

class ServerConnection : public Watcher, public std::enable_shared_from_this<ServerConnection> {
 public:
  // Who has not shown who he is may send frames of this size only, and stay for this long.
  static constexpr std::uint32_t kMaxGreeting = 64 * 1024;
  static constexpr Nanoseconds kGreetingTime = 10 * kSecond;

  ServerConnection(Fd fd, bool local, Progress& progress, FrameHandler& handler);

  // Any thread; never blocks. What the socket cannot take is queued; of a peer that lets much pile
  // up nothing more is read until it has taken some of it.
  void send(std::uint16_t kind, std::uint64_t id, ConstSpan body, std::vector<Fd> fds = {});
  void close();
  // The handler knows now who is there.
  void admit();

  bool local() const { return local_; }  // a unix socket: same node, kernel-checked credentials
  const Credentials& credentials() const { return credentials_; }

  // The handler's own state for this connection.
  std::shared_ptr<void> context;

 private:
  friend class SocketServer;
  enum class State {
    open,
    // Not served any more, but the peer is there. It may hold views that depend on what it told us,
    // so on its node the connection stays until its own end closes.
    parting,
    closed,
  };
  struct Outgoing {
    Bytes bytes;
    std::size_t sent = 0;
    std::vector<Fd> fds;
  };

  Status open();
  void on_ready(std::uint32_t events) override;
  Status serve(const std::shared_ptr<ServerConnection>& self);
  Status flush_locked();
  Status rewatch_locked();
  bool choked();
  void part();
  void finish();
  bool overdue() const;

  GuardedFd fd_;
  const bool local_;
  const Nanoseconds born_;
  Credentials credentials_;
  Progress& progress_;
  FrameHandler& handler_;
  FrameParser parser_{kMaxGreeting};
  std::atomic<State> state_{State::closed};
  std::atomic<bool> admitted_{false};

  std::mutex mutex_;  // everything below
  std::deque<Outgoing> outgoing_;
  std::size_t queued_ = 0;
  bool choked_ = false;
  std::uint32_t watched_ = 0;
};

class SocketServer {
 public:
  SocketServer(Progress& progress, FrameHandler& handler);
  ~SocketServer();

  Status listen(Fd listener, bool local);
  // A connection that came another way, of a peer on no node in particular. On the progress thread.
  void adopt(Fd fd);
  // Closes listeners and connections.
  void stop();

 private:
  class Listener;
  void accept(Fd fd, bool local);
  struct Roster {
    std::mutex mutex;
    std::vector<std::weak_ptr<ServerConnection>> connections;

    std::vector<std::shared_ptr<ServerConnection>> alive();
  };

  Progress& progress_;
  FrameHandler& handler_;
  std::vector<std::shared_ptr<Listener>> listeners_;
  std::atomic<bool> stopped_{false};
  const std::shared_ptr<Roster> roster_ = std::make_shared<Roster>();
};

}  // namespace pshpc::fabric
