#pragma once
// Which blocks of an arena are handed out, in memory that another process can read after this one
// was killed (docs/protocol.md, The keeper). What lies in a block its own header says.
//
// A block is entered before its header can become valid, and leaves before it is free for others.
// Each step is one aligned store, so that a process which is killed between any two of them leaves
// a table that names every block in use, and none that is free.

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/status.h"
#include "memory/shared_slots.h"

namespace pshpc::memory {

struct TableSlot {
  std::atomic<std::uint64_t> block;  // block_word() plus one; 0: the slot is free
  std::atomic<std::uint64_t> size;
  std::atomic<std::int64_t> expires;  // 0: never
  std::atomic<std::uint64_t> viewed;  // not 0: the owner's process holds views of it
};
static_assert(sizeof(TableSlot) == 32);

// Not thread-safe: it changes under its owner's lock.
class BlockTable {
 public:
  using Slot = SharedSlots::Slot;
  static constexpr Slot kNone = SharedSlots::kNone;
  // Of one arena; what comes past it is in no slot.
  static constexpr std::uint64_t kMaxSlots = std::uint64_t{1} << 24;

  // For an arena of `capacity` bytes. Takes memory as it fills, 32 bytes for each block.
  static Expected<std::unique_ptr<BlockTable>> create(std::uint64_t capacity);

  int fd() const { return slots_->fd(); }  // to hand over; -1 in a forked child

  // kNone when no slot can be had; the block is then known to this process alone.
  Slot enter(std::uint64_t block, std::uint64_t size);
  // These do nothing for kNone.
  void leave(Slot slot);
  void set_expiry(Slot slot, Nanoseconds time);
  void set_viewed(Slot slot, bool viewed);

  // What is in a table that somebody left.
  struct Entry {
    std::uint64_t block = 0;  // block_word()
    std::uint64_t size = 0;
    Nanoseconds expires = 0;
    bool viewed = false;
  };
  static Expected<std::vector<Entry>> read(const Fd& fd);

 private:
  explicit BlockTable(std::unique_ptr<SharedSlots> slots) : slots_(std::move(slots)) {}
  TableSlot& at(Slot slot) const { return *reinterpret_cast<TableSlot*>(slots_->at(slot)); }

  const std::unique_ptr<SharedSlots> slots_;
};

}  // namespace pshpc::memory
