#pragma once
// Requests and replies over the messages of a door: matches replies with their calls, hands
// requests to their handlers.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fabric/door.h"
#include "memory/pool.h"
#include "rpc/handler.h"
#include "rpc/wire.h"

namespace pshpc::rpc {

// A call in flight. Its reply's payload goes to `into`; with Payload::pooled, to the receive pool.
class Call : public fabric::Operation {
 public:
  enum class Payload { into, pooled };

  explicit Call(Span into = {}, std::shared_ptr<const void> keep = nullptr)
      : fabric::Operation(std::move(keep)), into_(into) {}
  explicit Call(Payload where) : where_(where) {}

  // After done(): the reply's body if the status is ok, or what a handler raised.
  const Bytes& reply() const { return reply_; }
  std::size_t received() const { return received_; }
  // Of Payload::pooled.
  Delivery take_payload() { return std::exchange(payload_, {}); }

 private:
  friend class Messenger;
  const Payload where_ = Payload::into;
  Span into_;
  Bytes reply_;
  Delivery payload_;
  std::size_t received_ = 0;
  std::uint64_t id_ = 0;
};

struct Target {
  MethodId method = 0;
  std::uint16_t provider = 0;
};

// What was served and asked, by name and provider.
struct MethodStats {
  std::string name;
  std::uint16_t provider = 0;
  std::uint64_t calls = 0;
  std::uint64_t failures = 0;  // answered with anything but ok
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
};

class Messenger : public fabric::Receiver, public std::enable_shared_from_this<Messenger> {
 public:
  explicit Messenger(std::shared_ptr<memory::Pool> pool) : pool_(std::move(pool)) {}

  // Code::invalid if there is one already, or another name has the same hash.
  Status add_handler(const std::string& name, MethodId method, std::uint16_t provider,
                     std::shared_ptr<Handler> handler);
  Status remove_handler(const Target& target);
  std::vector<MethodStats> served() const;
  std::size_t calls_in_flight() const;
  // From now on requests are refused with Code::closed, but for those of the library itself.
  void refuse_requests() { refusing_ = true; }

  // A peer that said hello; what it sends from now on is answered.
  void add_peer(const std::shared_ptr<fabric::Channel>& channel, const Caller& caller);
  void remove_peer(const std::shared_ptr<fabric::Channel>& channel);

  // Closes a channel by force and completes the calls that went through it.
  void close(const std::shared_ptr<fabric::Channel>& channel);
  // Completes the calls that no door can write into any more, or later; no new ones begin.
  void end_calls(const Status& why);
  // Completes all calls, when no door delivers anything any more.
  void close_all(const Status& why);

  // Sends a request. The call completes with its reply, when the channel is lost, or, if it is
  // `watched`, at its deadline: see expire().
  void start(const std::shared_ptr<fabric::Channel>& channel, const Target& target, ConstSpan body,
             fabric::Payload payload, Deadline deadline, bool watched, Call* call);
  // Nobody answers it; Code::peer_lost if the channel is.
  Status notify(const std::shared_ptr<fabric::Channel>& channel, const Target& target,
                ConstSpan body, fabric::Payload payload, Deadline deadline);
  // Completes a call with Code::cancelled and tells its handler's side. False if it is done, or
  // its reply is on its way already.
  bool cancel(const Call& call);
  // Completes watched calls whose time is up; whether there are others.
  bool expire(Nanoseconds time);

  // Looks the handler up and runs it, wherever the request came from.
  void dispatch(Request& request);

  Span destination(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                   std::size_t payload_size) override;
  void arrived(const std::shared_ptr<fabric::Channel>& from, ConstSpan header, Span payload,
               Status status) override;
  void lost(const std::shared_ptr<fabric::Channel>& channel, Status why) override;

 private:
  class DoorResponder;
  class DeferredResponder;
  class DoorRequest;
  friend class DeferredResponder;

  struct Slot {
    Call* call = nullptr;
    std::shared_ptr<fabric::Channel> channel;
    std::uint32_t generation = 0;
    // The door writes into the call's memory: it ends with arrived(), whatever happens before.
    bool receiving = false;
    bool watched = false;
    Nanoseconds deadline = 0;
  };
  struct Entry {
    std::string name;
    Target target;
    std::shared_ptr<Handler> handler;
    const std::shared_ptr<Tally> tally = std::make_shared<Tally>();
  };
  using Deferred = std::pair<const fabric::Channel*, std::uint64_t>;
  using Lock = std::unique_lock<std::mutex>;

  // A call that is in flight no more. The channel ends outside the lock.
  struct Taken {
    Call* call = nullptr;
    std::shared_ptr<fabric::Channel> channel;
  };

  std::uint64_t id_at(std::size_t index) const {
    return std::uint64_t{slots_[index].generation} << 32 | index;
  }
  Slot* find_locked(std::uint64_t id);
  std::uint64_t add_locked(Call* call, const std::shared_ptr<fabric::Channel>& channel);
  Taken take_locked(std::uint64_t id);
  const std::shared_ptr<Entry>& entry_locked(const Target& target) const;
  void dispatch(Request& request, const Entry* entry);
  Status missing(const Target& target) const;
  Span hold(Delivery delivery, Lock* lock);
  Span pooled(std::size_t size);
  Delivery take_hold(Span payload);
  void take_request(const std::shared_ptr<fabric::Channel>& from, ConstSpan header, Span payload,
                    const Status& status);
  void take_reply(const std::shared_ptr<fabric::Channel>& from, ConstSpan header, Span payload,
                  const Status& status);
  void give_up(std::uint64_t id, const Status& status);
  void cancel_served(const Deferred& which);

  const std::shared_ptr<memory::Pool> pool_;
  std::atomic<bool> refusing_{false};

  mutable std::mutex mutex_;  // everything below
  bool closed_ = false;
  Status why_closed_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::size_t watched_ = 0;
  std::unordered_map<const fabric::Channel*, std::shared_ptr<const Caller>> callers_;
  std::map<std::pair<MethodId, std::uint16_t>, std::shared_ptr<Entry>> handlers_;
  std::unordered_map<MethodId, std::shared_ptr<Entry>> first_;  // of each method, to find it sooner
  // Payloads that a door writes now, by their first byte.
  std::unordered_multimap<const std::uint8_t*, Delivery> holds_;
  std::map<Deferred, std::weak_ptr<DeferredResponder>> deferred_;
};

}  // namespace pshpc::rpc
