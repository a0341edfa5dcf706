// Handlers of other extension modules: the far side of proxystore_hpc/rpc.h.

#include <limits>

#include "bindings/core_rpc.h"
#include "bindings/graveyard.h"
#include "proxystore_hpc/rpc.h"

// A request on its way through a handler, as the C interface sees it.
struct pshpc_call {
  pshpc::rpc::Request& request;
  bool answered = false;
};
struct pshpc_deferred {
  std::shared_ptr<pshpc::rpc::Responder> responder;
};

namespace pshpc::bindings {
namespace {

const void* body_of(const pshpc_call* call, std::size_t* size) {
  *size = call->request.body.size;
  return call->request.body.data;
}
void* payload_of(const pshpc_call* call, std::size_t* size) {
  *size = call->request.payload.span.size;
  return call->request.payload.span.data;
}
std::uint16_t provider_of(const pshpc_call* call) { return call->request.provider; }
double remaining_of(const pshpc_call* call) {
  const Deadline deadline = call->request.deadline();
  if (call->request.budget_us == 0) return std::numeric_limits<double>::infinity();
  return static_cast<double>(deadline.at() - now()) / static_cast<double>(kSecond);
}

// Bytes of the handler's, which go when it returns: large ones need a home until they are sent.
void send(rpc::Responder& to, const void* bytes, std::size_t size) {
  constexpr std::size_t kInBody = 4096;
  if (size <= kInBody) return to.reply({}, ConstSpan(bytes, size));
  auto copy = std::make_shared<Bytes>(ConstSpan(bytes, size).copy());
  const ConstSpan span(*copy);
  to.reply({}, {}, {span, std::move(copy)}, {});
}
void reply(pshpc_call* call, const void* bytes, std::size_t size) {
  if (!std::exchange(call->answered, true)) send(call->request.responder, bytes, size);
}
void fail(pshpc_call* call, const char* message) {
  if (!std::exchange(call->answered, true)) call->request.responder.reply({Code::failed, message});
}
pshpc_deferred* defer(pshpc_call* call) {
  call->answered = true;
  return std::make_unique<pshpc_deferred>(pshpc_deferred{call->request.defer()}).release();
}
void reply_later(pshpc_deferred* deferred, const void* bytes, std::size_t size) {
  const std::unique_ptr<pshpc_deferred> owned(deferred);
  send(*owned->responder, bytes, size);
}
void fail_later(pshpc_deferred* deferred, const char* message) {
  const std::unique_ptr<pshpc_deferred> owned(deferred);
  owned->responder->reply({Code::failed, message});
}

constexpr pshpc_call_functions kFunctions{&body_of,      &payload_of,  &provider_of,
                                          &remaining_of, &reply,       &fail,
                                          &defer,        &reply_later, &fail_later};

class NativeHandler final : public rpc::Handler {
 public:
  NativeHandler(const pshpc_handler& handler, Buriable capsule)
      : handler_(handler), capsule_(std::move(capsule)) {}

  void handle(rpc::Request& request) override {
    pshpc_call call{request};
    handler_.handle(handler_.self, &kFunctions, &call);
    if (!call.answered) request.responder.reply({});
  }

 private:
  const pshpc_handler& handler_;
  const Buriable capsule_;  // owns the handler
};

}  // namespace

std::shared_ptr<rpc::Handler> native_handler(py::object capsule) {
  const auto* handler = static_cast<const pshpc_handler*>(
      PyCapsule_GetPointer(capsule.ptr(), PROXYSTORE_HPC_RPC_CAPSULE));
  if (handler == nullptr) throw py::error_already_set();
  if (handler->abi != PROXYSTORE_HPC_RPC_ABI)
    raise({Code::protocol,
           "the handler was built with another version of proxystore_hpc/rpc.h: "
           "build its module again"});
  return std::make_shared<NativeHandler>(*handler, Buriable(std::move(capsule)));
}

}  // namespace pshpc::bindings
