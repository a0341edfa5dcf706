#pragma once
// Calls of MPI where no two threads of the process may be in it at once, whichever door they use:
// below MPI_THREAD_MULTIPLE, and while MPI ends. The delete callbacks of MPI_COMM_SELF, in which
// whatever is still open is closed, run when MPI_Finalize has begun, and MPICH (5.0, and what
// descends from it) takes no locks any more by then.

#include <atomic>

#include "fabric/turn.h"

namespace pshpc::fabric::mpi {

class Alone {
 public:
  // From now on, in the whole process. Returns when no other thread is in MPI through a door.
  static void begin();
  // For calls of MPI by others than doors: waits for the turn once that has begun, else does
  // nothing. Each successful `enter` is followed by a `leave` of the same thread.
  static bool enter();
  static void leave();
};

// Who may call MPI for a door: one thread at a time, and, where that has begun, one of the process.
class MpiTurn {
 public:
  explicit MpiTurn(std::atomic<bool>& taken);
  ~MpiTurn();
  MpiTurn(const MpiTurn&) = delete;
  MpiTurn& operator=(const MpiTurn&) = delete;
  explicit operator bool() const { return how_ != How::refused; }

 private:
  enum class How { refused, together, alone };
  How come_in() const;

  const Turn turn_;
  const How how_;
};

}  // namespace pshpc::fabric::mpi
