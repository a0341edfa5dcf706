#include "tests/fake_door.h"

#include <cstring>
#include <thread>

#include "base/wire.h"

namespace pshpc::test {
namespace {

using fabric::Operation;

struct Everyone {
  std::mutex mutex;
  std::uint64_t next = 1;
  std::map<std::uint64_t, std::weak_ptr<FakeDoor>> doors;
};

Everyone& everyone() {
  static Everyone all;
  return all;
}

struct FakeRegion : fabric::RemoteRegion {
  std::uint32_t id = 0;
};

void complete(Operation* operation, Status status) {
  if (operation != nullptr) operation->complete(std::move(status));
}

// A network device knows nothing of the threads' memory model; what it makes of that is checked by
// who reads.
__attribute__((no_sanitize("thread"))) void copy_as_a_device_does(std::uint8_t* into,
                                                                  const std::uint8_t* from,
                                                                  std::size_t size) {
  auto* volatile target = into;
  for (std::size_t i = 0; i < size; ++i) target[i] = from[i];
}

Status lost() { return {Code::peer_lost, "the fake channel is down"}; }

}  // namespace

std::shared_ptr<FakeDoor> FakeDoor::create(bool one_sided) {
  std::shared_ptr<FakeDoor> door(new FakeDoor(one_sided));
  std::lock_guard<std::mutex> lock(everyone().mutex);
  door->id_ = everyone().next++;
  everyone().doors[door->id_] = door;
  return door;
}

FakeDoor::~FakeDoor() {
  std::lock_guard<std::mutex> lock(everyone().mutex);
  everyone().doors.erase(id_);
}

int FakeDoor::exposed() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int>(regions_.size());
}

int FakeDoor::connected() {
  int alive = 0;
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [token, weak] : channels_) {
    const auto channel = weak.lock();
    if (channel && channel->alive()) ++alive;
  }
  return alive;
}

Status FakeDoor::start(fabric::Progress& progress, fabric::Receiver& receiver) {
  std::lock_guard<std::mutex> lock(mutex_);
  progress_ = &progress;
  receiver_ = &receiver;
  return {};
}

void FakeDoor::stop() {
  std::vector<std::shared_ptr<FakeChannel>> channels;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [token, weak] : channels_)
      if (auto channel = weak.lock()) channels.push_back(std::move(channel));
  }
  for (const auto& channel : channels) channel->close();
  release();
  std::lock_guard<std::mutex> lock(mutex_);
  progress_ = nullptr;
  receiver_ = nullptr;
}

void FakeDoor::release() {
  hold_out = hold_in = false;
  std::vector<Landing> landings;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    landings.swap(landings_);
  }
  for (Landing& landing : landings) land(std::move(landing));
  flush();
}

void FakeDoor::flush() {
  std::vector<std::shared_ptr<FakeChannel>> channels;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [token, weak] : channels_)
      if (auto channel = weak.lock()) channels.push_back(std::move(channel));
  }
  for (const auto& channel : channels) channel->flush();
}

void FakeDoor::post(std::function<void()> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (progress_ != nullptr) progress_->post(std::move(job));
}

Expected<Bytes> FakeDoor::expose(const memory::Region& region) {
  std::lock_guard<std::mutex> lock(mutex_);
  regions_[region.id] = region.span;
  return WireWriter().put(region.id).take();
}

void FakeDoor::withdraw(std::uint32_t region_id) {
  std::lock_guard<std::mutex> lock(mutex_);
  regions_.erase(region_id);
}

Span FakeDoor::span_of(std::uint32_t region) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = regions_.find(region);
  return found == regions_.end() ? Span() : found->second;
}

Expected<fabric::Offer> FakeDoor::offer(const fabric::Peer&) {
  fabric::Offer ours;
  ours.address = WireWriter().put(id_).take();
  std::lock_guard<std::mutex> lock(mutex_);
  ours.token = next_token_++;
  return ours;
}

Expected<fabric::Door::Accepted> FakeDoor::accept(const fabric::Peer& peer, fabric::Offer theirs) {
  Accepted accepted;
  accepted.answer = offer(peer).value();
  fabric::Offer same_token;
  same_token.token = accepted.answer.token;
  auto channel = connect(peer, std::move(same_token), std::move(theirs));
  if (!channel) return channel.status();
  accepted.channel = std::move(channel).value();
  return accepted;
}

Expected<std::shared_ptr<fabric::Channel>> FakeDoor::connect(const fabric::Peer&,
                                                             fabric::Offer ours,
                                                             fabric::Offer answer) {
  WireReader in(answer.address);
  const auto id = in.get<std::uint64_t>();
  std::weak_ptr<FakeDoor> peer;
  {
    std::lock_guard<std::mutex> lock(everyone().mutex);
    const auto found = everyone().doors.find(id);
    if (found == everyone().doors.end()) return Status(Code::unavailable, "no such fake door");
    peer = found->second;
  }
  auto channel = std::make_shared<FakeChannel>(shared_from_this(), peer, ours.token, answer.token);
  std::lock_guard<std::mutex> lock(mutex_);
  channels_[ours.token] = channel;
  return std::shared_ptr<fabric::Channel>(std::move(channel));
}

