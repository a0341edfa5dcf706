#include "fabric/mpi/door.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/fork_guard.h"
#include "base/log.h"
#include "base/wire.h"
#include "fabric/mpi/alone.h"
#include "fabric/mpi/channel.h"

namespace pshpc::fabric::mpi {
namespace {

// Looks at the network between two at the bells while requests are tested, which progress MPI too.
constexpr unsigned kPollsPerProbe = 8;
constexpr unsigned kProbesPerWake = 4;
constexpr unsigned kPollsPerYield = 8;
constexpr unsigned kPollsPerStreams = 64;
constexpr Nanoseconds kShortestSleep = 50 * kMicrosecond;
// A yield that took so long gave the processor away: who sleeps and wakes up gets it back sooner
// than who goes on yielding.
constexpr Nanoseconds kContendedYield = 200 * kMicrosecond;
constexpr Nanoseconds kContendedPause = 20 * kMillisecond;
// How long the end of a door waits for what is on its way.
constexpr Nanoseconds kCloseTime = 500 * kMillisecond;

}  // namespace

Status MpiDoor::closed_here() { return {Code::peer_lost, "the mpi door was closed on this side"}; }

MpiDoor::MpiDoor(const Port& port, const Options& options)
    : port_(port),
      options_(options),
      birth_(fork_generation()),
      maker_(std::this_thread::get_id()),
      drive_(*this, kPollsPerYield),
      next_token_(first_token(port.job)),
      flights_(port.api),
      mailbox_(port_, flights_, *this),
      attachments_(port_) {}

MpiDoor::~MpiDoor() {
  stop();
  flights_.leave();
}

Expected<std::shared_ptr<MpiDoor>> MpiDoor::create(const Port& port, const Options& options) {
  if (port.base == nullptr || port.locked == nullptr || port.ranks < 1 || port.rank < 0 ||
      port.rank >= port.ranks || port.ranks >= (1 << 24) - 1)
    return Status(Code::invalid, "the mpi door needs windows and a rank in them");
  if (port.threads == ThreadLevel::one_at_a_time) Alone::begin();
  std::shared_ptr<MpiDoor> door(new MpiDoor(port, options));
  door->timer_ = GuardedFd(Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)));
  if (!door->timer_) return system_error("creating the timer of the mpi door");
  door->watched_ = GuardedFd(Fd(::epoll_create1(EPOLL_CLOEXEC)));
  if (!door->watched_ || !door->watch(door->timer_.get()))
    return system_error("watching the timer of the mpi door");
  door->node_bells_.use(door->watched_.get());
  std::memset(port.base, 0, kSlotsAt);
  const Status synced = port.api->check(port.api->win_sync(port.messages), "MPI_Win_sync");
  if (!synced.ok()) return synced;
  return door;
}

Status MpiDoor::start(Progress& progress, Receiver& receiver) {
  receiver_ = &receiver;
  stopped_ = false;
  std::lock_guard<std::mutex> lock(mutex_);
  // Where another thread may not call MPI, the callers alone do.
  if (!in_background()) return {};
  const Status added = progress.add(this);
  if (added.ok()) progress_ = &progress;
  return added;
}

void MpiDoor::stop() {
  if (birth_ != fork_generation() || stopped_.exchange(true)) return;
  Progress* progress = nullptr;
  std::vector<std::shared_ptr<Lane>> lanes;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    progress = std::exchange(progress_, nullptr);
    for (auto& [token, lane] : lanes_) lanes.push_back(lane);
  }
  if (progress != nullptr) progress->remove(this);
  // Farewells go out, and what peers still fetch from here.
  const bool usable = may_call() && port_.api->usable();
  const Deadline deadline = Deadline::after(usable ? kCloseTime : 0);
  for (bool first = true;; first = false) {
    {
      const MpiTurn turn(turn_);
      if (!turn) {
        ::sched_yield();
        continue;
      }
      if (first)
        for (const auto& lane : lanes) {
          lane->alive = false;
          close_lane(lane);
        }
      if (usable) work();
      const bool quiet = flights_.empty() && sending_.empty() && mailbox_.quiet();
      if (!usable || quiet || deadline.passed()) {
        if (usable) {
          take_loans_back();
          attachments_.clear();
        }
        break;
      }
    }
    publish();
    ::sched_yield();
  }
  publish();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Command& command : commands_) discard(command);
    commands_.clear();
    ended_ = true;
    lanes_.clear();
    taker_ = nullptr;
  }
  publish();
  streams_.clear();
  node_bells_.clear();
  receiver_ = nullptr;
  drive_.notify();
}

