#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fork_guard.h"
#include "base/guarded_fd.h"
#include "base/mapping.h"
#include "tests/check.h"

using namespace pshpc;

namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

struct Pipe {
  Fd in, out;
};

Pipe new_pipe() {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

int status_of(pid_t child) {
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

}  // namespace

TEST(fd_has_one_owner) {
  Pipe pipe = new_pipe();
  const int number = pipe.in.get();
  Fd moved = std::move(pipe.in);
  CHECK(!pipe.in);
  CHECK_EQ(moved.get(), number);
  moved = Fd(std::move(pipe.out));
  CHECK(!is_open(number));
  const int released = moved.release();
  CHECK(is_open(released));
  ::close(released);
}

TEST(fd_of_the_parent_is_closed_in_a_forked_child) {
  Pipe pipe = new_pipe();
  const int plain = pipe.in.get();
  GuardedFd guarded(std::move(pipe.out));
  const int number = guarded.get();
  const std::uint32_t birth = fork_generation();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // The number may belong to something else of the child's by then, which must stay open.
    const int reused = ::dup(plain);
    const bool closed = reused == number && guarded.get() == -1 && !guarded;
    guarded.reset();
    ::_exit(closed && is_open(reused) && fork_generation() == birth + 1 ? 0 : 1);
  }
  CHECK_EQ(status_of(child), 0);
  CHECK(is_open(number));
  CHECK_EQ(guarded.get(), number);
  guarded.reset();
  CHECK(!is_open(number));
}

TEST(fd_of_a_grandchild) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int ends[2];
    if (::pipe(ends) != 0) ::_exit(2);
    GuardedFd mine{Fd(ends[1])};
    const pid_t grandchild = ::fork();
    if (grandchild == 0) ::_exit(is_open(ends[0]) && !is_open(ends[1]) && !mine ? 0 : 1);
    ::_exit(status_of(grandchild));
  }
  CHECK_EQ(status_of(child), 0);
}

// Children that are forked while descriptors come and go: none inherits one, none closes one of its
// own. The pipe's end of file would not come if any child kept the writing end.
TEST(fd_guards_and_forks_at_once) {
  Pipe kept = new_pipe();
  std::atomic<bool> over{false};
  std::thread churn([&] {
    while (!over) {
      int ends[2];
      if (::pipe(ends) != 0) continue;
      GuardedFd guarded{Fd(ends[0])};
      Fd other(ends[1]);
    }
  });
  int wrong = 0;
  for (int i = 0; i < 30; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(is_open(kept.in.get()) && is_open(kept.out.get()) ? 0 : 1);
    wrong += status_of(child) != 0;
  }
  over = true;
  churn.join();
  CHECK_EQ(wrong, 0);
}

TEST(fd_move_assignment_keeps_the_guard) {
  Pipe pipe = new_pipe();
  GuardedFd first(std::move(pipe.in));
  const int number = first.get();
  GuardedFd second(std::move(pipe.out));
  const int replaced = second.get();
  second = std::move(first);
  CHECK(!is_open(replaced));
  CHECK_EQ(second.get(), number);
  CHECK(!first);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(is_open(number) ? 1 : 0);
  CHECK_EQ(status_of(child), 0);
}

TEST(clock_deadlines) {
  CHECK(Deadline::after(0).passed());
  CHECK_EQ(Deadline::after(-kSecond).remaining(), 0);
  CHECK(!Deadline::after(kSecond).passed());
  CHECK(!Deadline::never().passed());
  CHECK(!Deadline::after_seconds(1e300).passed());
  CHECK(!Deadline::after_seconds(std::numeric_limits<double>::infinity()).passed());
  CHECK(Deadline::after_seconds(-1).passed());
  CHECK(Deadline::after_seconds(std::nan("")).passed());
  CHECK_EQ(Deadline::after(0).remaining_ms(10), 0);
  CHECK_EQ(Deadline::after(1).remaining_ms(10), Deadline::after(1).passed() ? 0 : 1);
  CHECK_EQ(Deadline::never().remaining_ms(250), 250);
}

TEST(mapping_has_one_owner) {
  auto made = Mapping::anonymous(page_size());
  REQUIRE(made.ok());
  Mapping first = std::move(made).value();
  first.data()[0] = 42;
  Mapping second = std::move(first);
  CHECK(!first);
  CHECK_EQ(second.data()[0], 42);
  second.reset();
  CHECK(!second);
  CHECK(!Mapping::file(-1, 0, 4096, Mapping::Access::read).ok());
}
