#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "fabric/progress.h"
#include "tests/check.h"
#include "tests/eventually.h"

using namespace pshpc;
using namespace pshpc::fabric;
using pshpc::test::eventually;

namespace {

Fd new_event() { return Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void signal(const Fd& event) {
  const std::uint64_t one = 1;
  REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
}

// Counts, and drains its descriptor.
class Counter : public Watcher {
 public:
  explicit Counter(int fd) : fd_(fd) {}
  void on_ready(std::uint32_t) override {
    if (ended) ++late;
    std::uint64_t value = 0;
    if (::read(fd_, &value, sizeof value) == sizeof value) ++count;
  }
  std::atomic<int> count{0};
  std::atomic<int> late{0};
  std::atomic<bool> ended{false};

 private:
  int fd_;
};

// A transport whose events are counted by hand.
class HandSource : public Source {
 public:
  int fd() const override { return event.get(); }
  unsigned progress() override {
    ++polls;
    const unsigned taken = pending.exchange(0);
    events += taken;
    return taken;
  }
  bool arm() override {
    ++armed;
    std::uint64_t drained = 0;
    const ssize_t ignored = ::read(event.get(), &drained, sizeof drained);
    static_cast<void>(ignored);
    return pending == 0;
  }
  bool driven() const override { return somebody_drives; }

  void add() {
    ++pending;
    signal(event);
  }

  Fd event = new_event();
  std::atomic<unsigned> pending{0};
  std::atomic<unsigned> events{0};
  std::atomic<unsigned> polls{0};
  std::atomic<unsigned> armed{0};
  std::atomic<bool> somebody_drives{false};
};

}  // namespace

TEST(progress_watches_descriptors) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  const Fd event = new_event();
  auto counter = std::make_shared<Counter>(event.get());
  REQUIRE(progress.watch(event.get(), EPOLLIN, counter).ok());
  for (int i = 1; i <= 20; ++i) {
    signal(event);
    CHECK(eventually([&] { return counter->count == i; }));
  }
  progress.unwatch(event.get());
  progress.unwatch(event.get());
  signal(event);
  std::atomic<bool> ran{false};
  progress.post([&] { ran = true; });
  CHECK(eventually([&] { return ran.load(); }));
  CHECK_EQ(counter->count, 20);
  CHECK_EQ(counter.use_count(), 1);
  CHECK(!progress.watch(-1, EPOLLIN, counter).ok());
  CHECK_EQ(counter.use_count(), 1);
}

// Once unwatch() has returned the callback does not run any more, whichever thread asked.
TEST(progress_unwatch_waits_for_the_callback) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  std::atomic<int> late{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        const Fd event = new_event();
        auto counter = std::make_shared<Counter>(event.get());
        if (!progress.watch(event.get(), EPOLLIN, counter).ok()) ++late;
        signal(event);
        if (round % 3 == 0) std::this_thread::yield();
        progress.unwatch(event.get());
        counter->ended = true;
        signal(event);
        late += counter->late;
        if (counter.use_count() != 1) ++late;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(late, 0);
}

TEST(progress_unwatch_from_the_callback_itself) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  class Once : public Watcher {
   public:
    Once(Progress& p, int fd) : progress_(p), fd_(fd) {}
    void on_ready(std::uint32_t) override {
      ++calls;
      progress_.unwatch(fd_);
    }
    std::atomic<int> calls{0};

   private:
    Progress& progress_;
    int fd_;
  };
  const Fd event = new_event();
  auto once = std::make_shared<Once>(progress, event.get());
  REQUIRE(progress.watch(event.get(), EPOLLIN, once).ok());
  signal(event);
  CHECK(eventually([&] { return once.use_count() == 1; }));
  CHECK_EQ(once->calls, 1);
}

TEST(progress_jobs_run_in_order_on_its_thread) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  CHECK(!progress.on_thread());
  std::atomic<int> wrong{0}, ran{0};
  for (int i = 0; i < 500; ++i) {
    progress.post([&, i] {
      if (ran != i || !progress.on_thread()) ++wrong;
      ++ran;
    });
  }
  CHECK(eventually([&] { return ran == 500; }));
  CHECK_EQ(wrong, 0);
}

TEST(progress_a_job_may_post_another) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  std::atomic<int> depth{0};
  std::function<void()> deeper = [&] {
    if (++depth < 50) progress.post(deeper);
  };
  progress.post(deeper);
  CHECK(eventually([&] { return depth == 50; }));
  progress.stop();
}

