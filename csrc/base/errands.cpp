#include "base/errands.h"

#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include "base/fork_guard.h"
#include "base/log.h"

namespace pshpc {

Errands::Errands() : birth_(fork_generation()), state_(std::make_unique<State>()) {}

Errands::~Errands() {
  if (birth_ != fork_generation()) {
    // The thread exists in the parent only, and a condition that it waits for cannot be destroyed.
    [[maybe_unused]] const State* kept = state_.release();
    return;
  }
  if (!state_->thread.joinable()) return;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->ending = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

bool Errands::add(std::function<void()> errand) {
  if (birth_ != fork_generation()) return false;
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (!state_->thread.joinable()) {
    try {
      state_->thread = std::thread([state = state_.get()] { state->run(); });
    } catch (const std::system_error&) {
      return false;
    }
  }
  state_->waiting.push_back(std::move(errand));
  state_->changed.notify_one();
  return true;
}

void Errands::State::run() {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return ending || !waiting.empty(); });
    if (ending) return;
    std::function<void()> next = std::move(waiting.front());
    waiting.pop_front();
    lock.unlock();
    try {
      next();
    } catch (const std::exception& error) {
      log_warn_once(std::string("something went wrong in the background: ") + error.what());
    }
    next = nullptr;
    lock.lock();
  }
}

}  // namespace pshpc