bool MpiDoor::watch(int fd) const {
  epoll_event event{};
  event.events = EPOLLIN;
  return ::epoll_ctl(watched_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// Whether this thread may call MPI now.
bool MpiDoor::may_call() const {
  if (birth_ != fork_generation()) return false;
  return port_.threads != ThreadLevel::main_only || std::this_thread::get_id() == maker_;
}

// Memory.

Expected<Bytes> MpiDoor::expose(const memory::Region& region) {
  if (!may_call())
    return Status(Code::unavailable,
                  "MPI was started for its main thread only, and this is another: register memory "
                  "there, or start MPI with MPI_THREAD_MULTIPLE");
  const Bytes handle = WireWriter()
                           .put(static_cast<std::uint32_t>(port_.rank))
                           .put(reinterpret_cast<std::uint64_t>(region.span.data))
                           .put(static_cast<std::uint64_t>(region.span.size))
                           .take();
  for (;;) {
    const MpiTurn turn(turn_);
    if (!turn) {
      ::sched_yield();
      continue;
    }
    if (stopped_) return closed_here();
    const Status added = attachments_.add(region);
    if (!added.ok()) return added;
    return handle;
  }
}

void MpiDoor::withdraw(std::uint32_t region_id) {
  if (!may_call()) return;
  for (;;) {
    const MpiTurn turn(turn_);
    if (!turn) {
      ::sched_yield();
      continue;
    }
    if (!stopped_) attachments_.remove(region_id);
    return;
  }
}

// Channels.

Bytes MpiDoor::address() const {
  return WireWriter()
      .put_tag(port_.job)
      .put(static_cast<std::uint32_t>(port_.rank))
      .put(static_cast<std::uint8_t>(in_background()))
      .take();
}

Expected<Offer> MpiDoor::offer(const Peer& peer) {
  if (stopped_) return closed_here();
  Offer ours = answer();
  if (!peer.on_node || !in_background()) return ours;
  Fd mine, theirs;
  const Status made = NodeBells::make(&mine, &theirs);
  if (!made.ok()) return made;
  ours.fds.emplace_back(std::move(theirs));
  ours.prepared = std::make_shared<GuardedFd>(std::move(mine));
  return ours;
}

Offer MpiDoor::answer() {
  Offer ours;
  ours.address = address();
  std::lock_guard<std::mutex> lock(mutex_);
  ours.token = next_token_++;
  return ours;
}

Expected<Door::Accepted> MpiDoor::accept(const Peer&, Offer theirs) {
  if (stopped_) return closed_here();
  Offer ours = answer();
  GuardedFd bell;
  if (!theirs.fds.empty()) bell = std::move(theirs.fds.front());
  auto channel = add_lane(theirs.address, ours.token, theirs.token, std::move(bell));
  if (!channel) return channel.status();
  return Accepted{std::move(channel).value(), std::move(ours)};
}

Expected<std::shared_ptr<Channel>> MpiDoor::connect(const Peer&, Offer ours, Offer answer) {
  GuardedFd bell;
  if (ours.prepared) bell = std::move(*std::static_pointer_cast<GuardedFd>(ours.prepared));
  return add_lane(answer.address, ours.token, answer.token, std::move(bell));
}

Expected<std::shared_ptr<Channel>> MpiDoor::add_lane(ConstSpan address, std::uint64_t local,
                                                     std::uint64_t remote, GuardedFd bell) {
  WireReader reader(address);
  const Tag job = reader.get_tag();
  const auto rank = reader.get<std::uint32_t>();
  const bool serves = reader.get<std::uint8_t>() != 0;
  if (!reader.at_end()) return Status(Code::protocol, "not an address of an mpi door");
  if (job != port_.job || rank >= static_cast<std::uint32_t>(port_.ranks))
    return Status(Code::unavailable, "the peer is no rank of this communicator");
  auto lane =
      std::make_shared<Lane>(static_cast<int>(rank), serves && in_background(), local, remote);
  auto channel = std::make_shared<MpiChannel>(shared_from_this(), lane);
  lane->channel = channel;
  if (bell && lane->both_serve) node_bells_.add(lane->rank, local, std::move(bell));
  std::lock_guard<std::mutex> lock(mutex_);
  lanes_[local] = std::move(lane);
  return std::shared_ptr<Channel>(std::move(channel));
}

// What others want done.

void MpiDoor::submit(Command command) {
  if (try_at_once(command)) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ended_) {
      discard(command);
    } else {
      commands_.push_back(std::move(command));
      has_commands_ = true;
    }
  }
  if (try_progress() == 0) publish_and_wake();
  nudge();
}

