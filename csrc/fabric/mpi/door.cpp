#include "fabric/mpi/door.h"

#include <sched.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/fork_guard.h"
#include "base/log.h"
#include "base/wire.h"
#include "fabric/mpi/channel.h"

namespace pshpc::fabric::mpi {
namespace {

// A count of MPI is an int.
constexpr std::size_t kPiece = std::size_t{1} << 30;
constexpr int kBell = 1;
// A rank that was rung for is awake for so long.
constexpr Nanoseconds kBellLasts = 400 * kMicrosecond;
constexpr Nanoseconds kLongestPause = 100 * kMillisecond;
// Looks at the network between two at the bells while requests are tested, which progress MPI too.
constexpr unsigned kPollsPerProbe = 4;
constexpr unsigned kProbesPerWake = 4;
constexpr unsigned kPollsPerYield = 8;
// A transfer slower than this is one that nobody helps along.
constexpr std::size_t kBytesPerNanosecondInverse = 4;
constexpr Nanoseconds kShortestSleep = 50 * kMicrosecond;
// A yield that took so long gave the processor away: who sleeps and wakes up gets it back sooner
// than who goes on yielding.
constexpr Nanoseconds kContendedYield = 200 * kMicrosecond;
constexpr Nanoseconds kContendedPause = 20 * kMillisecond;
// How long the end of a door waits for what is on its way.
constexpr Nanoseconds kCloseTime = 500 * kMillisecond;

Status closed_here() { return {Code::peer_lost, "the mpi door was closed on this side"}; }

}  // namespace

MpiDoor::MpiDoor(const Port& port, const Options& options)
    : port_(port),
      options_(options),
      birth_(fork_generation()),
      maker_(std::this_thread::get_id()),
      drive_(*this, kPollsPerYield),
      flights_(port.api),
      mailbox_(port_, flights_, *this),
      attachments_(port_) {}

MpiDoor::~MpiDoor() { stop(); }

Expected<std::shared_ptr<MpiDoor>> MpiDoor::create(const Port& port, const Options& options) {
  if (port.base == nullptr || port.ranks < 1 || port.rank < 0 || port.rank >= port.ranks ||
      port.ranks >= (1 << 24) - 1)
    return Status(Code::invalid, "the mpi door needs windows and a rank in them");
  std::shared_ptr<MpiDoor> door(new MpiDoor(port, options));
  door->timer_ = GuardedFd(Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)));
  if (!door->timer_) return system_error("creating the timer of the mpi door");
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
      const Turn turn(turn_);
      if (!turn) {
        ::sched_yield();
        continue;
      }
      if (first)
        for (const auto& lane : lanes)
          if (lane->alive.exchange(false)) close_lane(lane);
      if (usable) work();
      const bool quiet = flights_.empty() && sending_.empty() && mailbox_.quiet();
      if (!usable || quiet || deadline.passed()) {
        if (usable) attachments_.clear();
        break;
      }
    }
    publish();
    ::sched_yield();
  }
  publish();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Command& command : commands_) complete(command.operation, closed_here());
    commands_.clear();
    lanes_.clear();
  }
  publish();
  receiver_ = nullptr;
  drive_.notify();
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
    const Turn turn(turn_);
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
    const Turn turn(turn_);
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

Expected<Offer> MpiDoor::offer(const Peer&) {
  if (stopped_) return closed_here();
  Offer ours;
  ours.address = address();
  std::lock_guard<std::mutex> lock(mutex_);
  ours.token = next_token_++;
  return ours;
}

Expected<Door::Accepted> MpiDoor::accept(const Peer& peer, Offer theirs) {
  auto answer = offer(peer);
  if (!answer) return answer.status();
  auto channel = add_lane(theirs.address, answer->token, theirs.token);
  if (!channel) return channel.status();
  return Accepted{std::move(channel).value(), std::move(answer).value()};
}

Expected<std::shared_ptr<Channel>> MpiDoor::connect(const Peer&, Offer ours, Offer answer) {
  return add_lane(answer.address, ours.token, answer.token);
}

Expected<std::shared_ptr<Channel>> MpiDoor::add_lane(ConstSpan address, std::uint64_t local,
                                                     std::uint64_t remote) {
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
  std::lock_guard<std::mutex> lock(mutex_);
  lanes_[local] = std::move(lane);
  return std::shared_ptr<Channel>(std::move(channel));
}

// What others want done.

void MpiDoor::submit(Command command) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    commands_.push_back(std::move(command));
    has_commands_ = true;
  }
  if (try_progress() == 0) publish();
  // Nobody may wait for it: soon, unless a caller drives meanwhile.
  if (armed_.exchange(false)) {
    nudged_ = true;
    wake_after(kShortestSleep);
  }
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
  if (!command.lane->alive.load())
    return complete(command.operation, {Code::peer_lost, "the connection was closed"});
  if (command.kind != Kind::send) return move(command);
  command.lane->outgoing.push_back(std::move(command.message));
  list(command.lane);
}

