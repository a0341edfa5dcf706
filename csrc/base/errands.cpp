#include "base/errands.h"

#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include "base/fork_guard.h"
#include "base/log.h"

namespace pshpc {

Errands::Errands() : birth_(fork_generation()) {}

Errands::~Errands() {
  if (!thread_.joinable()) return;
  if (birth_ != fork_generation()) {  // the thread exists in the parent only
    thread_.detach();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool Errands::add(std::function<void()> errand) {
  if (birth_ != fork_generation()) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error&) {
      return false;
    }
  }
  waiting_.push_back(std::move(errand));
  changed_.notify_one();
  return true;
}

void Errands::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    std::function<void()> next = std::move(waiting_.front());
    waiting_.pop_front();
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
