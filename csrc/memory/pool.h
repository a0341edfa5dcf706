#pragma once
// Warm buffers to receive into: an arena whose blocks come back by themselves.

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/errands.h"
#include "base/mapping.h"
#include "base/span.h"
#include "base/status.h"
#include "memory/arena.h"

namespace pshpc::memory {

struct PoolStats {
  std::uint64_t taken = 0;           // buffers handed out so far
  std::uint64_t overflowed = 0;      // of these, past the capacity
  std::uint64_t overflow_bytes = 0;  // held past the capacity now
};

class Pool : public std::enable_shared_from_this<Pool> {
 public:
  // Block::segment of a buffer past the capacity: it lies in no segment and is registered nowhere.
  static constexpr std::uint32_t kNoSegment = ~0u;

  // A buffer keeps its pool alive and returns to it when dropped, from any thread.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
      Buffer taken(std::move(other));
      swap(taken);
      return *this;
    }
    ~Buffer();

    Span span() const { return {block_.data, size_}; }  // the size asked for
    const Block& block() const { return block_; }
    explicit operator bool() const { return pool_ != nullptr; }

   private:
    friend class Pool;
    void swap(Buffer& other) noexcept;

    std::shared_ptr<Pool> pool_;
    Block block_;
    std::size_t size_ = 0;
    Mapping overflow_;
  };

  static std::shared_ptr<Pool> create(ArenaOptions options, Arena::SegmentHook hook = {});
  // A buffer of 16 KiB or more is faulted in: what is received into it faults no more.
  // Past the capacity: anonymous memory with huge-page advice, freed on return (counted in stats).
  // Code::full when not even that can be had within the limits of the machine.
  Expected<Buffer> take(std::uint64_t size);
  // The same for threads that others wait for: what is not there at once is anonymous memory that
  // is faulted in as it is written, while the pool grows for the next time.
  Expected<Buffer> take_at_once(std::uint64_t size);
  Arena& arena() { return arena_; }
  PoolStats stats() const;

 private:
  Pool(ArenaOptions options, Arena::SegmentHook hook);
  Expected<Buffer> take_overflow(std::uint64_t size, const Status& why);
  Buffer wrap_block(const Block& block, std::uint64_t size);
  Buffer wrap_overflow(Mapping mapping, std::uint64_t size);
  void grow_later(std::uint64_t size);

  const std::function<MemoryLimits()> limits_;
  Arena arena_;
  std::atomic<std::uint64_t> taken_{0};
  std::atomic<std::uint64_t> overflowed_{0};
  std::atomic<std::uint64_t> overflow_bytes_{0};
  std::atomic<bool> growing_{false};
  Errands errands_;  // ends first
};

}  // namespace pshpc::memory