// Nobody is left to do it.
void MpiDoor::discard(Command& command) {
  if (command.kind == Kind::fetch) return tell_of(command.fetch, closed_here());
  complete(command.operation, closed_here());
}

// Without the queue, if nobody else is at it: what MPI does at once is then done.
bool MpiDoor::try_at_once(Command& command) {
  if (!may_call()) return false;
  const bool awaited = command.operation != nullptr && command.operation->awaited();
  bool under_way = false;
  {
    const MpiTurn turn(turn_);
    if (!turn || stopped_ || has_commands_.load(std::memory_order_relaxed)) return false;
    begin(command);
    if (!sending_.empty()) pump();
    flights_.poll();
    under_way = !flights_.empty() || !sending_.empty() || !streams_.empty();
  }
  // Somebody may have been sent away meanwhile.
  if (has_commands_.load(std::memory_order_seq_cst)) {
    if (try_progress() == 0) publish_and_wake();
  } else {
    publish_and_wake();
  }
  if (under_way && !awaited) nudge();
  return true;
}

// Nobody may wait for what was begun: the thread looks soon, unless a caller drives meanwhile.
void MpiDoor::nudge() {
  if (!armed_.exchange(false)) return;
  nudged_ = true;
  wake_after(kShortestSleep);
}

void MpiDoor::tell(News news) {
  std::lock_guard<std::mutex> lock(news_mutex_);
  news_.push_back(std::move(news));
  has_news_ = true;
}

void MpiDoor::complete(Operation* operation, const Status& status) {
  if (operation == nullptr) return;
  News news;
  news.operation = operation;
  news.status = status;
  tell(std::move(news));
}

unsigned MpiDoor::run_commands() {
  if (!has_commands_.load(std::memory_order_acquire)) return 0;
  std::deque<Command> commands;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    commands.swap(commands_);
    has_commands_ = false;
  }
  for (Command& command : commands) begin(command);
  return static_cast<unsigned>(commands.size());
}

void MpiDoor::begin(Command& command) {
  if (command.kind == Kind::close) return close_lane(command.lane);
  // Also where the connection is closed: the sender waits for it.
  if (command.kind == Kind::fetch) return fetch(command.fetch);
  if (!command.lane->alive.load())
    return complete(command.operation, {Code::peer_lost, "the connection was closed"});
  if (command.kind == Kind::stream) {
    if (!watch(command.lane->stream->fd())) {
      if (command.lane->alive.exchange(false)) close_lane(command.lane);
      return;
    }
    streams_.push_back(command.lane);
    look_at_streams_ = true;
    if (!command.message) return;
  } else if (command.kind != Kind::send) {
    return move(command);
  }
  command.lane->outgoing.push_back(std::move(command.message));
  list(command.lane);
}

