#pragma once
// The serving side of a call: who asks, what, and how to answer.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/span.h"
#include "base/status.h"
#include "fabric/payload.h"
#include "rpc/address.h"
#include "rpc/wire.h"

namespace pshpc::rpc {

// Who asks.
struct Caller {
  std::uint64_t connection = 0;
  bool trusted = false;  // of the same job, or the same user on the same node
  bool local = false;    // came through the node socket
  std::shared_ptr<const Address> address;
};

// What one procedure did so far.
struct Tally {
  std::atomic<std::uint64_t> calls{0}, failures{0}, bytes_in{0}, bytes_out{0};
};

// Takes the answer to one request, once, at once or later. Dropping it without an answer lets the
// caller wait until its deadline.
class Responder {
 public:
  virtual ~Responder() = default;
  // For Code::raised the body says what was raised; for other failures the message goes, and no
  // body.
  virtual void reply(const Status& status, ConstSpan body, fabric::Payload payload,
                     std::vector<Fd> fds) = 0;
  // Payload bytes that one reply can take.
  virtual std::uint64_t room() const = 0;
  // The caller gave up, or is gone.
  virtual bool cancelled() const { return false; }

  void reply(const Status& status, ConstSpan body = {}) { reply(status, body, {}, {}); }

  void count_in(std::shared_ptr<Tally> tally) { tally_ = std::move(tally); }

 protected:
  void count(const Status& status, std::size_t size) {
    if (!tally_) return;
    if (!status.ok()) tally_->failures.fetch_add(1, std::memory_order_relaxed);
    if (size > 0) tally_->bytes_out.fetch_add(size, std::memory_order_relaxed);
  }

 private:
  std::shared_ptr<Tally> tally_;
};

// Where bytes that a peer sends shall go. The memory stays theirs for as long as `keep` lives.
struct Delivery {
  Span span;
  std::shared_ptr<const void> keep;
};

// Lives for the duration of Handler::handle(); take what is needed longer.
struct Request {
  MethodId method = 0;
  std::uint16_t provider = 0;
  bool one_way = false;
  ConstSpan body;
  Delivery payload;  // empty if there was none
  std::vector<Fd> fds;
  std::uint32_t budget_us = 0;  // that the caller still waits; 0: for ever
  const Caller& caller;
  Responder& responder;

  Deadline deadline() const { return from_budget(budget_us, now()); }
  // The responder, to answer later from any thread.
  virtual std::shared_ptr<Responder> defer() = 0;

 protected:
  ~Request() = default;
  Request(const Caller& c, Responder& r) : caller(c), responder(r) {}
};

class Handler {
 public:
  virtual ~Handler() = default;
  // On the progress thread, or on one that drives a door while it waits. Must not block.
  virtual void handle(Request& request) = 0;
  // Where a payload that a request announces shall go: an empty span refuses it, nothing leaves it
  // to the receive pool.
  virtual std::optional<Delivery> delivery(MethodId method, ConstSpan body, std::size_t size,
                                           const Caller& caller) {
    static_cast<void>(method), static_cast<void>(body), static_cast<void>(size);
    static_cast<void>(caller);
    return std::nullopt;
  }
  // May be called by those who have shown no more than the ticket of one thing.
  virtual bool open_to_strangers() const { return false; }
};

}  // namespace pshpc::rpc
