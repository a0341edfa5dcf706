#pragma once
// Requests and replies over the messages of a door: matches replies with their calls, hands
// requests to the service.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "fabric/door.h"
#include "objects/service.h"

namespace pshpc::objects {

// A call in flight. Its reply's payload goes straight to `into`.
class Call : public fabric::Operation {
 public:
  Call(Span into, std::shared_ptr<const void> keep)
      : fabric::Operation(std::move(keep)), into_(into) {}

  // After done() with an ok status.
  const Bytes& reply() const { return reply_; }
  std::size_t received() const { return received_; }

 private:
  friend class Messenger;
  Span into_;
  Bytes reply_;
  std::size_t received_ = 0;
};

class Messenger : public fabric::Receiver {
 public:
  explicit Messenger(Service& service) : service_(service) {}

  // A peer that said hello; what it sends from now on is answered.
  void add_peer(const std::shared_ptr<fabric::Channel>& channel, const Caller& caller);
  void remove_peer(const std::shared_ptr<fabric::Channel>& channel);

  // Closes a channel by force and completes the calls that went through it.
  void close(const std::shared_ptr<fabric::Channel>& channel);
  // Completes all calls, when no door delivers anything any more.
  void close_all();

  // Sends a request. The call completes with its reply, or when the channel is lost.
  void start(const std::shared_ptr<fabric::Channel>& channel, Kind kind, ConstSpan body,
             ConstSpan payload, std::shared_ptr<const void> keep, Call* call);

  Span destination(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                   std::size_t payload_size) override;
  void arrived(const std::shared_ptr<fabric::Channel>& from, ConstSpan header, Span payload,
               Status status) override;
  void lost(const std::shared_ptr<fabric::Channel>& channel, Status why) override;

  // Bytes of scratch memory that announced payloads may take at once.
  static constexpr std::size_t kMaxScratch = 16u << 20;

 private:
  class DoorResponder;
  struct Pending {
    Call* call;
    fabric::Channel* channel;
    // The door writes into the call's memory: it ends with arrived(), whatever happens before.
    bool receiving = false;
  };
  using Scratch = std::unordered_map<const std::uint8_t*, std::unique_ptr<Bytes>>;
  using Holds = std::unordered_multimap<const std::uint8_t*, std::shared_ptr<const void>>;

  Span scratch(std::size_t size);
  std::unique_ptr<Bytes> take_scratch(Span payload);
  std::shared_ptr<const void> take_hold(Span payload);
  bool expected(std::uint64_t id, const fabric::Channel* from, Span payload);
  void give_up(std::uint64_t id, const Status& status);
  void finish(std::uint64_t id, ConstSpan body, std::size_t received, const Status& status);

  Service& service_;
  std::mutex mutex_;
  std::uint64_t next_id_ = 1;
  std::unordered_map<std::uint64_t, Pending> pending_;
  std::unordered_map<const fabric::Channel*, Caller> callers_;
  Scratch scratch_;
  std::size_t scratch_size_ = 0;
  Holds holds_;  // of blocks that a door writes into
  bool closed_ = false;
};

}  // namespace pshpc::objects