TEST(progress_timers_repeat_until_they_say_no) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  std::atomic<int> often{0}, few{0};
  progress.every(kMillisecond, [&] { return ++few < 3; });
  progress.every(kMillisecond, [&] {
    ++often;
    return true;
  });
  CHECK(eventually([&] { return often >= 20; }));
  CHECK_EQ(few, 3);
  progress.stop();
  const int then = often;
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK_EQ(often, then);
}

// A peer must not be able to end the process by what serving it needs.
TEST(progress_survives_what_callbacks_throw) {
  Progress progress({});
  REQUIRE(progress.start().ok());
  std::atomic<int> after{0};
  progress.post([] { throw std::bad_alloc(); });
  progress.every(kMillisecond, [&]() -> bool {
    if (++after < 3) throw std::runtime_error("a test's own");
    return false;
  });
  CHECK(eventually([&] { return after == 3; }));
}

// Closing connections is posted just before the end.
TEST(progress_stop_runs_what_was_posted) {
  for (int round = 0; round < 50; ++round) {
    Progress progress({});
    REQUIRE(progress.start().ok());
    std::atomic<int> ran{0};
    for (int i = 0; i < 10; ++i)
      progress.post([&] {
        ++ran;
        progress.post([&] { ++ran; });
      });
    progress.stop();
    CHECK_EQ(ran, 20);
    auto dropped = std::make_shared<int>(0);
    progress.post([dropped] { ++*dropped; });
    progress.every(kMillisecond, [dropped] { return true; });
    CHECK_EQ(dropped.use_count(), 1);
  }
}

TEST(progress_stop_lets_go_of_watchers) {
  const Fd event = new_event();
  auto counter = std::make_shared<Counter>(event.get());
  Progress progress({});
  REQUIRE(progress.start().ok());
  REQUIRE(progress.watch(event.get(), EPOLLIN, counter).ok());
  progress.stop();
  progress.stop();
  CHECK_EQ(counter.use_count(), 1);
}

TEST(progress_used_by_others_while_it_stops) {
  for (int round = 0; round < 30; ++round) {
    Progress progress({});
    REQUIRE(progress.start().ok());
    std::atomic<bool> over{false};
    std::vector<std::thread> users;
    for (int t = 0; t < 2; ++t) {
      users.emplace_back([&] {
        const Fd event = new_event();
        auto counter = std::make_shared<Counter>(event.get());
        while (!over) {
          progress.post([] {});
          static_cast<void>(progress.watch(event.get(), EPOLLIN, counter));
          static_cast<void>(progress.on_thread());
          progress.unwatch(event.get());
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    progress.stop();
    over = true;
    for (auto& user : users) user.join();
  }
}

TEST(progress_sources_are_polled_and_armed) {
  HandSource source;
  Progress progress({});
  REQUIRE(progress.start().ok());
  REQUIRE(progress.add(&source).ok());
  for (unsigned i = 1; i <= 20; ++i) {
    source.add();
    CHECK(eventually([&] { return source.events == i; }));
    if (i % 5 == 0) CHECK(eventually([&] { return source.armed > 0; }));
    if (i % 5 == 0) source.armed = 0;
  }
  progress.remove(&source);
  const unsigned polls = source.polls;
  source.add();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK_EQ(source.polls, polls);
}

TEST(progress_stays_away_from_a_driven_source) {
  HandSource source;
  source.somebody_drives = true;
  Progress progress({});
  REQUIRE(progress.start().ok());
  REQUIRE(progress.add(&source).ok());
  source.add();
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK_EQ(source.polls, 0u);
  source.somebody_drives = false;
  CHECK(eventually([&] { return source.events == 1; }));
  progress.remove(&source);
}

TEST(progress_sleeps_when_there_is_nothing_to_do) {
  HandSource source;
  Progress progress({});
  REQUIRE(progress.start().ok());
  REQUIRE(progress.add(&source).ok());
  CHECK(eventually([&] { return source.armed > 0; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const unsigned before = source.polls;
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  // The safety net looks five times a second.
  CHECK(source.polls - before < 20);
  progress.remove(&source);
}

TEST(progress_removing_a_source_waits_for_it) {
  Progress progress({ProgressMode::polling, 0});
  REQUIRE(progress.start().ok());
  for (int round = 0; round < 200; ++round) {
    auto source = std::make_unique<HandSource>();
    REQUIRE(progress.add(source.get()).ok());
    source->add();
    progress.remove(source.get());
    source.reset();  // a poll from here on would be of freed memory
  }
}

TEST(progress_of_a_forked_child_is_the_parents) {
  auto progress = std::make_unique<Progress>(Progress::Options{});
  REQUIRE(progress->start().ok());
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    progress->stop();
    progress.reset();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  std::atomic<bool> ran{false};
  progress->post([&] { ran = true; });
  CHECK(eventually([&] { return ran.load(); }));
}
