#pragma once
// An owner of a few megabytes, and a reader's pins as another process would hold them.

#include <fcntl.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "memory/pins.h"
#include "objects/owner.h"
#include "tests/check.h"

namespace pshpc::test {

inline std::shared_ptr<objects::Owner> new_owner(std::uint64_t capacity = 8 << 20,
                                                 Nanoseconds grace = 20 * kMillisecond) {
  objects::OwnerAddress self;
  self.id = random_tag();
  objects::OwnerOptions options;
  options.arena.capacity = capacity;
  options.arena.first_segment = capacity;
  options.grace = grace;
  return std::make_shared<objects::Owner>(self, options,
                                          [](const memory::Segment&) { return Status(); });
}

inline Expected<objects::Key> put(objects::Owner& owner, ConstSpan bytes,
                                  const objects::Policy& policy = {}) {
  return owner.put(bytes.size, {{0, bytes}}, policy);
}

inline objects::Key must_put(objects::Owner& owner, ConstSpan bytes,
                             const objects::Policy& policy = {}) {
  auto key = put(owner, bytes, policy);
  REQUIRE(key.ok());
  return std::move(key).value();
}

inline Code state_of(objects::Owner& owner, const objects::Key& key) {
  return owner.check(key.object_id, key.capability).code();
}

inline Status evict(objects::Owner& owner, const objects::Key& key, bool force = false) {
  return owner.evict(key.object_id, key.capability, force);
}

// The bytes where the key points to, header checked, as a reader sees them; empty if they are gone.
inline Bytes seen_through(objects::Owner& owner, const objects::Key& key) {
  const memory::Segment* segment = owner.arena().segment(key.segment);
  if (segment == nullptr) return {};
  const auto* at = segment->data() + key.offset;
  if (!reinterpret_cast<const objects::ObjectHeader*>(at)->is(key.object_id, key.generation))
    return {};
  return ConstSpan(at + objects::kHeaderSize, key.length).copy();
}

class PinningReader {
 public:
  PinningReader(objects::Owner& owner, std::uint64_t connection) {
    auto table = memory::PinTable::create();
    REQUIRE(table.ok());
    table_ = std::move(table).value();
    auto view = memory::PinTableView::open(Fd(::fcntl(table_->fd(), F_DUPFD_CLOEXEC, 0)));
    REQUIRE(view.ok());
    owner.join(connection);
    REQUIRE(owner.add_reader(connection, std::move(view).value()).ok());
  }
  std::uint32_t pin(const objects::Key& key) {
    return table_->acquire(memory::block_word(key.segment, key.offset), key.generation);
  }
  void unpin(std::uint32_t slot) { table_->release(slot); }

 private:
  std::unique_ptr<memory::PinTable> table_;
};

}  // namespace pshpc::test
