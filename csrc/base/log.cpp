#include "base/log.h"

#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <set>

namespace pshpc {
namespace {

// A peer that can make us say ever new things must not fill our memory, nor the user's terminal.
constexpr std::size_t kMostDistinct = 1000;

// One write per line, so that lines of several processes do not mix.
void emit(const char* level, const std::string& message) {
  const std::string line =
      "proxystore_hpc[" + std::to_string(::getpid()) + "] " + level + ": " + message + "\n";
  ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
  static_cast<void>(ignored);
}

}  // namespace

LogLevel log_level() {
  static const LogLevel level = [] {
    const char* text = std::getenv("PROXYSTORE_HPC_LOG");
    const std::string value = text ? text : "";
    if (value == "off") return LogLevel::off;
    if (value == "debug") return LogLevel::debug;
    return LogLevel::warn;
  }();
  return level;
}

void log_warn(const std::string& message) {
  if (log_level() >= LogLevel::warn) emit("warning", message);
}

void log_debug(const std::string& message) {
  if (log_level() >= LogLevel::debug) emit("debug", message);
}

void log_warn_once(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> said;
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (said.size() >= kMostDistinct || !said.insert(message).second) return;
  }
  log_warn(message);
}

}  // namespace pshpc
