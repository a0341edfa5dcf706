#include "objects/messenger.h"

#include <limits>
#include <utility>
#include <vector>

#include "base/log.h"

namespace pshpc::objects {
namespace {

enum Flags : std::uint16_t {
  kReply = 1,
  kBodyInPayload = 2,  // too long for the header
};

struct Head {
  Kind kind = Kind::reply;
  std::uint16_t flags = 0;
  std::uint64_t id = 0;
  ConstSpan body;

  static Expected<Head> parse(ConstSpan header) {
    WireReader in(header);
    Head head;
    head.kind = static_cast<Kind>(in.get<std::uint16_t>());
    head.flags = in.get<std::uint16_t>();
    head.id = in.get<std::uint64_t>();
    head.body = in.rest();
    if (!in.ok()) return Status(Code::protocol, "a message without a head");
    return head;
  }
};

constexpr std::size_t kHeadSize = 12;

fabric::Message compose(Kind kind, std::uint16_t flags, std::uint64_t id, ConstSpan body,
                        ConstSpan payload, std::shared_ptr<const void> keep) {
  fabric::Message message;
  const bool fits = kHeadSize + body.size <= fabric::kMaxHeader;
  WireWriter header;
  if (!fits) flags |= kBodyInPayload;
  header.put(kind).put(flags).put(id);
  if (fits) {
    header.put_raw(body);
    message.payload = payload;
    message.keep = std::move(keep);
  } else {
    auto copy = std::make_shared<Bytes>(body.copy());
    message.payload = *copy;
    message.keep = std::move(copy);
  }
  message.header = header.take();
  return message;
}

}  // namespace

class Messenger::DoorResponder : public Responder {
 public:
  DoorResponder(std::shared_ptr<fabric::Channel> channel, std::uint64_t id)
      : channel_(std::move(channel)), id_(id) {}

  using Responder::reply;
  void reply(const Status& status, ConstSpan body, ConstSpan payload,
             std::shared_ptr<const void> keep, std::vector<Fd>) override {
    channel_->send(
        compose(Kind::reply, kReply, id_, encode_reply(status, body), payload, std::move(keep)),
        nullptr);
  }
  std::uint64_t room() const override { return std::numeric_limits<std::uint64_t>::max(); }

 private:
  std::shared_ptr<fabric::Channel> channel_;
  std::uint64_t id_;
};

void Messenger::add_peer(const std::shared_ptr<fabric::Channel>& channel, const Caller& caller) {
  std::lock_guard<std::mutex> lock(mutex_);
  callers_[channel.get()] = caller;
}

void Messenger::remove_peer(const std::shared_ptr<fabric::Channel>& channel) {
  std::lock_guard<std::mutex> lock(mutex_);
  callers_.erase(channel.get());
}

void Messenger::start(const std::shared_ptr<fabric::Channel>& channel, Kind kind, ConstSpan body,
                      ConstSpan payload, std::shared_ptr<const void> keep, Call* call) {
  std::uint64_t id;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (closed_) {
      lock.unlock();
      return call->complete({Code::closed, "the store is closed"});
    }
    id = next_id_++;
    pending_[id] = {call, channel.get()};
  }
  channel->send(compose(kind, 0, id, body, payload, std::move(keep)), nullptr);
  // The loss may have been told before the call was in the table.
  if (!channel->alive()) give_up(id, {Code::peer_lost, "the connection was lost"});
}

Span Messenger::scratch(std::size_t size) {
  if (size == 0 || size > kMaxScratch - scratch_size_) return {};
  auto bytes = std::make_unique<Bytes>(size);
  const Span span(*bytes);
  scratch_size_ += size;
  scratch_[span.data] = std::move(bytes);
  return span;
}

std::unique_ptr<Bytes> Messenger::take_scratch(Span payload) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = scratch_.find(payload.data);
  if (found == scratch_.end()) return nullptr;
  auto bytes = std::move(found->second);
  scratch_.erase(found);
  scratch_size_ -= bytes->size();
  return bytes;
}

