// Runs the registered tests: all, or those whose file:name contains one of the arguments.
//   run_tests [--list] [part of a name ...]      PSHPC_TEST_TIMEOUT=seconds for each test, default
//   30

#include <execinfo.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <vector>

#include "tests/check.h"

namespace pshpc::test {
namespace {

struct Case {
  std::string name;
  Body body;
};

// Function-local, since tests register before main() in any order of files.
std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

std::atomic<int> failures_of_current{0};
std::mutex output_mutex;
char current_name[256];

void say(const char* text) { [[maybe_unused]] auto written = ::write(2, text, std::strlen(text)); }

// Only async-signal-safe calls: the test may hang while it holds any lock.
void on_alarm(int) {
  say("\nTIMEOUT: ");
  say(current_name);
  say(" did not end in its time; PSHPC_TEST_TIMEOUT sets the limit. The main thread is at:\n");
  void* frames[64];
  ::backtrace_symbols_fd(frames, ::backtrace(frames, 64), 2);
  std::abort();
}

bool selected(const std::string& name, const std::vector<std::string>& filters) {
  for (const auto& filter : filters) {
    if (name.find(filter) != std::string::npos) return true;
  }
  return filters.empty();
}

bool run(const Case& test, unsigned limit_seconds) {
  failures_of_current = 0;
  std::snprintf(current_name, sizeof current_name, "%s", test.name.c_str());
  const auto started = std::chrono::steady_clock::now();
  ::alarm(limit_seconds);
  try {
    test.body();
  } catch (const Abandoned&) {
  } catch (const std::exception& error) {
    note_failure(test.name.c_str(), 0, std::string("exception: ") + error.what());
  }
  ::alarm(0);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - started;
  const bool passed = failures_of_current == 0;
  std::printf("%-6s %s (%.0f ms)\n", passed ? "ok" : "FAILED", test.name.c_str(), took.count());
  std::fflush(stdout);
  return passed;
}

}  // namespace

bool add_test(const char* file, const char* name, Body body) {
  const char* slash = std::strrchr(file, '/');
  cases().push_back({std::string(slash ? slash + 1 : file) + ":" + name, body});
  return true;
}

void note_failure(const char* file, int line, const std::string& what) {
  ++failures_of_current;
  const std::lock_guard<std::mutex> lock(output_mutex);
  std::printf("%s:%d: %s\n", file, line, what.c_str());
}

}  // namespace pshpc::test

int main(int argc, char** argv) {
  using namespace pshpc::test;
  bool list_only = false;
  std::vector<std::string> filters;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--list") == 0) {
      list_only = true;
    } else {
      filters.emplace_back(argv[i]);
    }
  }
  const char* configured = std::getenv("PSHPC_TEST_TIMEOUT");
  const unsigned limit = configured ? static_cast<unsigned>(std::atoi(configured)) : 30;
  // Loads the unwinder now: its first use allocates, which a signal handler must not.
  void* frame[1];
  ::backtrace(frame, 1);
  std::signal(SIGALRM, on_alarm);

  int passed = 0;
  int failed = 0;
  for (const auto& test : cases()) {
    if (!selected(test.name, filters)) continue;
    if (list_only) {
      std::printf("%s\n", test.name.c_str());
    } else {
      ++(run(test, limit) ? passed : failed);
    }
  }
  if (!list_only) std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
