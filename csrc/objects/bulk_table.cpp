#include "objects/bulk_table.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

namespace pshpc::objects {
namespace {

// How long the end of a handle waits for transfers before it leaves the memory registered.
constexpr Nanoseconds kLastTransfers = kSecond;
constexpr auto kPinPeriod = std::chrono::microseconds(100);

Status gone(std::uint64_t id) {
  return {Code::evicted, "bulk " + std::to_string(id) + " is not exposed any more: it was closed"};
}

}  // namespace

Expected<Span> ExposedBulk::range(std::uint64_t offset, std::uint64_t length) const {
  for (const Span& span : spans) {
    if (offset < span.size || (offset == span.size && length == 0)) {
      if (length > span.size - offset) break;
      return span.slice(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
    }
    offset -= span.size;
  }
  return Status(Code::invalid, "the bytes asked for lie outside of a piece of " + bulk.describe());
}

Expected<std::unique_ptr<BulkMemory>> BulkTable::expose(const std::vector<Span>& spans,
                                                        std::uint8_t mode) {
  if (mode < kBulkRead || mode > (kBulkRead | kBulkWrite))
    return Status(Code::invalid, "memory is exposed for reading, writing or both");
  if (spans.size() > Bulk::kMaxPieces)
    return Status(Code::invalid, std::to_string(spans.size()) + " buffers in one bulk; at most " +
                                     std::to_string(Bulk::kMaxPieces) + " are possible");
  auto exposed = std::make_shared<ExposedBulk>();
  exposed->spans = spans;
  Bulk& bulk = exposed->bulk;
  bulk.owner = owner_->self();
  bulk.capability = random_tag();
  bulk.mode = mode;

  auto gate = owner_->reserve(0);
  if (!gate) return gate.status();
  exposed->gate = gate->block;
  auto key = owner_->publish(gate->object_id, {0, kPinned | kGate}, true);
  if (!key) {
    owner_->abort(gate->object_id);
    return key.status();
  }
  bulk.gate = {key->segment, key->offset, key->object_id, key->generation};

  for (const Span& span : spans) {
    BulkPiece piece;
    piece.length = span.size;
    bulk.length += span.size;
    piece.place = reinterpret_cast<std::uintptr_t>(span.data);
    if (!span.empty()) {
      if (const auto block = owner_->arena().locate(span.data, span.size)) {
        piece.segment = static_cast<std::uint16_t>(block->segment);
        piece.place = block->offset;
      }
      // Of its own, also where a registration covers it already: a peer that was given the key to a
      // shared one would keep it after the end of this exposure.
      piece.region = exposure_->next_live_region();
      exposure_->add({piece.region, span, -1, memory::MemoryType::host});
    }
    bulk.pieces.push_back(piece);
  }
  auto memory = std::make_unique<BulkMemory>(shared_from_this(), exposed);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) {
      bulk.id = next_id_++;
      exposed_[bulk.id] = std::move(exposed);
      return memory;
    }
  }
  return Status(Code::closed, "memory cannot be exposed any more: it was closed on this side");
}

Expected<std::shared_ptr<const ExposedBulk>> BulkTable::use(std::uint64_t id, const Tag& capability,
                                                            std::uint8_t mode) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = exposed_.find(id);
  if (found == exposed_.end()) {
    if (id != 0 && id < next_id_) return gone(id);
    return Status(Code::not_found, "there never was a bulk " + std::to_string(id));
  }
  const std::shared_ptr<ExposedBulk>& exposed = found->second;
  if (!equal_tags(capability, exposed->bulk.capability))
    return Status(Code::denied,
                  "the handle of bulk " + std::to_string(id) + " was not issued by its owner");
  if ((exposed->bulk.mode & mode) != mode)
    return Status(Code::denied, exposed->bulk.describe() + " is not exposed for " +
                                    (mode == kBulkWrite ? "writing" : "reading"));
  ++exposed->uses;
  return std::shared_ptr<const ExposedBulk>(
      exposed.get(),
      [table = shared_from_this(), exposed](const ExposedBulk*) { table->end_use(*exposed); });
}

void BulkTable::end_use(ExposedBulk& exposed) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (--exposed.uses == 0) unused_.notify_all();
}

void BulkTable::revoke(std::uint64_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  exposed_.erase(id);
}

bool BulkTable::wait_for_uses(const ExposedBulk& exposed, Deadline deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (exposed.uses > 0) {
    if (deadline.passed()) return false;
    unused_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
  }
  return true;
}

void BulkTable::close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  exposed_.clear();
}

BulkMemory::BulkMemory(std::shared_ptr<BulkTable> table, std::shared_ptr<ExposedBulk> exposed)
    : table_(std::move(table)), exposed_(std::move(exposed)) {}

// What a peer may still touch, or belongs to the process that this one was forked from, stays
// registered.
BulkMemory::~BulkMemory() { static_cast<void>(close(Deadline::after(kLastTransfers))); }

Status BulkMemory::close(Deadline deadline) {
  if (closed_) return {};
  Owner& owner = table_->owner();
  const BulkGate& gate = bulk().gate;
  // From now on peers of this node find the gate closed.
  const Status evicted = owner.evict(gate.object_id, owner.capability(gate.object_id), true);
  if (!evicted.ok()) return evicted;  // in a forked child
  table_->revoke(bulk().id);
  bool idle = table_->wait_for_uses(*exposed_, deadline);
  while (idle && owner.watched(exposed_->gate)) {
    if (deadline.passed()) idle = false;
    std::this_thread::sleep_for(kPinPeriod);
  }
  if (!idle)
    return {Code::timed_out, "a transfer of " + bulk().describe() +
                                 " does not end, so the memory has to stay; close it again later"};
  for (const BulkPiece& piece : bulk().pieces)
    if (piece.length > 0) table_->exposure().remove(piece.region);
  owner.unpin(exposed_->gate);
  closed_ = true;
  return {};
}

}  // namespace pshpc::objects
