#pragma once
// A transfer that is made again and again: what it needs is found once.

#include <memory>
#include <mutex>

#include "objects/bulk_client.h"

namespace pshpc::objects {

class PreparedTransfer {
 public:
  PreparedTransfer(std::shared_ptr<BulkClient> client, BulkOrder order)
      : client_(std::move(client)), order_(std::move(order)) {}

  // Blocks; any thread, one after the other. The name of the way.
  Expected<const char*> run(Deadline deadline);

 private:
  Status go(Deadline deadline) const;

  const std::shared_ptr<BulkClient> client_;
  std::mutex mutex_;  // everything below
  BulkOrder order_;
  BulkClient::DirectWay way_;
};

}  // namespace pshpc::objects
