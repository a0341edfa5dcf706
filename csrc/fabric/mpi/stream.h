#pragma once
// A stream of bytes to another rank: this end of a socket pair, whose other end its user takes for
// a connection that leads there.

#include <memory>
#include <mutex>
#include <utility>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/span.h"
#include "base/status.h"

namespace pshpc::fabric::mpi {

class Stream {
 public:
  // `users` gets the other end.
  static Expected<std::shared_ptr<Stream>> create(Fd* users);

  int fd() const { return fd_.get(); }

  // What its user has written, at most `most` bytes: none for now if empty. Code::peer_lost when
  // the user has closed his end. By one thread at a time.
  Expected<Bytes> take(std::size_t most);

  // Bytes from the other rank. Any thread; never blocks: what the socket cannot take is kept for
  // flush().
  void give(ConstSpan bytes);
  // Nothing comes from there any more.
  void end();
  // False when it has ended and all is given.
  bool flush();
  bool drained();

 private:
  explicit Stream(Fd fd) : fd_(std::move(fd)) {}
  void flush_locked();

  GuardedFd fd_;
  std::mutex mutex_;
  Bytes kept_;
  bool ended_ = false;
};

}  // namespace pshpc::fabric::mpi
