#include "rpc/messenger.h"

#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/log.h"
#include "rpc/hello.h"

namespace pshpc::rpc {
namespace {

constexpr std::size_t kAlignment = 64;
// A request or reply of this size is composed on the stack.
constexpr std::size_t kSmallHeader = 1024;

std::size_t padded(std::size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

// A body that is too long for a header goes before the payload.
struct LongBody {
  std::uint64_t size;
};

// Sends head, body and payload as one message.
template <class Head>
void send_message(fabric::Channel& channel, Head head, ConstSpan body, fabric::Payload payload) {
  if (sizeof head + body.size <= kSmallHeader) {
    std::array<std::uint8_t, kSmallHeader> header;
    std::memcpy(header.data(), &head, sizeof head);
    copy_bytes(header.data() + sizeof head, body);
    channel.send({{header.data(), sizeof head + body.size}, std::move(payload)}, nullptr);
    return;
  }
  Bytes header(sizeof head);
  if (sizeof head + body.size <= fabric::kMaxHeader) {
    std::memcpy(header.data(), &head, sizeof head);
    header.insert(header.end(), body.data, body.data + body.size);
    channel.send({header, std::move(payload)}, nullptr);
    return;
  }
  head.flags |= kBodyInPayload;
  const LongBody described{body.size};
  std::memcpy(header.data(), &head, sizeof head);
  const auto* raw = reinterpret_cast<const std::uint8_t*>(&described);
  header.insert(header.end(), raw, raw + sizeof described);
  struct Kept {
    Bytes body;
    std::shared_ptr<const void> rest;
  };
  const auto kept = std::make_shared<Kept>();
  kept->body.resize(padded(body.size));
  copy_bytes(kept->body.data(), body);
  kept->rest = std::move(payload.keep);
  fabric::Payload all(kept->body, kept);
  all.append(payload);
  channel.send({header, std::move(all)}, nullptr);
}

// Body and payload of a message as its sender gave them; false if they cannot be.
bool split(std::uint8_t flags, ConstSpan rest, Span landed, ConstSpan* body, Span* payload) {
  *body = rest;
  *payload = landed;
  if ((flags & kBodyInPayload) == 0) return true;
  LongBody described{};
  if (rest.size != sizeof described) return false;
  std::memcpy(&described, rest.data, sizeof described);
  if (described.size > landed.size) return false;
  const auto size = static_cast<std::size_t>(described.size);
  *body = landed.slice(0, size);
  const std::size_t begin = padded(size);
  *payload = begin < landed.size ? landed.slice(begin, landed.size - begin) : Span();
  return true;
}

Status untrusted() {
  return {Code::denied,
          "the caller has not shown the job's secret: give both engines the same secret="};
}

}  // namespace

class Messenger::DoorResponder : public Responder {
 public:
  DoorResponder(const std::shared_ptr<fabric::Channel>& channel, std::uint64_t id, bool one_way)
      : channel_(channel), id_(id), one_way_(one_way) {}

  using Responder::reply;
  void reply(const Status& status, ConstSpan body, fabric::Payload payload,
             std::vector<Fd>) override {
    count(status, body.size + payload.size());
    if (one_way_) {
      if (!status.ok()) log_warn_once("a one-way request failed: " + status.message());
      return;
    }
    ReplyHead head;
    head.code = static_cast<std::uint16_t>(status.code());
    head.call = id_;
    if (!status.ok() && status.code() != Code::raised) {
      const std::string text = status.message().substr(0, kSmallHeader / 2);
      return send_message(*channel_, head, ConstSpan(text), {});
    }
    send_message(*channel_, head, body, std::move(payload));
  }
  std::uint64_t room() const override { return std::numeric_limits<std::uint64_t>::max(); }

 protected:
  std::shared_ptr<fabric::Channel> channel_;
  std::uint64_t id_;
  bool one_way_;
};

class Messenger::DeferredResponder final : public DoorResponder {
 public:
  DeferredResponder(const DoorResponder& at_once, std::shared_ptr<Messenger> messenger)
      : DoorResponder(at_once), messenger_(std::move(messenger)) {}
  ~DeferredResponder() override { forget(); }

