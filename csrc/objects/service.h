#pragma once
// Answers requests about the objects of this process, whichever way they came: on the progress
// thread, or on a thread that drives a door while it waits. Never blocks, never touches Python.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "objects/exposure.h"
#include "objects/owner.h"
#include "objects/protocol.h"

namespace pshpc::objects {

// Who asks.
struct Caller {
  std::uint64_t connection = 0;
  bool trusted = false;  // of the same job, or the same user on the same node: may store objects
  bool local = false;    // through the node socket: may be handed descriptors
};

// Takes the answer, at once or later.
class Responder {
 public:
  virtual ~Responder() = default;
  // `payload` is kept valid by `keep`.
  virtual void reply(const Status& status, ConstSpan body, ConstSpan payload,
                     std::shared_ptr<const void> keep, std::vector<Fd> fds) = 0;
  // Fetched bytes that one reply can take.
  virtual std::uint64_t room() const = 0;

  void reply(const Status& status, ConstSpan body = {}) { reply(status, body, {}, nullptr, {}); }
};

// Where bytes that a peer sends shall go. The memory stays theirs for as long as `keep` lives.
struct Delivery {
  Span span;
  std::shared_ptr<const void> keep;
};

class Service {
 public:
  Service(std::shared_ptr<Owner> owner, Exposure& exposure)
      : owner_(std::move(owner)), exposure_(exposure) {}

  // `payload` holds the bytes of a deliver request that did not go to their block directly.
  void handle(Kind kind, ConstSpan body, ConstSpan payload, std::vector<Fd> fds,
              const Caller& caller, const std::shared_ptr<Responder>& responder);
  // Where the bytes that a deliver request announces shall go; empty if they are not wanted.
  Delivery delivery(ConstSpan body, std::size_t size, const Caller& caller);

 private:
  Status locate(WireReader& in, Responder& to);
  Status exists(WireReader& in, Responder& to);
  Status evict(WireReader& in, Responder& to);
  Status segment(WireReader& in, const Caller& caller, Responder& to);
  Status region(WireReader& in, const Caller& caller, Responder& to);
  Status reserve(WireReader& in, const Caller& caller, Responder& to);
  Status deliver(WireReader& in, ConstSpan payload, const Caller& caller, Responder& to);
  Status publish(WireReader& in, const Caller& caller, Responder& to);
  Status abort(WireReader& in, const Caller& caller, Responder& to);
  Status fetch(WireReader& in, Responder& to);
  Status wait(WireReader& in, const Caller& caller, const std::shared_ptr<Responder>& to);
  Status pin_table(WireReader& in, std::vector<Fd> fds, const Caller& caller, Responder& to);

  std::shared_ptr<Owner> owner_;
  Exposure& exposure_;
};

// The bytes [offset, offset + length) of a payload, live or not, as one or two spans.
struct PayloadRange {
  ConstSpan first;
  ConstSpan second;
};
Expected<PayloadRange> payload_range(const Located& object, std::uint64_t offset,
                                     std::uint64_t length);

}  // namespace pshpc::objects
