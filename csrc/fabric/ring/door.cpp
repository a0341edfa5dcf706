#include "fabric/ring/door.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/fence.h"
#include "base/fork_guard.h"

namespace pshpc::fabric::ring {
namespace {

// Polls between two looks at the bells, which tell of a peer's end. Before it sleeps the progress
// thread looks anyway.
constexpr unsigned kPollsPerLook = 4096;
// A poll costs next to nothing, and giving the processor away several hundred nanoseconds.
constexpr unsigned kPollsPerYield = 32;

// What was made for an offer.
struct Prepared {
  Shared shared;
  GuardedFd bell;
};

class RingChannel final : public Channel {
 public:
  RingChannel(std::shared_ptr<Lane> lane, std::uint32_t birth)
      : lane_(std::move(lane)), birth_(birth) {}
  ~RingChannel() override { RingChannel::close(); }

  std::uint64_t token() const override { return reinterpret_cast<std::uintptr_t>(lane_.get()); }
  bool one_sided() const override { return false; }
  bool alive() const override { return lane_->alive(); }
  std::string describe() const override { return "ring/memory"; }

  void send(Message message, Operation* operation) override {
    if (ours()) return lane_->send(std::move(message), operation);
    if (operation != nullptr) operation->complete(forked());
  }
  Expected<std::shared_ptr<RemoteRegion>> import(ConstSpan) override { return no_memory(); }
  void read(const RemoteRegion&, std::uint64_t, Span, Operation* operation) override {
    operation->complete(no_memory());
  }
  void write(const RemoteRegion&, std::uint64_t, ConstSpan, Operation* operation) override {
    operation->complete(no_memory());
  }
  void close() override {
    if (ours()) lane_->close({Code::peer_lost, "the connection was closed on this side"});
  }

 private:
  static Status no_memory() { return {Code::unavailable, "the ring door carries messages only"}; }
  static Status forked() {
    return {Code::forked, "this connection belongs to the parent of this process"};
  }
  bool ours() const { return birth_ == fork_generation(); }

  const std::shared_ptr<Lane> lane_;
  const std::uint32_t birth_;
};

bool is_unix_stream(int fd) {
  int domain = 0, type = 0;
  socklen_t size = sizeof domain;
  return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
         ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

}  // namespace

RingDoor::RingDoor(bool lends)
    : birth_(fork_generation()), lends_(lends), drive_(*this, kPollsPerYield) {}

RingDoor::~RingDoor() { stop(); }

Expected<std::shared_ptr<RingDoor>> RingDoor::create(bool lends) {
  std::shared_ptr<RingDoor> door(new RingDoor(lends));
  const Status opened = door->open();
  if (!opened.ok()) return opened;
  return door;
}

Status RingDoor::open() {
  bells_ = GuardedFd(Fd(::epoll_create1(EPOLL_CLOEXEC)));
  if (!bells_) return system_error("creating a descriptor to sleep on");
  const Status opened = nudge_->open();
  if (!opened.ok()) return opened;
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(bells_.get(), EPOLL_CTL_ADD, nudge_->fd(), &event) != 0)
    return system_error("watching a descriptor");
  return {};
}

Status RingDoor::start(Progress& progress, Receiver& receiver) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    progress_ = &progress;
    stopped_ = false;
  }
  receiver_ = &receiver;
  return progress.add(this);
}

void RingDoor::stop() {
  if (birth_ != fork_generation()) return;
  Progress* progress = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    progress = std::exchange(progress_, nullptr);
  }
  if (progress == nullptr) return;
  progress->remove(this);
  for (;;) {
    const Turn turn(polling_);
    if (!turn) {
      ::sched_yield();
      continue;
    }
    adopt();
    for (const auto& lane : lanes_) lane->close({Code::peer_lost, "the ring door was closed"});
    poll_lanes(turn);
    break;
  }
  receiver_ = nullptr;
  drive_.notify();
}

Expected<Bytes> RingDoor::expose(const memory::Region&) {
  return Status(Code::unavailable, "the ring door carries messages only");
}

// Channels.