  using Responder::reply;
  void reply(const Status& status, ConstSpan body, fabric::Payload payload,
             std::vector<Fd> fds) override {
    forget();
    if (!cancelled()) DoorResponder::reply(status, body, std::move(payload), std::move(fds));
  }
  bool cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }

  Deferred key() const { return {channel_.get(), id_}; }
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  void forget() {
    if (one_way_ || forgotten_.exchange(true)) return;
    std::lock_guard<std::mutex> lock(messenger_->mutex_);
    messenger_->deferred_.erase(key());
  }

  const std::shared_ptr<Messenger> messenger_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> forgotten_{false};
};

class Messenger::DoorRequest final : public Request {
 public:
  DoorRequest(Messenger& messenger, const Caller& caller, DoorResponder& responder)
      : Request(caller, responder), messenger_(messenger), door_responder_(responder) {}

  std::shared_ptr<Responder> defer() override {
    auto deferred =
        std::make_shared<DeferredResponder>(door_responder_, messenger_.shared_from_this());
    if (!one_way) {
      std::lock_guard<std::mutex> lock(messenger_.mutex_);
      messenger_.deferred_[deferred->key()] = deferred;
    }
    return deferred;
  }

 private:
  Messenger& messenger_;
  DoorResponder& door_responder_;
};

// Handlers.

Status Messenger::add_handler(const std::string& name, MethodId method, std::uint16_t provider,
                              std::shared_ptr<Handler> handler) {
  auto entry = std::make_shared<Entry>();
  entry->name = name;
  entry->target = {method, provider};
  entry->handler = std::move(handler);
  std::lock_guard<std::mutex> lock(mutex_);
  const auto same = handlers_.lower_bound({method, 0});
  if (same != handlers_.end() && same->first.first == method && same->second->name != name)
    return {Code::invalid, "the names '" + name + "' and '" + same->second->name +
                               "' have the same hash; rename one of them"};
  first_.emplace(method, entry);
  if (!handlers_.emplace(std::make_pair(method, provider), std::move(entry)).second)
    return {Code::invalid, "'" + name + "' is registered already for provider " +
                               std::to_string(provider) + "; deregister it first"};
  return {};
}

Status Messenger::remove_handler(const Target& target) {
  std::shared_ptr<Entry> removed;  // ends outside the lock
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handlers_.find({target.method, target.provider});
  if (found == handlers_.end()) return {Code::no_method, "nothing of that name is registered"};
  removed = std::move(found->second);
  handlers_.erase(found);
  const auto first = first_.find(target.method);
  if (first == first_.end() || first->second != removed) return {};
  const auto other = handlers_.lower_bound({target.method, 0});
  if (other != handlers_.end() && other->first.first == target.method)
    first->second = other->second;
  else
    first_.erase(first);
  return {};
}

std::vector<MethodStats> Messenger::served() const {
  std::vector<MethodStats> all;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [key, entry] : handlers_)
    all.push_back({entry->name, entry->target.provider, entry->tally->calls, entry->tally->failures,
                   entry->tally->bytes_in, entry->tally->bytes_out});
  return all;
}

std::size_t Messenger::calls_in_flight() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return slots_.size() - free_.size();
}

const std::shared_ptr<Messenger::Entry>& Messenger::entry_locked(const Target& target) const {
  static const std::shared_ptr<Entry> none;
  const auto first = first_.find(target.method);
  if (first == first_.end()) return none;
  if (first->second->target.provider == target.provider) return first->second;
  const auto found = handlers_.find({target.method, target.provider});
  return found == handlers_.end() ? none : found->second;
}

Status Messenger::missing(const Target& target) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto other = handlers_.lower_bound({target.method, 0});
  const bool has_others = other != handlers_.end() && other->first.first == target.method;
  // It may have been registered since it was looked up.
  if (has_others && handlers_.count({target.method, target.provider}) == 0)
    return {Code::no_provider, "'" + other->second->name + "' is not registered for provider " +
                                   std::to_string(target.provider)};
  return {Code::no_method, "no such procedure is registered there"};
}

