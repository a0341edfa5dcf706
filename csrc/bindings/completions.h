#pragma once
// Finished calls, for whoever awaits them: an event loop that watches a descriptor, or a thread.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "base/guarded_fd.h"
#include "base/status.h"
#include "bindings/graveyard.h"

namespace pshpc::bindings {

class Completions {
 public:
  Status open();
  int fd() const { return wake_.get(); }

  // Any thread, no GIL needed.
  void push(Buriable token);
  std::vector<Buriable> drain();
  // Until there is something, the deadline, or close().
  std::vector<Buriable> wait(Deadline deadline);
  void close();

 private:
  GuardedFd wake_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  bool signalled_ = false;
  std::vector<Buriable> finished_;
};

}  // namespace pshpc::bindings