Expected<Offer> RingDoor::offer(const Peer& peer) {
  if (!peer.on_node) return Status(Code::unavailable, "the peer is on another node");
  auto prepared = std::make_shared<Prepared>();
  Offer ours;
  GuardedFd memory;
  auto shared = Shared::create(&memory);
  if (!shared) return shared.status();
  prepared->shared = std::move(shared).value();
  std::array<int, 2> ends{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return system_error("creating the bell of a connection");
  prepared->bell = GuardedFd(Fd(ends[0]));
  ours.fds.push_back(std::move(memory));
  ours.fds.emplace_back(Fd(ends[1]));
  ours.prepared = std::move(prepared);
  return ours;
}

Expected<Door::Accepted> RingDoor::accept(const Peer& peer, Offer theirs) {
  if (theirs.fds.size() != 2 || !is_unix_stream(theirs.fds[1].get()))
    return Status(Code::protocol, "a ring is offered without its memory and bell");
  auto shared = Shared::open(theirs.fds[0].get());
  if (!shared) return shared.status();
  auto channel = add(std::move(shared).value(), std::move(theirs.fds[1]), peer.pid);
  if (!channel) return channel.status();
  return Accepted{std::move(channel).value(), {}};
}

Expected<std::shared_ptr<Channel>> RingDoor::connect(const Peer& peer, Offer ours, Offer) {
  const auto prepared = std::static_pointer_cast<Prepared>(ours.prepared);
  return add(std::move(prepared->shared), std::move(prepared->bell), peer.pid);
}

Expected<std::shared_ptr<Channel>> RingDoor::add(Shared shared, GuardedFd bell, pid_t peer) {
  auto lane = std::make_shared<Lane>(std::move(shared), std::move(bell), peer, nudge_, lends_);
  auto channel = std::make_shared<RingChannel>(lane, birth_);
  lane->attach(channel);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return Status(Code::closed, "the ring door is closed");
    added_.push_back(std::move(lane));
    has_added_.store(true, std::memory_order_release);
  }
  nudge_->ring();
  return std::shared_ptr<Channel>(std::move(channel));
}

void RingDoor::adopt() {
  std::vector<std::shared_ptr<Lane>> added;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    added.swap(added_);
    has_added_ = false;
  }
  for (auto& lane : added) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP;
    event.data.ptr = lane.get();
    if (::epoll_ctl(bells_.get(), EPOLL_CTL_ADD, lane->bell(), &event) != 0)
      lane->close(system_error("watching the bell of a connection"));
    lanes_.push_back(std::move(lane));
  }
  count_ = lanes_.size();
}

// Polling.

unsigned RingDoor::poll_lanes(const Turn&) {
  if (has_added_.load(std::memory_order_acquire)) adopt();
  if (++polls_ % kPollsPerLook == 0) look_at_bells(false);
  Receiver* const receiver = receiver_.load(std::memory_order_acquire);
  unsigned events = 0;
  bool ended = false;
  for (const auto& lane : lanes_) {
    events += lane->poll(receiver);
    ended = ended || lane->finished();
  }
  if (!ended) return events;
  const auto leaves = [this](const auto& lane) {
    if (lane->finished()) ::epoll_ctl(bells_.get(), EPOLL_CTL_DEL, lane->bell(), nullptr);
    return lane->finished();
  };
  lanes_.erase(std::remove_if(lanes_.begin(), lanes_.end(), leaves), lanes_.end());
  count_ = lanes_.size();
  return events;
}

// Who drains a bell must look for what it was rung for before sleeping, or have nobody sleep.
void RingDoor::look_at_bells(bool drain) {
  std::array<epoll_event, 32> events;
  const int count = ::epoll_wait(bells_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    auto* const lane = static_cast<Lane*>(event.data.ptr);
    if (lane != nullptr && (event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
      lane->hang_up();
    else if (drain && lane != nullptr)
      lane->drain_bell();
    else if (drain)
      nudge_->drain();
  }
}

unsigned RingDoor::try_progress() {
  if (birth_ != fork_generation()) return 0;
  unsigned events = 0;
  {
    const Turn turn(polling_);
    if (!turn) return 0;
    events = poll_lanes(turn);
  }
  if (events > 0) drive_.notify();
  return events;
}

unsigned RingDoor::progress() {
  if (birth_ != fork_generation()) return 0;
  if (nudge_->armed()) {
    const Turn turn(polling_);
    if (!turn) return 0;
    nudge_->arm(false);
    for (const auto& lane : lanes_) lane->announce_waking();
  }
  return try_progress();
}

// The flags say that this thread sleeps; what came before them is seen here, what comes after them
// rings a bell.
bool RingDoor::arm() {
  if (birth_ != fork_generation()) return true;
  const Turn turn(polling_);
  if (!turn || has_added_) return false;
  look_at_bells(true);
  nudge_->arm(true);
  for (const auto& lane : lanes_) lane->announce_sleep();
  fence(std::memory_order_seq_cst);
  if (has_added_) return false;
  for (const auto& lane : lanes_)
    if (lane->has_news()) return false;
  return true;
}

void RingDoor::left() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (progress_ != nullptr) progress_->take_over();
}

std::vector<std::pair<std::string, std::string>> RingDoor::facts() const {
  return {
      {"connections", std::to_string(count_.load())},
      {"ring", std::to_string(kCapacity / 1024) + " KiB in each direction of a connection"},
  };
}

}  // namespace pshpc::fabric::ring
