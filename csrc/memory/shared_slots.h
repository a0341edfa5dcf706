#pragma once
// Records of one size in a memfd that grows as they come, for another process to read after this
// one was killed. What a record says, and in which order it is written, is up to its user.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/mapping.h"
#include "base/status.h"

namespace pshpc::memory {

struct SlotsHeader {
  std::uint64_t magic;
  std::atomic<std::uint64_t> ever_used;  // slots from here on were never taken
  std::uint8_t reserved[48];
};
static_assert(sizeof(SlotsHeader) == 64);

// Not thread-safe.
class SharedSlots {
 public:
  using Slot = std::uint32_t;
  static constexpr Slot kNone = ~0u;

  struct Kind {
    const char* name;  // shows in /proc/PID/maps
    std::uint64_t magic;
    std::size_t size;  // of a record; a power of two from 8 to 4096
  };

  static Expected<std::unique_ptr<SharedSlots>> create(const Kind& kind, std::uint64_t slots);

  int fd() const { return fd_.get(); }  // to hand over; -1 in a forked child
  // Zeros, or what was there before; kNone when no memory can be had, or all slots are taken.
  Slot take();
  // Nothing for kNone.
  void give_back(Slot slot);
  std::uint8_t* at(Slot slot) const { return mapping_.data() + sizeof(SlotsHeader) + slot * size_; }

  // Somebody else's.
  struct View {
    Mapping mapping;
    std::uint64_t count = 0;
    std::size_t size = 0;

    const std::uint8_t* at(std::uint64_t slot) const {
      return mapping.data() + sizeof(SlotsHeader) + slot * size;
    }
  };
  static Expected<View> read(const Fd& fd, const Kind& kind);

 private:
  SharedSlots(GuardedFd fd, Mapping mapping, std::size_t size, std::uint64_t slots);
  SlotsHeader& header() const { return *reinterpret_cast<SlotsHeader*>(mapping_.data()); }
  bool grow();

  GuardedFd fd_;
  Mapping mapping_;
  const std::size_t size_;
  const std::uint64_t slots_;
  std::uint64_t backed_ = 0;  // slots that have memory
  std::vector<Slot> free_;
};

}  // namespace pshpc::memory
