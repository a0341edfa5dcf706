#include "memory/block_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace pshpc::memory {
namespace {

constexpr std::uint64_t kMagic = 0x316c626174687370;  // "pshtabl1"
constexpr int kSizeSeals = F_SEAL_GROW | F_SEAL_SHRINK;
// The smallest block.
constexpr std::uint64_t kUnit = 64;
// Memory that the table takes at a time.
constexpr std::uint64_t kStep = 128 * 1024;

std::uint64_t bytes_of(std::uint64_t slots) {
  return align_up(sizeof(TableHeader) + slots * sizeof(TableSlot), page_size());
}

bool reserve(int fd, std::uint64_t offset, std::uint64_t length) {
  int result;
  do {
    result = ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

}  // namespace

BlockTable::BlockTable(GuardedFd fd, Mapping mapping, std::uint64_t slots)
    : fd_(std::move(fd)), mapping_(std::move(mapping)), slots_(slots) {}

Expected<std::unique_ptr<BlockTable>> BlockTable::create(std::uint64_t capacity) {
  std::uint64_t slots = std::clamp<std::uint64_t>(capacity / kUnit, 1, kMaxSlots);
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);  // past which SIGXFSZ would be raised
  if (limit.rlim_cur != RLIM_INFINITY)
    slots = std::min<std::uint64_t>(slots, limit.rlim_cur / sizeof(TableSlot) / 2);
  const std::uint64_t size = bytes_of(slots);
  GuardedFd fd(Fd(::memfd_create("pshpc-table", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd) return system_error("creating the table of blocks");
  if (::fchmod(fd.get(), 0600) != 0 || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0)
    return system_error("sizing the table of blocks");
  if (!reserve(fd.get(), 0, std::min(kStep, size)))
    return Status(Code::full, "there is no memory for the table of blocks");
  auto mapping = Mapping::file(fd.get(), 0, size, Mapping::Access::read_write);
  if (!mapping) return mapping.status();
  std::unique_ptr<BlockTable> table(
      new BlockTable(std::move(fd), std::move(mapping).value(), slots));
  table->header().magic = kMagic;
  table->backed_ =
      std::min(slots, (std::min(kStep, size) - sizeof(TableHeader)) / sizeof(TableSlot));
  return table;
}

// Pages are reserved before they are written: a first touch without memory would be SIGBUS.
bool BlockTable::grow() {
  const std::uint64_t from = sizeof(TableHeader) + backed_ * sizeof(TableSlot);
  const std::uint64_t more = std::min(kStep / sizeof(TableSlot), slots_ - backed_);
  if (more == 0 || !reserve(fd(), from, more * sizeof(TableSlot))) {
    log_warn_once(
        "there is no room in the table of blocks, so some objects will end with this process "
        "instead of going to the keeper; evict what is not needed");
    return false;
  }
  backed_ += more;
  return true;
}

BlockTable::Slot BlockTable::enter(std::uint64_t block, std::uint64_t size) {
  Slot slot;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    const std::uint64_t used = header().ever_used.load(std::memory_order_relaxed);
    if (used == backed_ && !grow()) return kNone;
    slot = static_cast<Slot>(used);
    header().ever_used.store(used + 1, std::memory_order_release);
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
  free_.push_back(slot);
}

void BlockTable::set_expiry(Slot slot, Nanoseconds time) {
  if (slot != kNone) at(slot).expires.store(time, std::memory_order_release);
}

void BlockTable::set_viewed(Slot slot, bool viewed) {
  if (slot != kNone) at(slot).viewed.store(viewed ? 1 : 0, std::memory_order_release);
}

Expected<std::vector<BlockTable::Entry>> BlockTable::read(const Fd& fd) {
  struct stat facts{};
  if (::fstat(fd.get(), &facts) != 0) return system_error("looking at a table of blocks");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  const auto size = static_cast<std::uint64_t>(facts.st_size);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals || size < bytes_of(1))
    return Status(Code::denied, "a table of blocks is not sealed in its size");
  auto mapping = Mapping::file(fd.get(), 0, size, Mapping::Access::read);
  if (!mapping) return mapping.status().within("a table of blocks");
  const auto& header = *reinterpret_cast<const TableHeader*>(mapping->data());
  if (header.magic != kMagic)
    return Status(Code::protocol, "a table of blocks is of another kind or version");
  const auto* slots = reinterpret_cast<const TableSlot*>(mapping->data() + sizeof(TableHeader));
  const std::uint64_t used = std::min(header.ever_used.load(std::memory_order_acquire),
                                      (size - sizeof(TableHeader)) / sizeof(TableSlot));
  std::vector<Entry> entries;
  for (std::uint64_t i = 0; i < used; ++i) {
    const std::uint64_t block = slots[i].block.load(std::memory_order_acquire);
    if (block == 0) continue;
    entries.push_back({block - 1, slots[i].size.load(std::memory_order_relaxed),
                       slots[i].expires.load(std::memory_order_relaxed),
                       slots[i].viewed.load(std::memory_order_relaxed) != 0});
  }
  return entries;
}

}  // namespace pshpc::memory