void Messenger::dispatch(Request& request) {
  std::shared_ptr<Entry> entry;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    entry = entry_locked({request.method, request.provider});
  }
  dispatch(request, entry.get());
}

void Messenger::dispatch(Request& request, const Entry* entry) {
  const bool refused = refusing_.load(std::memory_order_relaxed) && (request.method & kHashed) != 0;
  if (entry == nullptr && !refused)
    return request.responder.reply(missing({request.method, request.provider}));
  if (!request.caller.trusted && (entry == nullptr || !entry->handler->open_to_strangers()))
    return request.responder.reply(untrusted());
  // By an engine that is closed its procedures are forgotten already.
  if (refused) return request.responder.reply({Code::closed, "the engine there is shutting down"});
  entry->tally->calls.fetch_add(1, std::memory_order_relaxed);
  if (const std::size_t size = request.body.size + request.payload.span.size; size > 0)
    entry->tally->bytes_in.fetch_add(size, std::memory_order_relaxed);
  request.responder.count_in(entry->tally);
  entry->handler->handle(request);
}

// Peers.

void Messenger::add_peer(const std::shared_ptr<fabric::Channel>& channel, const Caller& caller) {
  std::lock_guard<std::mutex> lock(mutex_);
  callers_[channel.get()] = std::make_shared<const Caller>(caller);
}

void Messenger::remove_peer(const std::shared_ptr<fabric::Channel>& channel) {
  std::lock_guard<std::mutex> lock(mutex_);
  callers_.erase(channel.get());
}

void Messenger::lost(const std::shared_ptr<fabric::Channel>& channel, Status why) {
  std::vector<std::uint64_t> orphans;
  std::vector<std::shared_ptr<DeferredResponder>> unwanted;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    callers_.erase(channel.get());
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].channel == channel) orphans.push_back(id_at(i));
    for (auto at = deferred_.lower_bound({channel.get(), 0});
         at != deferred_.end() && at->first.first == channel.get(); ++at)
      if (auto responder = at->second.lock()) unwanted.push_back(std::move(responder));
  }
  for (const auto& responder : unwanted) responder->cancel();
  for (const std::uint64_t id : orphans)
    give_up(id, {Code::peer_lost, "the connection was lost: " + why.message()});
}

void Messenger::close(const std::shared_ptr<fabric::Channel>& channel) {
  channel->close();
  lost(channel, {Code::peer_lost, "it was closed on this side"});
}

void Messenger::end_calls(const Status& why) {
  std::vector<std::uint64_t> ended;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    why_closed_ = why;
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].call != nullptr && slots_[i].call->into_.empty()) ended.push_back(id_at(i));
  }
  for (const std::uint64_t id : ended) give_up(id, why);
}

void Messenger::close_all(const Status& why) {
  std::vector<std::uint64_t> orphans;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    why_closed_ = why;
    callers_.clear();
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].call != nullptr) orphans.push_back(id_at(i));
  }
  for (const std::uint64_t id : orphans) give_up(id, why);
}

// Calls.

Messenger::Slot* Messenger::find_locked(std::uint64_t id) {
  const auto index = static_cast<std::size_t>(id & 0xffffffffu);
  if (index >= slots_.size()) return nullptr;
  Slot& slot = slots_[index];
  return slot.call != nullptr && slot.generation == id >> 32 ? &slot : nullptr;
}

std::uint64_t Messenger::add_locked(Call* call, const std::shared_ptr<fabric::Channel>& channel) {
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.call = call;
  slot.channel = channel;
  ++slot.generation;
  slot.receiving = slot.watched = false;
  return id_at(index);
}

Messenger::Taken Messenger::take_locked(std::uint64_t id) {
  Slot* slot = find_locked(id);
  if (slot == nullptr) return {};
  if (slot->watched) --watched_;
  free_.push_back(static_cast<std::uint32_t>(id & 0xffffffffu));
  return {std::exchange(slot->call, nullptr), std::move(slot->channel)};
}

