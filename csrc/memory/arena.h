#pragma once
// Memory for objects: memfd segments that are faulted in once and then reused.
//
// First-touch faults cost ten to forty times a copy, so blocks that were used before are handed out
// before memory that was never touched, and segments are neither unmapped nor punched.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/allocator.h"
#include "memory/kept_blocks.h"
#include "memory/segment.h"

namespace pshpc::memory {

struct ArenaOptions {
  std::string name = "pshpc";       // shows in /proc/PID/maps
  std::uint64_t capacity = 0;       // bytes of all segments; 0: default_capacity(1)
  std::uint64_t first_segment = 0;  // 0: chosen; later segments double up to 1 GiB or the request
  bool huge_pages = true;           // advise where the kernel can give them for shared memory
  std::uint32_t first_region = 0;   // Region::id of segment 0; the others count up from it
  std::function<MemoryLimits()> limits;  // empty: read_memory_limits()
};

// A piece of a segment. Plain data: give it back with Arena::release().
struct Block {
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;  // within the segment; 64-byte aligned, page aligned from 64 KiB
  std::uint64_t size = 0;    // what may be used, at least what was asked for
  std::uint8_t* data = nullptr;
};

struct ArenaStats {
  std::uint64_t capacity = 0;
  std::uint64_t mapped = 0;        // bytes of all segments
  std::uint64_t used = 0;          // bytes in blocks handed out
  std::uint64_t largest_free = 0;  // biggest block that needs no growth
  std::uint64_t warm = 0;          // bytes that were faulted in
  std::uint32_t segments = 0;
};

// Why a request was refused, for the error that the user sees.
struct FullReport {
  std::uint64_t requested = 0;
  std::uint64_t capacity = 0;
  std::uint64_t mapped = 0;
  std::uint64_t used = 0;
  std::uint64_t largest_free = 0;
  std::uint64_t available = 0;  // what machine and cgroups would still have let us take
};

class Arena {
 public:
  static constexpr std::uint32_t kMaxSegments = 65535;

  // Called with every new segment, before a block of it is handed out, by the allocating thread.
  // A failure is returned by allocate() and the segment is dropped. Must not allocate.
  using SegmentHook = std::function<Status(const Segment&)>;

  // A segment of an arena whose process has ended.
  struct Inherited {
    std::uint32_t id = 0;
    Fd fd;
  };

  explicit Arena(ArenaOptions options, SegmentHook hook = {});
  ~Arena();

  // Any thread. Code::full with figures when neither a free block nor growth can serve it; the
  // limits of the machine and of the cgroup are looked at before a segment grows, so that memory
  // handed out never faults with SIGBUS.
  Expected<Block> allocate(std::uint64_t size);
  // A block for which nothing has to grow, if there is one. Never waits for the system.
  std::optional<Block> try_allocate(std::uint64_t size);
  // A block that is not handed out is left alone, and said so once.
  void release(const Block& block);

  // Before anything else: takes over these segments. From then on nothing is allocated; released
  // blocks go back to the system.
  Status adopt(std::vector<Inherited> segments);
  // A block that was handed out before; see KeptBlocks::add().
  Expected<Block> adopt_block(std::uint32_t segment, std::uint64_t offset, std::uint64_t size);
  // Gives back what no block covers. May take a while; blocks may be released meanwhile.
  void trim();

  // Maps and faults in until at least `bytes` are warm (bounded by the capacity).
  Status warm(std::uint64_t bytes);

  // Writes `source` at `offset` in the block. Memory that was never touched is filled through the
  // file, which is several times faster than faulting it in through the mapping.
  Status fill(const Block& block, std::uint64_t offset, ConstSpan source);

  // Call it before the block is written through its address, or by a device or another process:
  // faults in what is cold (O(size / 512 KiB) when nothing is).
  Status touch(const Block& block);

  // nullptr if there is no such segment. Segments live as long as the arena.
  const Segment* segment(std::uint32_t id) const;
  std::vector<const Segment*> segments() const;
  // The block that `address` lies in a segment of, for arrays made by allocate() before; false if
  // the address is not ours.
  bool contains(const void* address, std::uint64_t size) const;
  // Where that is; size and data as given.
  std::optional<Block> locate(const void* address, std::uint64_t size) const;
  ArenaStats stats() const;
  // The refusal that happened last, by whichever thread.
  FullReport last_full() const;

 private:
  struct Growth {
    std::uint64_t size = 0;
    std::uint64_t least = 0;  // what the request needs
  };

  bool inherited() const;  // we are in a forked child
  Segment* find_segment(std::uint32_t id) const;
  std::optional<Block> take(std::uint64_t size);
  Expected<Growth> plan_growth(std::uint64_t least, std::uint64_t wanted);
  Expected<std::unique_ptr<Segment>> make_segment(std::uint32_t id, const Growth& growth);
  Status grow(std::uint64_t least, std::uint64_t wanted, std::optional<Block>* block);
  Status refuse(std::uint64_t requested, const std::string& why);
  void give_back(const KeptBlocks::Range& pages);

  const ArenaOptions options_;
  const SegmentHook hook_;
  const std::uint32_t birth_;

  // One thread grows; the others go on with what is free. Taken before mutex_.
  std::mutex growth_mutex_;
  std::uint64_t next_segment_;
  std::uint32_t next_id_ = 0;

  mutable std::mutex mutex_;  // for all below; never held while pages are reserved or written
  Allocator allocator_;
  std::vector<std::unique_ptr<Segment>> segments_;  // by id; null where the hook refused
  std::map<const std::uint8_t*, Segment*> by_address_;
  std::uint64_t mapped_ = 0;
  FullReport last_full_;
  std::optional<KeptBlocks> kept_;  // of an arena that was taken over
};

}  // namespace pshpc::memory
