#pragma once
// What takes long and nobody waits for, done one after another by a thread that is started with the
// first of them.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace pshpc {

class Errands {
 public:
  Errands();
  // Waits for the one that is under way and drops the others. Not from within one.
  ~Errands();
  Errands(const Errands&) = delete;
  Errands& operator=(const Errands&) = delete;

  // Any thread. False if there is no thread to be had, or this is a forked child.
  bool add(std::function<void()> errand);

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool ending = false;
    std::deque<std::function<void()>> waiting;
    std::thread thread;

    void run();
  };

  const std::uint32_t birth_;
  std::unique_ptr<State> state_;
};

}  // namespace pshpc
