#include "fabric/socket/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace pshpc::fabric {
namespace {

// From here on a peer that does not take its answers is not asked for more requests.
constexpr std::size_t kChokeAt = 8u << 20;
// Receives of one connection in a row, so that one flood does not starve the others.
constexpr int kReceivesPerTurn = 16;
constexpr Nanoseconds kSweepPeriod = 2 * kSecond;
constexpr Nanoseconds kListenerRest = 100 * kMillisecond;

}  // namespace

ServerConnection::ServerConnection(Fd fd, bool local, Progress& progress, FrameHandler& handler)
    : fd_(std::move(fd)), local_(local), born_(now()), progress_(progress), handler_(handler) {}

Status ServerConnection::open() {
  if (local_) {
    auto credentials = peer_credentials(fd_.get());
    if (!credentials) return credentials.status();
    credentials_ = credentials.value();
    if (credentials_.uid != ::geteuid() && credentials_.uid != 0)
      return {Code::denied, "user " + std::to_string(credentials_.uid) + " may not connect"};
  }
  state_ = State::open;
  watched_ = EPOLLIN | EPOLLRDHUP;
  return progress_.watch(fd_.get(), watched_, shared_from_this());
}

void ServerConnection::admit() {
  admitted_ = true;
  parser_.allow(kMaxBody);
}

bool ServerConnection::overdue() const { return !admitted_ && now() - born_ > kGreetingTime; }

void ServerConnection::on_ready(std::uint32_t events) {
  const auto self = shared_from_this();
  if (state_ == State::parting) {
    if (hung_up(fd_.get())) close();
    return;
  }
  Status status;
  if (events & EPOLLOUT) {
    std::lock_guard<std::mutex> lock(mutex_);
    status = flush_locked();
    if (queued_ < kChokeAt) choked_ = false;
  }
  if (status.ok()) status = serve(self);
  if (status.ok()) return;
  if (status.code() == Code::peer_lost && hung_up(fd_.get())) return close();
  if (status.code() != Code::peer_lost) log_warn_once("dropped a connection: " + status.message());
  part();
}

// First what was received before: frames wait here while the peer does not take its answers.
Status ServerConnection::serve(const std::shared_ptr<ServerConnection>& self) {
  for (int turn = 0;; ++turn) {
    while (state_ == State::open && parser_.has_frame()) {
      // An end that is gone takes nothing any more, and would go on waking us.
      if (choked()) return hung_up(fd_.get()) ? Status(Code::peer_lost, "it ended") : Status();
      const Status status = handler_.frame(self, parser_.take());
      if (!status.ok()) return status;
    }
    if (state_ != State::open) return {};
    if (turn == kReceivesPerTurn) break;
    std::vector<Fd> fds;
    auto got = receive_some(fd_.get(), parser_.room(), fds);
    if (!got) return got.status();
    if (got.value() == 0) break;
    const Status status = parser_.commit(got.value(), std::move(fds));
    if (!status.ok()) return status;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  return state_ == State::open ? rewatch_locked() : Status();
}

bool ServerConnection::choked() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (queued_ < kChokeAt) return false;
  choked_ = true;
  static_cast<void>(rewatch_locked());
  return true;
}

void ServerConnection::send(std::uint16_t kind, std::uint64_t id, ConstSpan body,
                            std::vector<Fd> fds) {
  Outgoing out;
  out.bytes = encode_frame(kind, id, body, fds.size());
  out.fds = std::move(fds);
  Status status;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (state_ != State::open) return;
    queued_ += out.bytes.size();
    outgoing_.push_back(std::move(out));
    // While something waits for room, the progress thread sends it, in its order.
    if (outgoing_.size() == 1) status = flush_locked();
  }
  if (status.ok()) return;
  if (progress_.on_thread()) return part();
  progress_.post([self = shared_from_this()] { self->part(); });
}

Status ServerConnection::flush_locked() {
  while (!outgoing_.empty()) {
    Outgoing& out = outgoing_.front();
    std::vector<int> fds;
    if (out.sent == 0)
      for (const Fd& fd : out.fds) fds.push_back(fd.get());
    auto sent = send_some(fd_.get(), ConstSpan(out.bytes).from(out.sent), {}, fds);
    if (!sent) return sent.status();
    if (sent.value() == 0) break;
    out.sent += sent.value();
    if (out.sent < out.bytes.size()) continue;
    queued_ -= out.bytes.size();
    outgoing_.pop_front();
  }
  return rewatch_locked();
}

