#pragma once
// The one thread that serves a process: it sleeps in epoll, spins for a few microseconds after
// activity, and stays away from a transport that a waiting caller drives itself.

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/guarded_fd.h"
#include "base/status.h"

namespace pshpc::fabric {

// A descriptor with something to do when it is ready (sockets).
class Watcher {
 public:
  virtual ~Watcher() = default;
  // On the progress thread. Must not block.
  virtual void on_ready(std::uint32_t epoll_events) = 0;
};

// A transport that is progressed by polling and can wake a sleeper through a descriptor (UCX).
class Source {
 public:
  virtual ~Source() = default;
  virtual int fd() const = 0;
  // Handles what there is without blocking; the number of events, 0 when idle. Any thread.
  virtual unsigned progress() = 0;
  // Before sleeping: false if something arrived meanwhile (progress again), else fd() will become
  // readable with the next event.
  virtual bool arm() = 0;
  // A caller drives it now, or did so until a moment ago: the thread leaves it alone and looks
  // again soon.
  virtual bool driven() const = 0;
};

enum class ProgressMode {
  adaptive,  // spin shortly after activity, then sleep: no CPU when idle
  polling,   // never sleep: for jobs that give a core away
};

class Progress {
 public:
  struct Options {
    ProgressMode mode = ProgressMode::adaptive;
    Nanoseconds spin = 100 * kMicrosecond;
  };

  explicit Progress(Options options);
  virtual ~Progress();  // stops

  Status start();
  // Runs what was posted so far, then joins the thread: no callback runs any more when it returns,
  // and what is posted later is dropped. Not from a callback.
  void stop();

  // Any thread. Once unwatch() has returned the watcher is not called again, so the caller must not
  // hold a lock that its callback takes.
  Status watch(int fd, std::uint32_t events, std::shared_ptr<Watcher> watcher);
  Status rewatch(int fd, std::uint32_t events);
  void unwatch(int fd);

  // Virtual, since a door of another extension module knows this class only by its vtable.
  virtual Status add(Source* source);
  virtual void remove(Source* source);
  // A caller does not drive its transport any more: if the thread rests meanwhile, it wakes up.
  virtual void take_over();

  // Runs `job` on the progress thread, soon. Any thread.
  void post(std::function<void()> job);
  // Runs `job` on the progress thread every `period` for as long as it returns true. Any thread.
  void every(Nanoseconds period, std::function<bool()> job);

  bool on_thread() const { return std::this_thread::get_id() == thread_id_.load(); }

 private:
  struct Timer {
    Nanoseconds next;
    Nanoseconds period;
    std::function<bool()> job;
  };

  void run();
  const std::vector<Source*>& polled();
  unsigned poll_sources();
  bool poll_again();
  enum class Rest { awake, soon, until_event };
  void listen_once(int fd);
  Rest arm_sources();
  unsigned run_jobs();
  void call(const std::function<void()>& job);
  Nanoseconds run_timers();
  unsigned dispatch_ready(Nanoseconds timeout);
  void wait_for_callbacks();
  void wake();

  Options options_;
  GuardedFd epoll_;
  GuardedFd wake_;
  std::thread thread_;
  std::atomic<std::thread::id> thread_id_{};  // as others may ask while stop() joins
  std::atomic<bool> stopping_{false};
  std::atomic<bool> resting_{false};  // as a caller drives

  std::mutex mutex_;  // everything up to dispatch_
  bool stopped_ = false;
  std::map<int, std::shared_ptr<Watcher>> watchers_;
  std::vector<Source*> sources_;
  std::atomic<std::uint32_t> sources_version_{0};
  std::vector<std::function<void()>> jobs_;
  std::atomic<bool> has_jobs_{false};
  std::vector<Timer> timers_;
  std::mutex
      dispatch_;  // held while callbacks run, so that unwatch() and remove() can wait for them

  // Of the thread: what it polls.
  std::vector<Source*> polled_;
  std::uint32_t polled_version_ = 0;
};

}  // namespace pshpc::fabric
