#include "fabric/mpi/stream.h"

#include <sys/socket.h>

#include <cerrno>

namespace pshpc::fabric::mpi {

Expected<std::shared_ptr<Stream>> Stream::create(Fd* users) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
    return system_error("making a stream to another rank");
  *users = Fd(pair[1]);
  return std::shared_ptr<Stream>(new Stream(Fd(pair[0])));
}

Expected<Bytes> Stream::take(std::size_t most) {
  Bytes bytes(most);
  const ssize_t size = ::recv(fd(), bytes.data(), most, MSG_DONTWAIT);
  if (size == 0) return Status(Code::peer_lost, "the stream was closed");
  if (size < 0) {
    if (errno != EAGAIN && errno != EINTR) return Status(Code::peer_lost, "the stream broke");
    return Bytes();
  }
  bytes.resize(static_cast<std::size_t>(size));
  return bytes;
}

void Stream::give(ConstSpan bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  kept_.insert(kept_.end(), bytes.data, bytes.data + bytes.size);
  flush_locked();
}

void Stream::end() {
  std::lock_guard<std::mutex> lock(mutex_);
  ended_ = true;
  flush_locked();
}

bool Stream::flush() {
  std::lock_guard<std::mutex> lock(mutex_);
  flush_locked();
  return !ended_ || !kept_.empty();
}

bool Stream::drained() {
  std::lock_guard<std::mutex> lock(mutex_);
  return kept_.empty();
}

void Stream::flush_locked() {
  while (!kept_.empty()) {
    const ssize_t sent = ::send(fd(), kept_.data(), kept_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    // Nobody reads it any more.
    if (sent <= 0) return kept_.clear();
    kept_.erase(kept_.begin(), kept_.begin() + sent);
  }
  if (ended_) ::shutdown(fd(), SHUT_WR);
}

}  // namespace pshpc::fabric::mpi