Status ServerConnection::rewatch_locked() {
  std::uint32_t events = EPOLLRDHUP;
  if (!choked_) events |= EPOLLIN;
  if (choked_ || !outgoing_.empty()) events |= EPOLLOUT;
  if (events == watched_) return {};
  watched_ = events;
  return progress_.rewatch(fd_.get(), events);
}

void ServerConnection::part() {
  if (!local_ || !admitted_) return close();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    State expected = State::open;
    if (!state_.compare_exchange_strong(expected, State::parting)) return;
    outgoing_.clear();
    queued_ = 0;
    ::shutdown(fd_.get(), SHUT_WR);
    if (progress_.rewatch(fd_.get(), EPOLLRDHUP).ok()) return;
  }
  close();
}

void ServerConnection::close() {
  if (state_.exchange(State::closed) == State::closed) return;
  // The descriptor is closed on the progress thread, where nobody is in the middle of using it.
  if (progress_.on_thread())
    finish();
  else
    progress_.post([self = shared_from_this()] { self->finish(); });
}

void ServerConnection::finish() {
  const auto self = shared_from_this();
  progress_.unwatch(fd_.get());
  handler_.closed(self);
  std::lock_guard<std::mutex> lock(mutex_);
  fd_.reset();
  outgoing_.clear();
}

class SocketServer::Listener : public Watcher, public std::enable_shared_from_this<Listener> {
 public:
  Listener(SocketServer& server, Fd fd, bool local)
      : server_(server), progress_(server.progress_), fd_(std::move(fd)), local_(local) {}

  int fd() const { return fd_.get(); }

  void on_ready(std::uint32_t) override {
    for (;;) {
      auto accepted = accept_connection(fd_.get());
      if (!accepted) return refused(accepted.status());
      server_.accept(std::move(accepted).value(), local_);
    }
  }

 private:
  // Who waits goes on waiting, and would wake this thread again at once.
  void refused(const Status& why) {
    if (why.code() == Code::unavailable) return;
    log_warn_once(why.message() + "; peers have to wait");
    static_cast<void>(progress_.rewatch(fd_.get(), 0));
    progress_.every(kListenerRest, [weak = weak_from_this()] {
      if (const auto self = weak.lock())
        static_cast<void>(self->progress_.rewatch(self->fd_.get(), EPOLLIN));
      return false;
    });
  }

  SocketServer& server_;
  Progress& progress_;
  GuardedFd fd_;
  const bool local_;
};

std::vector<std::shared_ptr<ServerConnection>> SocketServer::Roster::alive() {
  std::vector<std::shared_ptr<ServerConnection>> alive;
  std::lock_guard<std::mutex> lock(mutex);
  const auto end = std::remove_if(connections.begin(), connections.end(), [&](auto& weak) {
    auto connection = weak.lock();
    if (!connection) return true;
    alive.push_back(std::move(connection));
    return false;
  });
  connections.erase(end, connections.end());
  return alive;
}

SocketServer::SocketServer(Progress& progress, FrameHandler& handler)
    : progress_(progress), handler_(handler) {
  progress_.every(kSweepPeriod, [weak = std::weak_ptr<Roster>(roster_)] {
    const auto roster = weak.lock();
    if (!roster) return false;
    for (const auto& connection : roster->alive())
      if (connection->overdue()) connection->close();
    return true;
  });
}

SocketServer::~SocketServer() { stop(); }

Status SocketServer::listen(Fd listener, bool local) {
  auto watching = std::make_shared<Listener>(*this, std::move(listener), local);
  const Status status = progress_.watch(watching->fd(), EPOLLIN, watching);
  if (status.ok()) listeners_.push_back(std::move(watching));
  return status;
}

void SocketServer::adopt(Fd fd) {
  if (!stopped_) accept(std::move(fd), false);
}

void SocketServer::accept(Fd fd, bool local) {
  auto connection = std::make_shared<ServerConnection>(std::move(fd), local, progress_, handler_);
  const Status opened = connection->open();
  if (!opened.ok()) return log_warn_once("refused a connection: " + opened.message());
  {
    std::lock_guard<std::mutex> lock(roster_->mutex);
    roster_->connections.push_back(connection);
  }
  handler_.opened(connection);
}

void SocketServer::stop() {
  stopped_ = true;
  for (auto& listener : listeners_)
    if (listener->fd() >= 0) progress_.unwatch(listener->fd());
  listeners_.clear();
  for (const auto& connection : roster_->alive()) connection->close();
}

}  // namespace pshpc::fabric