// Progress.

unsigned MpiDoor::work() {
  unsigned events = run_commands();
  events += flights_.poll();
  // What is being moved comes before what may come besides.
  const bool look_around = flights_.empty() || ++polls_ % kPollsPerProbe == 0;
  if (look_around || moving_.empty()) events += mailbox_.poll();
  if (!streams_.empty() &&
      (look_at_streams_.exchange(false) || ++streams_at_ % kPollsPerStreams == 0))
    events += pump_streams();
  if (!sending_.empty()) events += pump();
  if (look_around) {
    events += listen();
    keep_peers_awake();
  }
  return events;
}

unsigned MpiDoor::try_progress() {
  if (!may_call()) return 0;
  unsigned events = 0;
  do {
    const MpiTurn turn(turn_);
    if (!turn || stopped_) break;
    events += work();
  } while (has_commands_.load(std::memory_order_seq_cst));
  publish_and_wake();
  return events;
}

void MpiDoor::publish_and_wake() {
  if (!has_news_.load(std::memory_order_acquire)) return;
  publish();
  drive_.notify();
}

unsigned MpiDoor::progress() {
  const bool woken = armed_.exchange(false) || nudged_.exchange(false);
  if (woken) {
    look_at_streams_ = true;
    if (node_bells_.answer() > 0) heard();
  }
  Nanoseconds time = now();
  unsigned events = 0;
  for (unsigned i = 0; i < (woken ? kProbesPerWake : 1) && events == 0; ++i) {
    const Nanoseconds before = time;
    events = try_progress();
    time = now();
    if (served(time - before, time)) events = 1;
  }
  if (events > 0) {
    last_active_ = time;
  } else if (hot(time) && time >= contended_until_ && ++idle_polls_ % kPollsPerYield == 0) {
    ::sched_yield();
    if (now() - time > kContendedYield) contended_until_ = now() + kContendedPause;
  }
  return events;
}

// Then the thread polls without a pause.
bool MpiDoor::hot(Nanoseconds time) const {
  return time < heard_until_.load(std::memory_order_relaxed) ||
         time < moving_until_.load(std::memory_order_relaxed);
}

// The longer nothing happened, the longer it sleeps.
bool MpiDoor::arm() {
  if (birth_ != fork_generation()) return true;
  const Nanoseconds time = now();
  const bool hot = this->hot(time);
  if (has_commands_ || has_news_ || (hot && time >= contended_until_)) return false;
  armed_ = true;
  wake_after(hot ? kShortestSleep
                 : std::clamp((time - last_active_) / 8, kShortestSleep,
                              std::max(options_.idle, kShortestSleep)));
  return !has_commands_;
}

// Where a caller has done alone what it wanted, the thread need not wake up for it.
void MpiDoor::rest() {
  if (!nudged_.load(std::memory_order_relaxed) || has_commands_) return;
  const MpiTurn turn(turn_);
  if (!turn || !flights_.empty() || !sending_.empty() || !nudged_.exchange(false)) return;
  armed_ = true;
  wake_after(std::max(options_.idle, kShortestSleep));
}

void MpiDoor::wake_after(Nanoseconds delay) const {
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(delay / kSecond);
  when.it_value.tv_nsec = static_cast<long>(delay % kSecond);
  ::timerfd_settime(timer_.get(), 0, &when, nullptr);
}

void MpiDoor::left() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (progress_ != nullptr) progress_->take_over();
}

Status MpiDoor::wait(const Operation& operation, Deadline deadline,
                     const std::function<bool()>& interrupted) {
  if (in_background()) {
    Status waited;
    if (!drive_.wait_briefly(operation))
      waited = drive_.wait_on(operation, deadline, interrupted, moving_until_.load());
    rest();
    return waited;
  }
  // Nobody else progresses it.
  Nanoseconds pause = 0;
  while (!operation.done()) {
    if (deadline.passed()) return {Code::timed_out, "no answer by the deadline"};
    if (interrupted && interrupted()) return {Code::peer_lost, "the wait was given up"};
    if (try_progress() > 0) {
      pause = 0;
      continue;
    }
    pause = std::min<Nanoseconds>(pause + 50, 100 * kMicrosecond);
    const timespec rest{0, static_cast<long>(pause)};
    if (pause < 20 * kMicrosecond)
      ::sched_yield();
    else
      ::nanosleep(&rest, nullptr);
  }
  return {};
}