void MpiDoor::move(Command& command) {
  const Api& api = *port_.api;
  const int rank = command.lane->rank;
  ring(rank);
  auto transfer = std::make_shared<Transfer>();
  transfer->lane = command.lane;
  transfer->operation = command.operation;
  transfer->writes = command.kind == Kind::write;
  transfer->pieces = std::max<std::size_t>((command.span.size + kPiece - 1) / kPiece, 1);
  ++moving_[rank];
  const auto patience = static_cast<Nanoseconds>(command.span.size * kBytesPerNanosecondInverse);
  hot_until_ = std::max(hot_until_.load(), now() + options_.hot + patience);
  const std::size_t pieces = transfer->pieces;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t at = i * kPiece;
    std::uint8_t* const here = command.span.data + at;
    const int size = static_cast<int>(std::min(kPiece, command.span.size - at));
    const Aint there = command.address + static_cast<Aint>(at);
    const auto post = [&](Flights::Flight& flight) {
      return transfer->writes ? api.rput(here, size, api.constants.byte, rank, there, size,
                                         api.constants.byte, port_.memory, &flight.request)
                              : api.rget(here, size, api.constants.byte, rank, there, size,
                                         api.constants.byte, port_.memory, &flight.request);
    };
    flights_.start(
        transfer->writes ? "writing memory" : "reading memory", post,
        [this, transfer](const Status& status, std::uint64_t) { piece_done(transfer, status); });
  }
}

void MpiDoor::piece_done(const std::shared_ptr<Transfer>& transfer, const Status& status) {
  if (!status.ok()) transfer->status = status;
  if (--transfer->pieces > 0) return;
  const int rank = transfer->lane->rank;
  bells_[rank].pause = kBellLasts;
  const auto moving = moving_.find(rank);
  if (--moving->second == 0) moving_.erase(moving);
  // That a put is done says only that its source may be used again.
  if (transfer->writes && transfer->status.ok())
    transfer->status = port_.api->check(port_.api->win_flush(rank, port_.memory), "MPI_Win_flush");
  if (!transfer->lane->alive.load())
    transfer->status = {Code::peer_lost, "the connection was closed"};
  complete(transfer->operation, transfer->status);
}

void MpiDoor::close_lane(const std::shared_ptr<Lane>& lane) {
  // A payload that has begun cannot be finished; the farewell tells so.
  for (Outgoing& message : lane->outgoing)
    complete(message.operation, {Code::peer_lost, "the connection was closed"});
  lane->outgoing.clear();
  Outgoing farewell;
  farewell.kind = RecordKind::farewell;
  lane->outgoing.push_back(std::move(farewell));
  list(lane);
  std::lock_guard<std::mutex> lock(mutex_);
  lanes_.erase(lane->local_token);
}

void MpiDoor::list(const std::shared_ptr<Lane>& lane) {
  if (std::exchange(lane->listed, true)) return;
  sending_.push_back(lane);
}

unsigned MpiDoor::pump() {
  unsigned sent = 0;
  for (std::size_t left = sending_.size(); left > 0; --left) {
    const auto lane = std::move(sending_.front());
    sending_.pop_front();
    lane->listed = false;
    if (lane->outgoing.empty()) continue;
    const auto slot = mailbox_.take_slot(lane->wanted());
    if (slot) {
      News news;
      const std::size_t size = lane->write_record(mailbox_.slot(*slot), &news.sent);
      mailbox_.post(lane->rank, *slot, size);
      if (news.sent) tell(std::move(news));
      ++sent;
    }
    if (!lane->outgoing.empty()) list(lane);
  }
  return sent;
}

// Bells.

void MpiDoor::ring(int rank) {
  if (rank == port_.rank) return;
  Bell& bell = bells_[rank];
  const Nanoseconds time = now();
  if (time - bell.rung < bell.pause) return;
  bell.rung = time;
  // Messages that a rank does not take use up what MPI has for those to others.
  bell.pause = std::clamp(bell.pause * 5 / 4, kBellLasts, kLongestPause);
  flights_.start(
      "ringing",
      [&](Flights::Flight& flight) {
        return port_.api->isend(&flight.operand, 0, port_.api->constants.byte, rank, kBell,
                                port_.comm, &flight.request);
      },
      [](const Status&, std::uint64_t) {});
}

void MpiDoor::keep_peers_awake() {
  for (const auto& [rank, transfers] : moving_) ring(rank);
}

