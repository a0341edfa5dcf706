#pragma once
// Who holds references, in memory that another process can read after this one was killed. A
// reference that changes hands is entered anew before its old record leaves: killed in between, it
// is there twice, but never missing.

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/siphash.h"
#include "base/status.h"
#include "memory/shared_slots.h"

namespace pshpc::objects {

// Not thread-safe: it changes under its owner's lock.
class ClaimTable {
 public:
  using Slot = memory::SharedSlots::Slot;
  static constexpr Slot kNone = memory::SharedSlots::kNone;

  struct Entry {
    std::uint64_t object = 0;
    std::uint64_t claim = 0;
    Nanoseconds expires = 0;  // 0: it is held by its party
    std::uint8_t mode = 0;
    bool on_node = false;
    Tag party{};
  };

  static Expected<std::unique_ptr<ClaimTable>> create();
  int fd() const { return slots_->fd(); }  // to hand over; -1 in a forked child

  // kNone when no slot can be had: the reference is then forgotten with this process.
  Slot enter(const Entry& entry);
  void leave(Slot slot);  // nothing for kNone

  static Expected<std::vector<Entry>> read(const Fd& fd);

 private:
  struct Record {
    std::atomic<std::uint64_t> object;  // 0: free
    std::uint64_t claim;
    std::int64_t expires;
    std::uint8_t mode;
    std::uint8_t on_node;
    std::uint8_t reserved[6];
    Tag party;
    std::uint8_t more[16];
  };
  static_assert(sizeof(Record) == 64);
  static const memory::SharedSlots::Kind kKind;

  explicit ClaimTable(std::unique_ptr<memory::SharedSlots> slots) : slots_(std::move(slots)) {}

  const std::unique_ptr<memory::SharedSlots> slots_;
};

}  // namespace pshpc::objects