Status FakeDoor::wait(const Operation& operation, Deadline deadline,
                      const std::function<bool()>& interrupted) {
  while (!operation.done()) {
    if (deadline.passed()) return {Code::timed_out, "the fake operation takes too long"};
    if (interrupted()) return {Code::peer_lost, "the wait was given up"};
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return {};
}

void FakeDoor::receive(std::uint64_t token, Bytes header, Bytes payload) {
  Landing landing;
  fabric::Receiver* receiver = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = channels_.find(token);
    if (found != channels_.end()) landing.channel = found->second.lock();
    receiver = receiver_;
  }
  if (!landing.channel || !landing.channel->alive() || receiver == nullptr) return;
  landing.header = std::move(header);
  landing.payload = std::move(payload);
  if (!landing.payload.empty()) {
    ++payloads_in;
    if (!refuse_payloads)
      landing.into = receiver->destination(landing.channel, landing.header, landing.payload.size());
    if (hold_in && !landing.into.empty()) {
      std::lock_guard<std::mutex> lock(mutex_);
      landings_.push_back(std::move(landing));
      return;
    }
  }
  land(std::move(landing));
}

void FakeDoor::land(Landing landing) {
  Status status;
  const std::size_t size = landing.payload.size();
  if (landing.into.size < size)
    status = {Code::invalid, "the payload was refused"};
  else if (size > 0)
    std::memcpy(landing.into.data, landing.payload.data(), size);
  fabric::Receiver* receiver = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    receiver = receiver_;
  }
  if (!landing.channel->alive()) status = lost();
  if (receiver != nullptr)
    receiver->arrived(landing.channel, landing.header, landing.into, std::move(status));
}

void FakeDoor::tell_lost(const std::shared_ptr<FakeChannel>& channel) {
  channel->close();
  post([self = shared_from_this(), channel] {
    fabric::Receiver* receiver = nullptr;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      receiver = self->receiver_;
    }
    if (receiver != nullptr) receiver->lost(channel, lost());
  });
}

FakeChannel::FakeChannel(std::shared_ptr<FakeDoor> door, std::weak_ptr<FakeDoor> peer,
                         std::uint64_t token, std::uint64_t remote_token)
    : door_(std::move(door)), peer_(std::move(peer)), token_(token), remote_token_(remote_token) {}

void FakeChannel::begin(Work work, Operation* operation) {
  if (door_->lose_next.exchange(false)) door_->tell_lost(shared_from_this());
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (alive_) {
      pending_.push_back({std::move(work), operation});
      operation = nullptr;
      work = nullptr;
    }
  }
  if (!alive_ && operation != nullptr) return complete(operation, lost());
  if (!door_->hold_out) flush();
}

void FakeChannel::flush() {
  for (;;) {
    Pending next;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (pending_.empty()) return;
      next = std::move(pending_.front());
      pending_.pop_front();
    }
    Status status = next.work();
    if (next.operation != nullptr) next.operation->complete(std::move(status));
  }
}

void FakeChannel::close() {
  std::deque<Pending> pending;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    alive_ = false;
    pending.swap(pending_);
  }
  for (Pending& one : pending) complete(one.operation, lost());
}

void FakeChannel::send(fabric::Message message, Operation* operation) {
  ++door_->messages;
  begin(
      [this, header = message.header.copy(), payload = std::move(message.payload)]() -> Status {
        const auto peer = peer_.lock();
        if (!peer) return lost();
        Bytes bytes(payload.size());
        payload.copy_to(bytes.data());
        peer->post([peer, token = remote_token_, header, bytes = std::move(bytes)] {
          peer->receive(token, header, bytes);
        });
        return {};
      },
      operation);
}

Expected<std::shared_ptr<fabric::RemoteRegion>> FakeChannel::import(ConstSpan handle) {
  WireReader in(handle);
  auto region = std::make_shared<FakeRegion>();
  region->id = in.get<std::uint32_t>();
  if (!in.at_end()) return Status(Code::protocol, "a garbled handle");
  return std::shared_ptr<fabric::RemoteRegion>(std::move(region));
}

void FakeChannel::read(const fabric::RemoteRegion& region, std::uint64_t offset, Span into,
                       Operation* operation) {
  ++door_->reads;
  if (door_->before_transfer) door_->before_transfer();
  begin(
      [this, id = static_cast<const FakeRegion&>(region).id, offset, into]() -> Status {
        const auto peer = peer_.lock();
        if (!peer) return lost();
        const Span from = peer->span_of(id);
        if (offset > from.size || into.size > from.size - offset)
          return {Code::invalid, "outside of the fake region"};
        copy_as_a_device_does(into.data, from.data + offset, into.size);
        return {};
      },
      operation);
}

void FakeChannel::write(const fabric::RemoteRegion& region, std::uint64_t offset, ConstSpan from,
                        Operation* operation) {
  ++door_->writes;
  if (door_->before_transfer) door_->before_transfer();
  begin(
      [this, id = static_cast<const FakeRegion&>(region).id, offset, from]() -> Status {
        const auto peer = peer_.lock();
        if (!peer) return lost();
        const Span into = peer->span_of(id);
        if (offset > into.size || from.size > into.size - offset)
          return {Code::invalid, "outside of the fake region"};
        copy_as_a_device_does(into.data + offset, from.data, from.size);
        return {};
      },
      operation);
}

}  // namespace pshpc::test
