#pragma once
// Answers requests about exposed memory: on the progress thread, or on one that drives a door while
// it waits. Never blocks, never touches Python. Every request shows the capability; the mode and
// the range are checked for each. Strangers are turned away before they get here.

#include <memory>
#include <optional>

#include "objects/bulk_table.h"
#include "rpc/handler.h"

namespace pshpc::objects {

class BulkService : public rpc::Handler {
 public:
  explicit BulkService(std::shared_ptr<BulkTable> table) : table_(std::move(table)) {}

  // Under all methods of BulkKind.
  static Status serve(const std::shared_ptr<BulkService>& service, rpc::Messenger& messenger);

  void handle(rpc::Request& request) override;
  // Pushed bytes go straight into place; no other request may bring any.
  std::optional<rpc::Delivery> delivery(rpc::MethodId method, ConstSpan body, std::size_t size,
                                        const rpc::Caller& caller) override;

 private:
  struct Ref {
    std::uint64_t id;
    Tag capability;
  };

  Status check(const Ref& ref, WireReader& in, rpc::Request& request);
  Status segment(const Ref& ref, WireReader& in, rpc::Request& request);
  Status region(const Ref& ref, WireReader& in, rpc::Request& request);
  Status fetch(const Ref& ref, WireReader& in, rpc::Request& request);
  Status deliver(const Ref& ref, WireReader& in, rpc::Request& request);

  const std::shared_ptr<BulkTable> table_;
};

}  // namespace pshpc::objects
