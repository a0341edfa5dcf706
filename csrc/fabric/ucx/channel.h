#pragma once
// The way to one peer over UCX.

#include <atomic>
#include <deque>
#include <functional>

#include "fabric/door.h"
#include "fabric/ucx/endpoint.h"
#include "fabric/ucx/inbox.h"
#include "fabric/ucx/lanes.h"
#include "fabric/ucx/worker.h"

namespace pshpc::fabric::ucx {

class UcxChannel final : public Channel,
                         public Endpoint::Owner,
                         public Inbox::Greeted,
                         public DeathWatch::Mourner,
                         public std::enable_shared_from_this<UcxChannel> {
 public:
  // Both sides have told each other address and token.
  static Expected<std::shared_ptr<UcxChannel>> connect(const std::shared_ptr<Worker>& worker,
                                                       const ProcessId& peer, ConstSpan address,
                                                       std::uint64_t local_token,
                                                       std::uint64_t remote_token);
  // By host and port, or the answer to that; the tokens follow in a first message of each side, and
  // what is sent before waits for it.
  static Expected<std::shared_ptr<UcxChannel>> dial(const std::shared_ptr<Worker>& worker,
                                                    const sockaddr* address, socklen_t size);
  // `ready` gets the channel once the other side's token is known.
  using Ready = std::function<void(std::shared_ptr<Channel>)>;
  static Expected<std::shared_ptr<UcxChannel>> accept(const std::shared_ptr<Worker>& worker,
                                                      ucp_conn_request_h request, Ready ready);

  UcxChannel(std::shared_ptr<Worker> worker, std::uint64_t local_token);
  ~UcxChannel() override;

  std::uint64_t token() const override { return local_token_; }
  bool one_sided() const override { return one_sided_.load(std::memory_order_relaxed); }
  bool prefers_message(std::size_t size) const override {
    return size >= message_from_.load(std::memory_order_relaxed);
  }
  bool alive() const override { return alive_.load(std::memory_order_acquire); }
  std::string describe() const override;

  void send(Message message, Operation* operation) override;
  Expected<std::shared_ptr<RemoteRegion>> import(ConstSpan handle) override;
  void read(const RemoteRegion& region, std::uint64_t offset, Span into,
            Operation* operation) override;
  void write(const RemoteRegion& region, std::uint64_t offset, ConstSpan from,
             Operation* operation) override;
  void close() override;

  void failed_locked(ucs_status_t why) override;
  void greeted_locked(std::uint64_t remote_token) override;
  void died_locked() override;

 private:
  struct Unsent {
    Bytes header;
    Payload payload;
    Operation* operation;
  };

  void look_at_lanes_locked();
  void open_locked(Worker::Guard& guard);
  void greet_locked(Worker::Guard& guard);
  void flush_unsent();
  void end_locked(Status why);
  void post_locked(Worker::Guard& guard, MessageKind kind, ConstSpan header, Payload payload,
                   Operation* operation);
  void send_locked(Worker::Guard& guard, Message message, Operation* operation);
  Status usable_locked(const Worker::Guard& guard) const;
  Status check_span_locked(const Worker::Guard& guard, const RemoteRegion& region,
                           std::uint64_t offset, std::uint64_t size) const;

  std::shared_ptr<Worker> worker_;
  const std::uint64_t local_token_;
  std::atomic<bool> alive_{true};
  std::atomic<bool> one_sided_{false};
  std::atomic<std::size_t> message_from_{0};

  // Under the worker's lock.
  Endpoint endpoint_;
  std::uint64_t remote_token_ = 0;  // 0 until greeted
  std::uint32_t sequence_ = 0;
  std::vector<Lane> lanes_;
  Status ended_;
  std::deque<Unsent> unsent_;
  Ready ready_;
  std::shared_ptr<UcxChannel> self_;  // an accepted channel nobody has yet, until `ready_` ran
};

}  // namespace pshpc::fabric::ucx
