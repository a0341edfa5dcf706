#pragma once
// The calling end of a connection. No thread of its own: whoever waits for a reply receives, also
// for the others that wait at the same time.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "base/guarded_fd.h"
#include "fabric/socket/frame.h"
#include "fabric/socket/socket.h"

namespace pshpc::fabric {

class ClientConnection {
 public:
  explicit ClientConnection(Fd fd);

  // Waits for a frame that answers nothing (id 0): the server's part of the hello. Before any call.
  Expected<Frame> receive(Deadline deadline);

  // Sends and waits for the frame with the same id. Any thread, many at once. After a failure other
  // than Code::timed_out the connection is dead.
  Expected<Frame> call(std::uint16_t kind, ConstSpan body, Deadline deadline,
                       const std::vector<int>& fds = {});

  // The peer is there as far as the socket knows. Looks at the socket: about a microsecond.
  bool alive() const;
  // Calls in flight and later ones fail, while the peer goes on seeing this end: what depends on
  // that, such as pins, ends with the connection itself.
  void end_calls(const Status& why);

 private:
  struct Waiter {
    bool done = false;
    Status status;
    Frame reply;
  };
  using Lock = std::unique_lock<std::mutex>;

  Status send(Lock& lock, ConstSpan frame, const std::vector<int>& fds, Deadline deadline);
  Status send_all(ConstSpan frame, const std::vector<int>& fds, Deadline deadline, bool* begun);
  Status receive_once(Deadline deadline);
  void wait_for_change(Lock& lock, Deadline deadline);
  void hand_out_replies();
  void fail_all(const Status& status);

  GuardedFd fd_;

  mutable std::mutex mutex_;  // everything below; never held while waiting for the socket
  std::condition_variable changed_;
  bool sending_ = false;
  bool receiving_ = false;
  Status broken_;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, Waiter*> waiters_;
  FrameParser parser_;  // used by the one that has receiving_
};

}  // namespace pshpc::fabric
