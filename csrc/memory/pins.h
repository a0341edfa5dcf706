#pragma once
// Hazard pointers across processes (after M. M. Michael, IEEE TPDS 15(6), 2004).
//
// A reader owns a pin table: a small memfd that it hands to the owner when it connects. To pin, it
// writes (block, generation) into a free slot, fences, and re-checks the object's header; only then
// may it use the block. Before an owner reuses a block it looks through the tables of all readers
// that are alive. A table whose reader died is dropped with everything in it.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/mapping.h"
#include "base/status.h"

namespace pshpc::memory {

// (segment, offset) in one word: 16 bits of segment, 48 of offset.
constexpr std::uint64_t block_word(std::uint32_t segment, std::uint64_t offset) {
  return static_cast<std::uint64_t>(segment) << 48 | offset;
}

// What lies in the memfd: both sides are on one machine, but may be of different builds.
struct PinSlot {
  std::atomic<std::uint64_t> block;  // the block word plus one; 0: free
  std::atomic<std::uint64_t> generation;
};
struct PinHeader {
  std::uint64_t magic;
  std::uint32_t slots;
  std::atomic<std::uint32_t> ever_used;  // slots from here on were never taken
  std::uint8_t reserved[48];
};
static_assert(sizeof(PinSlot) == 16 && sizeof(PinHeader) == 64);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// The reader's side. Any thread; lock-free.
class PinTable {
 public:
  static constexpr std::uint32_t kSlots = 4096;
  static constexpr std::uint32_t kNone = ~0u;

  static Expected<std::unique_ptr<PinTable>> create();
  int fd() const { return fd_.get(); }  // to hand over; -1 in a forked child

  // kNone when every slot is taken. Includes the full fence: the caller re-checks the header next.
  std::uint32_t acquire(std::uint64_t block, std::uint64_t generation);
  // In a forked child this does nothing: the slots are the parent's.
  void release(std::uint32_t slot);
  std::uint32_t in_use() const { return in_use_.load(std::memory_order_relaxed); }

 private:
  PinTable(GuardedFd fd, Mapping mapping);
  PinHeader& header() const { return *reinterpret_cast<PinHeader*>(mapping_.data()); }
  PinSlot* slots() const { return reinterpret_cast<PinSlot*>(mapping_.data() + sizeof(PinHeader)); }
  std::uint32_t pop_free();

  GuardedFd fd_;
  Mapping mapping_;
  std::uint32_t birth_;
  // A stack of free slots, linked by next_. The upper half of its head counts the changes, so that
  // a head that went and came back is not taken for an unchanged one.
  std::atomic<std::uint64_t> free_;
  std::vector<std::atomic<std::uint32_t>> next_;
  std::atomic<std::uint32_t> in_use_{0};
};

// The owner's side of one reader's table. Any thread.
class PinTableView {
 public:
  // Checks size and seals of what a stranger handed us before mapping it.
  static Expected<std::unique_ptr<PinTableView>> open(Fd fd);

  // Both include the full fence: call them after the header was overwritten.
  bool holds(std::uint64_t block) const;
  // Appends every pinned block word.
  void collect(std::vector<std::uint64_t>& into) const;

 private:
  explicit PinTableView(Mapping mapping) : mapping_(std::move(mapping)) {}
  std::uint32_t slots_to_look_at() const;
  const PinSlot* slots() const;

  Mapping mapping_;
};

}  // namespace pshpc::memory