void Messenger::start(const std::shared_ptr<fabric::Channel>& channel, const Target& target,
                      ConstSpan body, fabric::Payload payload, Deadline deadline, bool watched,
                      Call* call) {
  RequestHead head;
  head.provider = target.provider;
  head.method = target.method;
  head.budget_us = to_budget(deadline);
  Status closed;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) {
      closed = why_closed_;
    } else {
      head.call = call->id_ = add_locked(call, channel);
      if (watched) {
        Slot& slot = *find_locked(head.call);
        slot.watched = true;
        slot.deadline = deadline.at();
        ++watched_;
      }
    }
  }
  if (!closed.ok()) return call->complete(std::move(closed));
  send_message(*channel, head, body, std::move(payload));
  // The loss may have been told before the call was in the table.
  if (!channel->alive()) give_up(head.call, {Code::peer_lost, "the connection was lost"});
}

Status Messenger::notify(const std::shared_ptr<fabric::Channel>& channel, const Target& target,
                         ConstSpan body, fabric::Payload payload, Deadline deadline) {
  RequestHead head;
  head.flags = kOneWay;
  head.provider = target.provider;
  head.method = target.method;
  head.budget_us = to_budget(deadline);
  send_message(*channel, head, body, std::move(payload));
  return channel->alive() ? Status() : Status(Code::peer_lost, "the connection was lost");
}

void Messenger::give_up(std::uint64_t id, const Status& status) {
  Taken taken;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Slot* slot = find_locked(id);
    if (slot == nullptr || slot->receiving) return;
    taken = take_locked(id);
  }
  taken.call->complete(status);
}

bool Messenger::cancel(const Call& call) {
  Taken taken;
  CancelHead head;
  head.call = call.id_;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Slot* slot = find_locked(head.call);
    if (slot == nullptr || slot->receiving || slot->call != &call) return false;
    taken = take_locked(head.call);
  }
  taken.channel->send({{&head, sizeof head}, {}}, nullptr);
  taken.call->complete({Code::cancelled, "the call was cancelled"});
  return true;
}

bool Messenger::expire(Nanoseconds time) {
  std::vector<Taken> overdue;
  bool more;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t i = 0; watched_ > 0 && i < slots_.size(); ++i) {
      const Slot& slot = slots_[i];
      if (slot.call == nullptr || !slot.watched || slot.receiving || slot.deadline > time) continue;
      overdue.push_back(take_locked(id_at(i)));
    }
    more = watched_ > 0;
  }
  for (const Taken& taken : overdue)
    taken.call->complete({Code::timed_out, "no answer by the deadline"});
  return more;
}

// Arrivals.

Span Messenger::pooled(std::size_t size) {
  auto taken = pool_->take_at_once(size);
  if (!taken) {
    log_warn_once("a message was refused: " + taken.status().message());
    return {};
  }
  auto buffer = std::make_shared<memory::Pool::Buffer>(std::move(taken).value());
  const Span span = buffer->span();
  std::lock_guard<std::mutex> lock(mutex_);
  holds_.emplace(span.data, Delivery{span, std::move(buffer)});
  return span;
}

Delivery Messenger::take_hold(Span payload) {
  if (payload.empty()) return {};
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = holds_.find(payload.data);
  if (found == holds_.end()) return {payload, nullptr};
  Delivery delivery{payload, std::move(found->second.keep)};
  holds_.erase(found);
  return delivery;
}

