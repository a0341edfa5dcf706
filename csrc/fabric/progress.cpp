#include "fabric/progress.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/relax.h"

namespace pshpc::fabric {
namespace {

// How soon to look again at a transport that a caller drives.
constexpr Nanoseconds kDrivenPause = 200 * kMicrosecond;
// A yield that took so long gave the processor away.
constexpr Nanoseconds kContendedYield = 200 * kMicrosecond;
// Polls between two looks at sockets and timers.
constexpr unsigned kTurnsPerLook = 16;
// Polls that see nothing before the processor is offered to others, which costs more than a poll.
constexpr unsigned kPollsPerYield = 8;
// A missed wake-up costs at most this.
constexpr Nanoseconds kSafetyNet = 200 * kMillisecond;

timespec to_timespec(Nanoseconds t) {
  return {static_cast<time_t>(t / kSecond), static_cast<long>(t % kSecond)};
}

int wait_for_events(int epoll, epoll_event* events, int count, Nanoseconds timeout) {
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 35)
  const timespec span = to_timespec(timeout);
  const int n = ::epoll_pwait2(epoll, events, count, &span, nullptr);
  // Older kernels do not have it, older container run-times forbid it (EPERM).
  if (n >= 0 || errno == EINTR) return n;
#endif
#endif
  const Nanoseconds ms = (timeout + kMillisecond - 1) / kMillisecond;
  return ::epoll_wait(epoll, events, count, static_cast<int>(ms));
}

}  // namespace

Progress::Progress(Options options) : options_(options) {}

Progress::~Progress() { stop(); }

Status Progress::start() {
  epoll_ = GuardedFd(Fd(::epoll_create1(EPOLL_CLOEXEC)));
  if (!epoll_) return system_error("creating the progress thread's epoll");
  wake_ = GuardedFd(Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  if (!wake_) return system_error("creating the progress thread's eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake_.get();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0)
    return system_error("watching the progress thread's eventfd");
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    return system_error("starting the progress thread", error.code().value());
  }
  return {};
}

void Progress::stop() {
  if (!thread_.joinable()) return;
  if (!epoll_) {  // a forked child: the thread exists in the parent only
    thread_.detach();
    return;
  }
  stopping_ = true;
  wake();
  thread_.join();
  std::map<int, std::shared_ptr<Watcher>> watchers;
  std::vector<Timer> timers;
  std::vector<std::function<void()>> jobs;
  // What they hold ends outside the lock.
  std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  watchers.swap(watchers_);
  timers.swap(timers_);
  jobs.swap(jobs_);
}

Status Progress::watch(int fd, std::uint32_t events, std::shared_ptr<Watcher> watcher) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    watchers_[fd] = std::move(watcher);
  }
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return {};
  const Status failed = system_error("watching a descriptor");
  std::lock_guard<std::mutex> lock(mutex_);
  watchers_.erase(fd);
  return failed;
}

Status Progress::rewatch(int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0) return {};
  return system_error("changing what a descriptor is watched for");
}

void Progress::unwatch(int fd) {
  std::shared_ptr<Watcher> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = watchers_.find(fd);
    if (found == watchers_.end()) return;
    dropped = std::move(found->second);
    watchers_.erase(found);
  }
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  wait_for_callbacks();
}

Status Progress::add(Source* source) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  event.data.fd = source->fd();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, source->fd(), &event) != 0)
    return system_error("watching a transport");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    sources_.push_back(source);
    ++sources_version_;
  }
  wake();
  return {};
}

void Progress::remove(Source* source) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    sources_.erase(std::remove(sources_.begin(), sources_.end(), source), sources_.end());
    ++sources_version_;
  }
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, source->fd(), nullptr);
  wait_for_callbacks();
}

void Progress::take_over() {
  if (resting_.load()) wake();
}

void Progress::post(std::function<void()> job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    jobs_.push_back(std::move(job));
    has_jobs_ = true;
  }
  wake();
}

void Progress::every(Nanoseconds period, std::function<bool()> job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    timers_.push_back({now() + period, period, std::move(job)});
  }
  wake();
}

void Progress::wait_for_callbacks() {
  if (!on_thread()) std::lock_guard<std::mutex> lock(dispatch_);
}

void Progress::wake() {
  const std::uint64_t one = 1;
  const ssize_t ignored = ::write(wake_.get(), &one, sizeof one);
  static_cast<void>(ignored);
}

