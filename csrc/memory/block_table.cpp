#include "memory/block_table.h"

#include <algorithm>

#include "base/log.h"

namespace pshpc::memory {
namespace {

constexpr SharedSlots::Kind kKind{"pshpc-table", 0x316c626174687370,  // "pshtabl1"
                                  sizeof(TableSlot)};
// The smallest block.
constexpr std::uint64_t kUnit = 64;

}  // namespace

Expected<std::unique_ptr<BlockTable>> BlockTable::create(std::uint64_t capacity) {
  auto slots =
      SharedSlots::create(kKind, std::clamp<std::uint64_t>(capacity / kUnit, 1, kMaxSlots));
  if (!slots) return slots.status();
  return std::unique_ptr<BlockTable>(new BlockTable(std::move(slots).value()));
}

BlockTable::Slot BlockTable::enter(std::uint64_t block, std::uint64_t size) {
  const Slot slot = slots_->take();
  if (slot == kNone) {
    log_warn_once(
        "there is no room in the table of blocks, so some objects will end with this process "
        "instead of going to the keeper; evict what is not needed");
    return kNone;
  }
  TableSlot& taken = at(slot);
  taken.size.store(size, std::memory_order_relaxed);
  taken.expires.store(0, std::memory_order_relaxed);
  taken.viewed.store(0, std::memory_order_relaxed);
  taken.block.store(block + 1, std::memory_order_release);
  return slot;
}

void BlockTable::leave(Slot slot) {
  if (slot == kNone) return;
  at(slot).block.store(0, std::memory_order_release);
  slots_->give_back(slot);
}

void BlockTable::set_expiry(Slot slot, Nanoseconds time) {
  if (slot != kNone) at(slot).expires.store(time, std::memory_order_release);
}

void BlockTable::set_viewed(Slot slot, bool viewed) {
  if (slot != kNone) at(slot).viewed.store(viewed ? 1 : 0, std::memory_order_release);
}

Expected<std::vector<BlockTable::Entry>> BlockTable::read(const Fd& fd) {
  auto view = SharedSlots::read(fd, kKind);
  if (!view) return view.status();
  std::vector<Entry> entries;
  for (std::uint64_t i = 0; i < view->count; ++i) {
    const auto& slot = *reinterpret_cast<const TableSlot*>(view->at(i));
    const std::uint64_t block = slot.block.load(std::memory_order_acquire);
    if (block == 0) continue;
    entries.push_back({block - 1, slot.size.load(std::memory_order_relaxed),
                       slot.expires.load(std::memory_order_relaxed),
                       slot.viewed.load(std::memory_order_relaxed) != 0});
  }
  return entries;
}

}  // namespace pshpc::memory