Span Messenger::destination(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                            std::size_t payload_size) {
  if (header.empty()) return {};
  if (static_cast<MessageType>(header.data[0]) == MessageType::reply) {
    ReplyHead head;
    if (!read_head(header, &head)) return {};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      Slot* slot = find_locked(head.call);
      if (slot == nullptr || slot->channel != from || slot->receiving) return {};
      if ((head.flags & kBodyInPayload) == 0 && slot->call->where_ == Call::Payload::into) {
        if (payload_size > slot->call->into_.size) return {};
        slot->receiving = true;
        return slot->call->into_.slice(0, payload_size);
      }
    }
    return pooled(payload_size);
  }
  RequestHead head;
  if (!read_head(header, &head) || head.type != MessageType::request) return {};
  std::shared_ptr<const Caller> caller;
  std::shared_ptr<Entry> entry;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = callers_.find(from.get());
    if (found == callers_.end()) return {};
    entry = entry_locked({head.method, head.provider});
    if (!entry) return {};
    caller = found->second;
    if (!caller->trusted && !entry->handler->open_to_strangers()) return {};
  }
  if ((head.flags & kBodyInPayload) == 0) {
    auto delivery =
        entry->handler->delivery(head.method, header.from(sizeof head), payload_size, *caller);
    if (delivery) {
      if (delivery->span.empty()) return {};
      const Span span = delivery->span;
      std::lock_guard<std::mutex> lock(mutex_);
      holds_.emplace(span.data, std::move(*delivery));
      return span;
    }
  }
  return pooled(payload_size);
}

void Messenger::arrived(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                        Span payload, Status status) {
  const auto type = header.empty() ? MessageType() : static_cast<MessageType>(header.data[0]);
  if (type == MessageType::reply) return take_reply(from, header, payload, status);
  if (type == MessageType::request) return take_request(from, header, payload, status);
  CancelHead head;
  if (type == MessageType::cancel && read_head(header, &head))
    return cancel_served({from.get(), head.call});
  log_warn_once("a peer sent a message without a head");
}

void Messenger::take_request(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                             Span payload, const Status& status) {
  RequestHead head;
  if (!read_head(header, &head)) return log_warn_once("a peer sent a message without a head");
  // Until the request is handled: its block may be given up meanwhile.
  Delivery landed = take_hold(payload);
  std::shared_ptr<const Caller> caller;
  std::shared_ptr<Entry> entry;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = callers_.find(from.get());
    if (found == callers_.end()) return;  // its connection ended meanwhile
    caller = found->second;
    entry = entry_locked({head.method, head.provider});
  }
  const bool one_way = (head.flags & kOneWay) != 0;
  DoorResponder responder(from, head.call, one_way);
  DoorRequest request(*this, *caller, responder);
  request.method = head.method;
  request.provider = head.provider;
  request.one_way = one_way;
  request.budget_us = head.budget_us;
  request.payload.keep = std::move(landed.keep);
  // A payload is refused for want of a handler, too.
  if (!status.ok() && entry) return responder.reply(status);
  if (status.ok() &&
      !split(head.flags, header.from(sizeof head), payload, &request.body, &request.payload.span))
    return responder.reply({Code::protocol, "a garbled request"});
  dispatch(request, entry.get());
}

// Only who was asked may answer, and once: while one answer's payload is on its way, no other
// counts.
void Messenger::take_reply(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                           Span payload, const Status& status) {
  ReplyHead head;
  if (!read_head(header, &head)) return log_warn_once("a peer sent a message without a head");
  Delivery landed = take_hold(payload);
  ConstSpan body;
  Span rest;
  const bool whole = split(head.flags, header.from(sizeof head), payload, &body, &rest);
  Taken taken;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Slot* slot = find_locked(head.call);
    if (slot == nullptr || slot->channel != from) return;
    if (slot->receiving && payload.data != slot->call->into_.data) return;
    taken = take_locked(head.call);
  }
  Call* const call = taken.call;
  Status outcome = status;
  if (outcome.ok()) outcome = whole ? reply_status(head, body) : garbled("reply");
  if (outcome.ok() || outcome.code() == Code::raised) {
    call->reply_.assign(body.data, body.data + body.size);
    call->received_ = rest.size;
    if (call->where_ == Call::Payload::pooled)
      call->payload_ = {rest, std::move(landed.keep)};
    else if ((head.flags & kBodyInPayload) != 0 && rest.size <= call->into_.size)
      copy_bytes(call->into_.data, rest);
  }
  call->complete(std::move(outcome));
}

void Messenger::cancel_served(const Deferred& which) {
  std::shared_ptr<DeferredResponder> responder;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = deferred_.find(which);
    if (found != deferred_.end()) responder = found->second.lock();
  }
  if (responder) responder->cancel();
}

}  // namespace pshpc::rpc