void Progress::run() {
  thread_id_ = std::this_thread::get_id();
  Nanoseconds last_event = now();
  unsigned turn = 0;
  while (!stopping_.load(std::memory_order_relaxed)) {
    unsigned handled = run_jobs() + poll_sources();
    // Looking at sockets and timers costs more than polling does.
    const bool look_around = turn++ % kTurnsPerLook == 0;
    Nanoseconds until_timer = kSecond;
    if (look_around) {
      handled += dispatch_ready(0);
      until_timer = run_timers();
    }
    const Nanoseconds before = now();
    if (handled > 0) last_event = before;
    if (handled > 0 || options_.mode == ProgressMode::polling) continue;

    const bool any_source = sources_version_.load(std::memory_order_relaxed) != 0;
    // Sockets wake a sleeper at once; only a polled transport gains from a spin.
    if (any_source && before - last_event < options_.spin) {
      if (poll_again()) {
        last_event = now();
        continue;
      }
      ::sched_yield();
      // Somebody else wants the processor: who sleeps and wakes up gets it back sooner.
      if (now() - before > kContendedYield) last_event = 0;
      continue;
    }
    // Not to sleep past a timer or a socket.
    if (!look_around) {
      turn = 0;
      continue;
    }
    const Rest rest = arm_sources();
    if (rest == Rest::awake) continue;
    const Nanoseconds longest = rest == Rest::soon ? kDrivenPause : kSafetyNet;
    resting_ = rest == Rest::soon;
    if (dispatch_ready(any_source ? std::min(until_timer, longest) : until_timer) > 0)
      last_event = now();
    resting_ = false;
  }
  // Closing connections is posted: their peers are to learn of it now.
  while (run_jobs() > 0) {
  }
}

unsigned Progress::run_jobs() {
  if (!has_jobs_.load(std::memory_order_acquire)) return 0;
  std::vector<std::function<void()>> jobs;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs.swap(jobs_);
    has_jobs_ = false;
  }
  std::lock_guard<std::mutex> dispatching(dispatch_);
  for (auto& job : jobs) call(job);
  return static_cast<unsigned>(jobs.size());
}

// What a callback throws, such as for want of memory, would end the process here.
void Progress::call(const std::function<void()>& job) {
  try {
    job();
  } catch (const std::exception& error) {
    log_warn_once(std::string("something went wrong while serving others: ") + error.what());
  }
}

// While dispatch_ is held.
const std::vector<Source*>& Progress::polled() {
  if (polled_version_ != sources_version_.load(std::memory_order_acquire)) {
    std::lock_guard<std::mutex> lock(mutex_);
    polled_ = sources_;
    polled_version_ = sources_version_;
  }
  return polled_;
}

unsigned Progress::poll_sources() {
  std::lock_guard<std::mutex> dispatching(dispatch_);
  unsigned events = 0;
  for (Source* source : polled())
    if (!source->driven()) events += source->progress();
  return events;
}

bool Progress::poll_again() {
  for (unsigned i = 1; i < kPollsPerYield; ++i) {
    relax();
    if (poll_sources() > 0) return true;
  }
  return false;
}

// One wake-up per arming: a transport that a caller drives meanwhile must not wake this thread with
// every packet.
void Progress::listen_once(int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  event.data.fd = fd;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

Progress::Rest Progress::arm_sources() {
  std::lock_guard<std::mutex> dispatching(dispatch_);
  Rest rest = Rest::until_event;
  for (Source* source : polled()) {
    if (source->driven())
      rest = Rest::soon;
    else if (!source->arm())
      return Rest::awake;
    else
      listen_once(source->fd());
  }
  return rest;
}

Nanoseconds Progress::run_timers() {
  std::vector<Timer> due;
  Nanoseconds nearest = kSecond;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Nanoseconds time = now();
    for (std::size_t i = 0; i < timers_.size();) {
      if (timers_[i].next <= time) {
        due.push_back(std::move(timers_[i]));
        timers_.erase(timers_.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        nearest = std::min(nearest, timers_[i].next - time);
        ++i;
      }
    }
  }
  if (due.empty()) return nearest;
  std::lock_guard<std::mutex> dispatching(dispatch_);
  for (Timer& timer : due) {
    bool again = true;
    call([&] { again = timer.job(); });
    if (!again) continue;
    timer.next = now() + timer.period;
    nearest = std::min(nearest, timer.period);
    std::lock_guard<std::mutex> lock(mutex_);
    timers_.push_back(std::move(timer));
  }
  return nearest;
}

unsigned Progress::dispatch_ready(Nanoseconds timeout) {
  std::array<epoll_event, 32> events;
  const int count =
      wait_for_events(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
  unsigned handled = 0;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.fd == wake_.get()) {
      std::uint64_t drained;
      const ssize_t ignored = ::read(wake_.get(), &drained, sizeof drained);
      static_cast<void>(ignored);
      continue;
    }
    std::lock_guard<std::mutex> dispatching(dispatch_);
    std::shared_ptr<Watcher> watcher;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = watchers_.find(event.data.fd);
      if (found != watchers_.end()) watcher = found->second;
    }
    // A transport's descriptor has no watcher: it wakes the sleeper, and progress() tells how much
    // there was to do. It stays readable until the transport is armed again.
    if (!watcher) continue;
    call([&] { watcher->on_ready(event.events); });
    ++handled;
  }
  return handled;
}

}  // namespace pshpc::fabric
