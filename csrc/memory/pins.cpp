#include "memory/pins.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <new>

#include "base/fence.h"
#include "base/fork_guard.h"

namespace pshpc::memory {
namespace {

constexpr std::uint64_t kMagic = 0x31736e6970687370;  // "pshpins1"
constexpr std::size_t kBytes = sizeof(PinHeader) + PinTable::kSlots * sizeof(PinSlot);
constexpr int kSizeSeals = F_SEAL_GROW | F_SEAL_SHRINK;

constexpr std::uint64_t head_of(std::uint64_t changes, std::uint32_t slot) {
  return changes << 32 | slot;
}

// The reader stores its pin and loads the header, the owner stores the header and loads the pins:
// with a full fence between each pair, at least one of the two sees the other.
void full_fence() { fence(std::memory_order_seq_cst); }

}  // namespace

Expected<std::unique_ptr<PinTable>> PinTable::create() {
  GuardedFd fd(Fd(::memfd_create("pshpc-pins", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd) return system_error("creating a pin table");
  if (::fchmod(fd.get(), 0600) != 0 || ::ftruncate(fd.get(), kBytes) != 0 ||
      ::fallocate(fd.get(), 0, 0, kBytes) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    return system_error("preparing a pin table");
  }
  auto mapping = Mapping::file(fd.get(), 0, kBytes, Mapping::Access::read_write);
  if (!mapping) return mapping.status().within("pin table");
  return std::unique_ptr<PinTable>(new PinTable(std::move(fd), std::move(mapping).value()));
}

PinTable::PinTable(GuardedFd fd, Mapping mapping)
    : fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      birth_(fork_generation()),
      free_(head_of(0, 0)),
      next_(kSlots) {
  new (mapping_.data()) PinHeader{kMagic, kSlots, {0}, {}};
  for (std::uint32_t i = 0; i < kSlots; ++i) {
    new (slots() + i) PinSlot{{0}, {0}};
    next_[i].store(i + 1 < kSlots ? i + 1 : kNone, std::memory_order_relaxed);
  }
}

std::uint32_t PinTable::pop_free() {
  std::uint64_t head = free_.load(std::memory_order_acquire);
  for (;;) {
    const auto slot = static_cast<std::uint32_t>(head);
    if (slot == kNone) return kNone;
    const std::uint64_t then =
        head_of((head >> 32) + 1, next_[slot].load(std::memory_order_relaxed));
    if (free_.compare_exchange_weak(head, then, std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      return slot;
    }
  }
}

std::uint32_t PinTable::acquire(std::uint64_t block, std::uint64_t generation) {
  if (birth_ != fork_generation()) return kNone;
  const std::uint32_t slot = pop_free();
  if (slot == kNone) return kNone;
  std::atomic<std::uint32_t>& bound = header().ever_used;
  std::uint32_t used = bound.load(std::memory_order_relaxed);
  while (used <= slot && !bound.compare_exchange_weak(used, slot + 1, std::memory_order_release)) {
  }
  slots()[slot].generation.store(generation, std::memory_order_relaxed);
  slots()[slot].block.store(block + 1, std::memory_order_release);
  in_use_.fetch_add(1, std::memory_order_relaxed);
  full_fence();
  return slot;
}

void PinTable::release(std::uint32_t slot) {
  if (slot >= kSlots || birth_ != fork_generation()) return;
  // Release: what was read from the block was read before it may be reused. A slot that is not
  // taken must not get onto the stack a second time.
  if (slots()[slot].block.exchange(0, std::memory_order_release) == 0) return;
  in_use_.fetch_sub(1, std::memory_order_relaxed);
  std::uint64_t head = free_.load(std::memory_order_relaxed);
  do {
    next_[slot].store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);
  } while (!free_.compare_exchange_weak(head, head_of((head >> 32) + 1, slot),
                                        std::memory_order_release, std::memory_order_relaxed));
}

Expected<std::unique_ptr<PinTableView>> PinTableView::open(Fd fd) {
  struct stat facts{};
  if (::fstat(fd.get(), &facts) != 0) return system_error("looking at a peer's pin table");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals) {
    return Status(Code::denied, "the peer's pin table is not sealed in its size");
  }
  if (static_cast<std::uint64_t>(facts.st_size) != kBytes) {
    return Status(Code::denied, "the peer's pin table has " + std::to_string(facts.st_size) +
                                    " bytes instead of " + std::to_string(kBytes));
  }
  // Reading a hole would take memory of ours, and SIGBUS is what follows when there is none.
  if (static_cast<std::uint64_t>(facts.st_blocks) * 512 < kBytes) {
    return Status(Code::denied, "the peer's pin table is not backed by memory");
  }
  auto mapping = Mapping::file(fd.get(), 0, kBytes, Mapping::Access::read);
  if (!mapping) return mapping.status().within("a peer's pin table");
  const auto* header = reinterpret_cast<const PinHeader*>(mapping->data());
  if (header->magic != kMagic || header->slots != PinTable::kSlots) {
    return Status(Code::protocol, "the peer's pin table is of another kind or version");
  }
  return std::unique_ptr<PinTableView>(new PinTableView(std::move(mapping).value()));
}

const PinSlot* PinTableView::slots() const {
  return reinterpret_cast<const PinSlot*>(mapping_.data() + sizeof(PinHeader));
}

std::uint32_t PinTableView::slots_to_look_at() const {
  full_fence();
  const auto* header = reinterpret_cast<const PinHeader*>(mapping_.data());
  return std::min(header->ever_used.load(std::memory_order_acquire), PinTable::kSlots);
}

bool PinTableView::holds(std::uint64_t block) const {
  const std::uint32_t count = slots_to_look_at();
  for (std::uint32_t i = 0; i < count; ++i) {
    if (slots()[i].block.load(std::memory_order_acquire) == block + 1) return true;
  }
  return false;
}

void PinTableView::collect(std::vector<std::uint64_t>& into) const {
  const std::uint32_t count = slots_to_look_at();
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t block = slots()[i].block.load(std::memory_order_acquire);
    if (block != 0) into.push_back(block - 1);
  }
}

}  // namespace pshpc::memory