// What comes of it.

void MpiDoor::record_came(int rank, Bytes record) {
  answered(rank);
  News news;
  news.rank = rank;
  news.record = std::move(record);
  tell(std::move(news));
}

void MpiDoor::rank_failed(int rank, const Status& why) {
  log_warn_once("rank " + std::to_string(rank) + " at the mpi door: " + why.message());
  std::vector<std::shared_ptr<Lane>> broken;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [token, lane] : lanes_)
      if (lane->rank == rank) broken.push_back(lane);
    for (const auto& lane : broken) lanes_.erase(lane->local_token);
  }
  for (auto& lane : broken) {
    give_up(lane, why);
    News news;
    news.broken = std::move(lane);
    news.status = Status(Code::peer_lost, why.message());
    tell(std::move(news));
  }
}

void MpiDoor::publish() {
  while (has_news_.load(std::memory_order_acquire)) {
    if (publishing_.exchange(true)) return;  // who publishes looks again
    {
      std::lock_guard<std::mutex> lock(news_mutex_);
      published_.swap(news_);
      has_news_ = false;
    }
    for (News& news : published_) run(news);
    published_.clear();
    publishing_ = false;
  }
}

void MpiDoor::run(News& news) {
  Receiver* const receiver = receiver_.load(std::memory_order_acquire);
  if (news.sent) news.operation = news.sent->operation;
  if (news.fetched.landing) return Lane::fetched(receiver, news.fetched, news.status);
  if (news.operation != nullptr) return news.operation->complete(news.status);
  std::vector<Fetch> fetches;
  const auto fetch_all = [&] {
    for (Fetch& fetch : fetches)
      submit({Kind::fetch, nullptr, 0, {}, nullptr, nullptr, std::move(fetch)});
  };
  if (news.broken) {
    news.broken->break_off(receiver, news.status, &fetches);
    return fetch_all();
  }
  if (news.rank < 0) return;
  RecordHead head;
  std::memcpy(&head, news.record.data(), sizeof head);
  std::shared_ptr<Lane> lane;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = lanes_.find(head.token);
    if (found != lanes_.end() && found->second->rank == news.rank) lane = found->second;
  }
  if (!lane) lane = take_call(head, news);
  if (!lane) Lane::refuse(news.rank, news.record, &fetches);
  const bool good = lane && lane->deliver(receiver, head, std::move(news.record), &fetches);
  fetch_all();
  if (good) return;
  dropped_.fetch_add(1, std::memory_order_relaxed);
  // What was to be sent through it, will not be.
  if (lane) submit({Kind::close, lane, 0, {}, nullptr, nullptr, {}});
}

std::vector<std::pair<std::string, std::string>> MpiDoor::facts() const {
  const char* const levels[] = {"its main thread only", "one thread at a time", "any thread"};
  return {
      {"library", port_.api->version()},
      {"rank", std::to_string(port_.rank) + " of " + std::to_string(port_.ranks)},
      {"MPI is called by", levels[static_cast<int>(port_.threads)]},
      {"transfers are progressed by", port_.api->settings().progresses_itself ? "MPI itself"
                                      : in_background() ? "our thread, which others wake"
                                                        : "whoever calls MPI"},
      {"message window", std::to_string(kWindowSize / 1024) + " KiB"},
      {"memory attached", std::to_string(attachments_.count()) + " times"},
      {"bells on the node", std::to_string(node_bells_.count())},
      {"messages dropped", std::to_string(dropped_.load())},
  };
}

}  // namespace pshpc::fabric::mpi
