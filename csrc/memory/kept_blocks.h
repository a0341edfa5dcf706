#pragma once
// Blocks of segments that were taken over: nothing new is cut from them, and what becomes free is
// given back to the system, page by page.

#include <cstdint>
#include <map>
#include <vector>

#include "base/status.h"

namespace pshpc::memory {

// Offsets only; not thread-safe.
class KeptBlocks {
 public:
  struct Range {
    std::uint32_t segment = 0;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };

  void add_segment(std::uint32_t segment, std::uint64_t size);
  // Code::protocol if it lies outside of its segment, or over another block.
  Status add(const Range& block);
  // The whole pages that nobody uses now of those that the block touched; empty if there are none,
  // or no such block.
  Range remove(std::uint32_t segment, std::uint64_t offset);
  // All whole pages that no block touches.
  std::vector<Range> free_pages() const;

  std::uint64_t used() const { return used_; }

 private:
  struct Segment {
    std::uint64_t size = 0;
    std::map<std::uint64_t, std::uint64_t> blocks;  // offset -> size
  };
  std::map<std::uint32_t, Segment> segments_;
  std::uint64_t used_ = 0;
};

}  // namespace pshpc::memory
