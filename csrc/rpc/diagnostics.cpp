#include "rpc/diagnostics.h"

#include "base/wire.h"

namespace pshpc::rpc {
namespace {

class Ping final : public Handler {
 public:
  void handle(Request& request) override { request.responder.reply({}); }
};

class Echo final : public Handler {
 public:
  void handle(Request& request) override {
    request.responder.reply({}, request.body, {request.payload.span, request.payload.keep}, {});
  }
};

class Names final : public Handler {
 public:
  explicit Names(std::weak_ptr<Messenger> messenger) : messenger_(std::move(messenger)) {}
  void handle(Request& request) override {
    const auto messenger = messenger_.lock();
    if (!messenger) return request.responder.reply({Code::closed, "the engine is closed"});
    const auto served = messenger->served();
    WireWriter out;
    out.put(static_cast<std::uint32_t>(served.size()));
    for (const MethodStats& method : served) out.put_text(method.name).put(method.provider);
    request.responder.reply({}, out.bytes());
  }

 private:
  std::weak_ptr<Messenger> messenger_;
};

}  // namespace

Status serve_diagnostics(const std::shared_ptr<Messenger>& messenger) {
  Status status = messenger->add_handler(kPing, method_id(kPing), 0, std::make_shared<Ping>());
  if (status.ok())
    status = messenger->add_handler(kEcho, method_id(kEcho), 0, std::make_shared<Echo>());
  if (status.ok())
    status =
        messenger->add_handler(kNames, method_id(kNames), 0, std::make_shared<Names>(messenger));
  return status;
}

}  // namespace pshpc::rpc
