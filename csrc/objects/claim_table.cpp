#include "objects/claim_table.h"

namespace pshpc::objects {
namespace {

constexpr std::uint64_t kMaxClaims = std::uint64_t{1} << 22;

}  // namespace

const memory::SharedSlots::Kind ClaimTable::kKind{"pshpc-claims", 0x316d6c6373687370,
                                                  sizeof(Record)};

Expected<std::unique_ptr<ClaimTable>> ClaimTable::create() {
  auto slots = memory::SharedSlots::create(kKind, kMaxClaims);
  if (!slots) return slots.status();
  return std::unique_ptr<ClaimTable>(new ClaimTable(std::move(slots).value()));
}

ClaimTable::Slot ClaimTable::enter(const Entry& entry) {
  const Slot slot = slots_->take();
  if (slot == kNone) return slot;
  auto& record = *reinterpret_cast<Record*>(slots_->at(slot));
  record.claim = entry.claim;
  record.expires = entry.expires;
  record.mode = entry.mode;
  record.on_node = entry.on_node ? 1 : 0;
  record.party = entry.party;
  record.object.store(entry.object, std::memory_order_release);
  return slot;
}

void ClaimTable::leave(Slot slot) {
  if (slot == kNone) return;
  reinterpret_cast<Record*>(slots_->at(slot))->object.store(0, std::memory_order_release);
  slots_->give_back(slot);
}

Expected<std::vector<ClaimTable::Entry>> ClaimTable::read(const Fd& fd) {
  auto view = memory::SharedSlots::read(fd, kKind);
  if (!view) return view.status();
  std::vector<Entry> entries;
  for (std::uint64_t i = 0; i < view->count; ++i) {
    const auto& record = *reinterpret_cast<const Record*>(view->at(i));
    const std::uint64_t object = record.object.load(std::memory_order_acquire);
    if (object != 0)
      entries.push_back(
          {object, record.claim, record.expires, record.mode, record.on_node != 0, record.party});
  }
  return entries;
}

}  // namespace pshpc::objects
