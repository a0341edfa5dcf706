#pragma once
// Who polls a transport: one thread at a time. Others go away rather than wait, as whoever polls
// may run callbacks meanwhile.

#include <atomic>

namespace pshpc::fabric {

class Turn {
 public:
  explicit Turn(std::atomic<bool>& taken)
      : taken_(taken), mine_(!taken.exchange(true, std::memory_order_acquire)) {}
  ~Turn() {
    // Sequentially consistent: who was sent away has left word of what he wanted, and the next look
    // for that must not come before others can have the turn.
    if (mine_) taken_.store(false, std::memory_order_seq_cst);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  explicit operator bool() const { return mine_; }

 private:
  std::atomic<bool>& taken_;
  const bool mine_;
};

}  // namespace pshpc::fabric
