#pragma once
// Answers requests about the objects of this process, whichever way they came: on the progress
// thread, or on a thread that drives a door while it waits. Never blocks, never touches Python.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "objects/handover.h"
#include "objects/owner.h"
#include "objects/protocol.h"
#include "rpc/exposure.h"
#include "rpc/handler.h"

namespace pshpc::objects {

using rpc::Caller;
using rpc::Delivery;
using rpc::Responder;

// Code::closed when the reader has left. A pin counts only after this.
Status adopt_pins(Owner& owner, Handover* handover, std::uint64_t connection, Fd table);

class Service : public rpc::Handler {
 public:
  // `handover`: where readers' pins are told, too; may be null.
  Service(std::shared_ptr<Owner> owner, rpc::Exposure& exposure,
          std::shared_ptr<Handover> handover = nullptr)
      : owner_(std::move(owner)), exposure_(exposure), handover_(std::move(handover)) {}

  // Under all methods of Kind.
  static Status serve(const std::shared_ptr<Service>& service, rpc::Messenger& messenger);

  void handle(rpc::Request& request) override;
  // Where the bytes of a deliver request shall go; no other may bring any.
  std::optional<Delivery> delivery(rpc::MethodId method, ConstSpan body, std::size_t size,
                                   const Caller& caller) override;
  // Each request checks what it needs: the key of an object opens that object.
  bool open_to_strangers() const override { return true; }

 private:
  Status locate(WireReader& in, Responder& to);
  Status exists(WireReader& in, Responder& to);
  Status evict(WireReader& in, Responder& to);
  Status segment(WireReader& in, const Caller& caller, Responder& to);
  Status region(WireReader& in, const Caller& caller, Responder& to);
  Expected<Reservation> reserve_as_asked(const ReserveOrder& order, const Caller& caller);
  Status reserve(WireReader& in, const Caller& caller, Responder& to);
  Status deliver(WireReader& in, ConstSpan payload, const Caller& caller, Responder& to);
  Status publish(WireReader& in, const Caller& caller, Responder& to);
  Status store(WireReader& in, const Caller& caller, Responder& to);
  Status abort(WireReader& in, const Caller& caller, Responder& to);
  Status fetch(WireReader& in, Responder& to);
  Status wait(WireReader& in, rpc::Request& request);
  Status hold(WireReader& in, const Caller& caller, Responder& to);
  Status release(WireReader& in, Responder& to);
  Status extend(WireReader& in, Responder& to);
  Status validate(WireReader& in, Responder& to);
  template <class Item, class Read, class Do>
  static Status each(WireReader& in, Responder& to, Read read, Do act);
  Status pin_table(WireReader& in, std::vector<Fd> fds, const Caller& caller, Responder& to);

  std::shared_ptr<Owner> owner_;
  rpc::Exposure& exposure_;
  const std::shared_ptr<Handover> handover_;
};

// The bytes [offset, offset + length) of a payload, live or not, as one or two spans.
struct PayloadRange {
  ConstSpan first;
  ConstSpan second;
};
Expected<PayloadRange> payload_range(const Located& object, std::uint64_t offset,
                                     std::uint64_t length);

}  // namespace pshpc::objects