unsigned MpiDoor::listen() {
  const Api& api = *port_.api;
  unsigned bells = 0;
  for (;;) {
    int there = 0;
    StatusRoom ignored;
    if (api.iprobe(api.constants.any_source, kBell, port_.comm, &there, &ignored) != 0 ||
        there == 0)
      break;
    std::uint64_t nothing = 0;
    if (api.recv(&nothing, 0, api.constants.byte, api.constants.any_source, kBell, port_.comm,
                 &ignored) != 0)
      break;
    ++bells;
  }
  if (bells > 0) hot_until_ = std::max(hot_until_.load(), now() + options_.hot);
  return bells;
}

// Progress.

unsigned MpiDoor::work() {
  unsigned events = run_commands();
  events += flights_.poll();
  events += mailbox_.poll();
  if (!sending_.empty()) events += pump();
  if (flights_.empty() || ++polls_ % kPollsPerProbe == 0) events += listen();
  if (!moving_.empty()) keep_peers_awake();
  return events;
}

unsigned MpiDoor::try_progress() {
  if (!may_call()) return 0;
  unsigned events = 0;
  do {
    const Turn turn(turn_);
    if (!turn) return events;
    if (stopped_) return events;
    events += work();
  } while (has_commands_.load(std::memory_order_seq_cst));
  if (has_news_.load(std::memory_order_acquire)) {
    publish();
    drive_.notify();
  }
  return events;
}

unsigned MpiDoor::progress() {
  const bool woken = armed_.exchange(false) || nudged_.exchange(false);
  unsigned events = try_progress();
  for (unsigned i = 1; woken && events == 0 && i < kProbesPerWake; ++i) events += try_progress();
  const Nanoseconds time = now();
  if (events > 0) {
    last_active_ = time;
  } else if (time < hot_until_.load(std::memory_order_relaxed) && time >= contended_until_ &&
             ++idle_polls_ % kPollsPerYield == 0) {
    ::sched_yield();
    if (now() - time > kContendedYield) contended_until_ = now() + kContendedPause;
  }
  return events;
}

// The longer nothing happened, the longer it sleeps.
bool MpiDoor::arm() {
  if (birth_ != fork_generation()) return true;
  const Nanoseconds time = now();
  const bool hot = time < hot_until_.load();
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
  const Turn turn(turn_);
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
    const Status waited = drive_.wait(operation, deadline, interrupted);
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
  bells_[rank].pause = kBellLasts;
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
    for (Outgoing& message : lane->outgoing) complete(message.operation, why);
    lane->outgoing.clear();
    News news;
    news.broken = std::move(lane);
    news.status = Status(Code::peer_lost, why.message());
    tell(std::move(news));
  }
}

void MpiDoor::publish() {
  while (has_news_.load(std::memory_order_acquire)) {
    if (publishing_.exchange(true)) return;  // who publishes looks again
    for (;;) {
      News next;
      {
        std::lock_guard<std::mutex> lock(news_mutex_);
        if (news_.empty()) {
          has_news_ = false;
          break;
        }
        next = std::move(news_.front());
        news_.pop_front();
      }
      run(next);
    }
    publishing_ = false;
  }
}

void MpiDoor::run(News& news) {
  Receiver* const receiver = receiver_.load(std::memory_order_acquire);
  if (news.sent) news.operation = news.sent->operation;
  if (news.operation != nullptr) return news.operation->complete(news.status);
  if (news.broken) return news.broken->break_off(receiver, news.status);
  if (news.rank < 0) return;
  RecordHead head;
  std::memcpy(&head, news.record.data(), sizeof head);
  std::shared_ptr<Lane> lane;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = lanes_.find(head.token);
    if (found != lanes_.end() && found->second->rank == news.rank) lane = found->second;
  }
  if (lane && lane->deliver(receiver, head, std::move(news.record))) return;
  dropped_.fetch_add(1, std::memory_order_relaxed);
  if (!lane) return;
  std::lock_guard<std::mutex> lock(mutex_);
  lanes_.erase(lane->local_token);
}

std::vector<std::pair<std::string, std::string>> MpiDoor::facts() const {
  const char* const levels[] = {"its main thread only", "one thread at a time", "any thread"};
  return {
      {"library", port_.api->version()},
      {"rank", std::to_string(port_.rank) + " of " + std::to_string(port_.ranks)},
      {"MPI is called by", levels[static_cast<int>(port_.threads)]},
      {"message window", std::to_string(kWindowSize / 1024) + " KiB"},
      {"memory attached", std::to_string(attachments_.count()) + " times"},
      {"messages dropped", std::to_string(dropped_.load())},
  };
}

}  // namespace pshpc::fabric::mpi
