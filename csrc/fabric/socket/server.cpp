#include "fabric/socket/server.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace pshpc::fabric {
namespace {

constexpr std::size_t kMaxQueued = 64u << 20;
// Frames of one connection handled in a row, so that one flood does not starve the others.
constexpr int kReceivesPerTurn = 16;

}  // namespace

ServerConnection::ServerConnection(Fd fd, bool local, Progress& progress, FrameHandler& handler)
    : fd_(std::move(fd)), local_(local), progress_(progress), handler_(handler) {}

Status ServerConnection::open() {
  if (local_) {
    auto credentials = peer_credentials(fd_.get());
    if (!credentials) return credentials.status();
    credentials_ = credentials.value();
    if (credentials_.uid != ::geteuid() && credentials_.uid != 0)
      return {Code::denied, "user " + std::to_string(credentials_.uid) + " may not connect"};
  }
  open_ = true;
  return progress_.watch(fd_.get(), EPOLLIN | EPOLLRDHUP, shared_from_this());
}

void ServerConnection::on_ready(std::uint32_t events) {
  const auto self = shared_from_this();
  Status status;
  if (events & EPOLLOUT) {
    std::lock_guard<std::mutex> lock(mutex_);
    status = flush_locked();
  }
  for (int turn = 0; status.ok() && open_ && turn < kReceivesPerTurn; ++turn) {
    std::vector<Fd> fds;
    auto got = receive_some(fd_.get(), parser_.room(), fds);
    if (!got) {
      status = got.status();
    } else if (got.value() == 0) {
      return;
    } else {
      status = parser_.commit(got.value(), std::move(fds));
      while (status.ok() && open_ && parser_.has_frame())
        status = handler_.frame(self, parser_.take());
    }
  }
  if (status.ok()) return;
  if (status.code() != Code::peer_lost)
    log_warn_once("dropped a connection: " + status.message());
  close();
}

void ServerConnection::send(std::uint16_t kind, std::uint64_t id, ConstSpan body,
                            std::vector<Fd> fds) {
  Outgoing out;
  out.bytes = encode_frame(kind, id, body, fds.size());
  out.fds = std::move(fds);
  bool drop = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!open_) return;
    queued_ += out.bytes.size();
    outgoing_.push_back(std::move(out));
    drop = queued_ > kMaxQueued || !flush_locked().ok();
  }
  if (drop) close();
}

Status ServerConnection::flush_locked() {
  while (!outgoing_.empty()) {
    Outgoing& out = outgoing_.front();
    std::vector<int> fds;
    if (out.sent == 0)
      for (const Fd& fd : out.fds) fds.push_back(fd.get());
    auto sent = send_some(fd_.get(), ConstSpan(out.bytes).from(out.sent), {}, fds);
    if (!sent) return sent.status();
    if (sent.value() == 0) {
      if (!std::exchange(watching_out_, true))
        return progress_.rewatch(fd_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
      return {};
    }
    out.sent += sent.value();
    if (out.sent < out.bytes.size()) continue;
    queued_ -= out.bytes.size();
    outgoing_.pop_front();
  }
  if (std::exchange(watching_out_, false))
    return progress_.rewatch(fd_.get(), EPOLLIN | EPOLLRDHUP);
  return {};
}

void ServerConnection::close() {
  if (!open_.exchange(false)) return;
  // The descriptor is closed on the progress thread, where nobody is in the middle of using it.
  const auto self = shared_from_this();
  const auto finish = [self] {
    self->progress_.unwatch(self->fd_.get());
    self->handler_.closed(self);
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->fd_.reset();
    self->outgoing_.clear();
  };
  if (progress_.on_thread())
    finish();
  else
    progress_.post(finish);
}

class SocketServer::Listener : public Watcher {
 public:
  Listener(SocketServer& server, Fd fd, bool local)
      : server_(server), fd_(std::move(fd)), local_(local) {}

  int fd() const { return fd_.get(); }

  void on_ready(std::uint32_t) override {
    for (;;) {
      auto accepted = accept_connection(fd_.get());
      if (!accepted) return;
      auto connection = std::make_shared<ServerConnection>(
          std::move(accepted).value(), local_, server_.progress_, server_.handler_);
      const Status opened = connection->open();
      if (!opened.ok()) {
        log_warn_once("refused a connection: " + opened.message());
        continue;
      }
      {
        std::lock_guard<std::mutex> lock(server_.mutex_);
        auto& all = server_.connections_;
        all.erase(std::remove_if(all.begin(), all.end(), [](auto& c) { return c.expired(); }),
                  all.end());
        all.push_back(connection);
      }
      server_.handler_.opened(connection);
    }
  }

 private:
  SocketServer& server_;
  GuardedFd fd_;
  const bool local_;
};

SocketServer::SocketServer(Progress& progress, FrameHandler& handler)
    : progress_(progress), handler_(handler) {}

SocketServer::~SocketServer() { stop(); }

Status SocketServer::listen(Fd listener, bool local) {
  auto watching = std::make_shared<Listener>(*this, std::move(listener), local);
  const Status status = progress_.watch(watching->fd(), EPOLLIN, watching);
  if (status.ok()) listeners_.push_back(std::move(watching));
  return status;
}

void SocketServer::stop() {
  for (auto& listener : listeners_)
    if (listener->fd() >= 0) progress_.unwatch(listener->fd());
  listeners_.clear();
  std::vector<std::weak_ptr<ServerConnection>> connections;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    connections.swap(connections_);
  }
  for (auto& weak : connections)
    if (auto connection = weak.lock()) connection->close();
}

}  // namespace pshpc::fabric