Span Messenger::destination(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                            std::size_t payload_size) {
  const auto head = Head::parse(header);
  if (!head) return {};
  std::unique_lock<std::mutex> lock(mutex_);
  if (head->flags & kBodyInPayload) return scratch(payload_size);
  if (head->flags & kReply) {
    const auto found = pending_.find(head->id);
    if (found == pending_.end()) return {};
    auto& [call, channel, receiving] = found->second;
    if (channel != from.get() || receiving || payload_size > call->into_.size) return {};
    receiving = true;
    return call->into_.slice(0, payload_size);
  }
  const auto caller = callers_.find(from.get());
  if (caller == callers_.end() || head->kind != Kind::deliver) return {};
  const Caller who = caller->second;
  lock.unlock();
  Delivery delivery = service_.delivery(head->body, payload_size, who);
  if (delivery.span.empty()) return {};
  lock.lock();
  holds_.emplace(delivery.span.data, std::move(delivery.keep));
  return delivery.span;
}

void Messenger::arrived(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                        Span payload, Status status) {
  const auto head = Head::parse(header);
  if (!head) {
    log_warn_once("a peer sent a message without a head");
    return;
  }
  std::unique_ptr<Bytes> long_body;
  ConstSpan body = head->body;
  if (head->flags & kBodyInPayload) {
    long_body = take_scratch(payload);
    body = long_body ? ConstSpan(*long_body) : ConstSpan();
    payload = {};
  }
  if (head->flags & kReply) {
    if (expected(head->id, from.get(), payload)) finish(head->id, body, payload.size, status);
    return;
  }
  // Until the request is handled: its block may be given up meanwhile.
  const auto hold = take_hold(payload);
  Caller caller;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = callers_.find(from.get());
    if (found == callers_.end()) return;  // its connection ended meanwhile
    caller = found->second;
  }
  const auto responder = std::make_shared<DoorResponder>(from, head->id);
  if (!status.ok()) {
    responder->reply(status, {}, {}, nullptr, {});
    return;
  }
  service_.handle(head->kind, body, payload, {}, caller, responder);
}

std::shared_ptr<const void> Messenger::take_hold(Span payload) {
  if (payload.empty()) return nullptr;
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = holds_.find(payload.data);
  if (found == holds_.end()) return nullptr;
  auto hold = std::move(found->second);
  holds_.erase(found);
  return hold;
}

// Only who was asked may answer, and once: while one answer's payload is on its way, no other
// counts.
bool Messenger::expected(std::uint64_t id, const fabric::Channel* from, Span payload) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pending_.find(id);
  if (found == pending_.end()) return false;
  const auto& [call, channel, receiving] = found->second;
  return channel == from && (!receiving || payload.data == call->into_.data);
}

void Messenger::give_up(std::uint64_t id, const Status& status) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = pending_.find(id);
    if (found == pending_.end() || found->second.receiving) return;
  }
  finish(id, {}, 0, status);
}

void Messenger::finish(std::uint64_t id, ConstSpan body, std::size_t received,
                       const Status& status) {
  Call* call;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = pending_.find(id);
    if (found == pending_.end()) return;
    call = found->second.call;
    pending_.erase(found);
  }
  Status outcome = status;
  if (outcome.ok()) {
    ConstSpan rest;
    outcome = decode_reply(body, &rest);
    call->reply_ = rest.copy();
    call->received_ = received;
  }
  call->complete(std::move(outcome));
}

void Messenger::lost(const std::shared_ptr<fabric::Channel>& channel, Status why) {
  std::vector<std::uint64_t> orphans;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    callers_.erase(channel.get());
    for (const auto& [id, pending] : pending_)
      if (pending.channel == channel.get()) orphans.push_back(id);
  }
  for (const std::uint64_t id : orphans)
    give_up(id, {Code::peer_lost, "the connection was lost: " + why.message()});
}

void Messenger::close(const std::shared_ptr<fabric::Channel>& channel) {
  channel->close();
  lost(channel, {Code::peer_lost, "it was closed on this side"});
}

void Messenger::close_all() {
  std::vector<std::uint64_t> orphans;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    callers_.clear();
    for (const auto& [id, pending] : pending_) orphans.push_back(id);
  }
  for (const std::uint64_t id : orphans) give_up(id, {Code::closed, "the store is closed"});
}

}  // namespace pshpc::objects
