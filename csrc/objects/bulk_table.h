#pragma once
// The owner's side of bulk transfers: what is exposed, and who is using it.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "objects/bulk.h"
#include "objects/owner.h"
#include "rpc/exposure.h"

namespace pshpc::objects {

// Exposed memory as the owner sees it. It stays exposed for as long as somebody uses it.
struct ExposedBulk {
  Bulk bulk;
  std::vector<Span> spans;
  memory::Block gate;
  std::size_t uses = 0;  // under the table's lock

  // Bytes that lie in one piece; Code::invalid if they do not.
  Expected<Span> range(std::uint64_t offset, std::uint64_t length) const;
};

class BulkMemory;

// Any thread.
class BulkTable : public std::enable_shared_from_this<BulkTable> {
 public:
  BulkTable(std::shared_ptr<Owner> owner, std::shared_ptr<rpc::Exposure> exposure)
      : owner_(std::move(owner)), exposure_(std::move(exposure)) {}

  Expected<std::unique_ptr<BulkMemory>> expose(const std::vector<Span>& spans, std::uint8_t mode);
  // The memory can be touched for as long as the result is held. `mode`: what for.
  Expected<std::shared_ptr<const ExposedBulk>> use(std::uint64_t id, const Tag& capability,
                                                   std::uint8_t mode);
  // Nothing begins to be used any more.
  void close();

  Owner& owner() const { return *owner_; }
  rpc::Exposure& exposure() const { return *exposure_; }

 private:
  friend class BulkMemory;
  void revoke(std::uint64_t id);
  void end_use(ExposedBulk& exposed);
  bool wait_for_uses(const ExposedBulk& exposed, Deadline deadline);

  const std::shared_ptr<Owner> owner_;
  const std::shared_ptr<rpc::Exposure> exposure_;

  std::mutex mutex_;  // everything below
  std::condition_variable unused_;
  bool closed_ = false;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, std::shared_ptr<ExposedBulk>> exposed_;
};

// Keeps memory exposed; the memory stays the caller's, who keeps it alive for as long. May outlive
// its instance.
class BulkMemory {
 public:
  BulkMemory(std::shared_ptr<BulkTable> table, std::shared_ptr<ExposedBulk> exposed);
  ~BulkMemory();

  const Bulk& bulk() const { return exposed_->bulk; }
  // Transfers cannot begin any more; waits for those under way. With Code::timed_out a peer is
  // still at it, and the memory must stay: close again later. Peers on other nodes that read or
  // write one-sidedly are not waited for: registration ends, which their adapter reports to them.
  Status close(Deadline deadline);

 private:
  const std::shared_ptr<BulkTable> table_;
  const std::shared_ptr<ExposedBulk> exposed_;
  bool closed_ = false;
};

}  // namespace pshpc::objects
