#include "memory/kept_blocks.h"

#include <algorithm>

#include "base/mapping.h"

namespace pshpc::memory {
namespace {

std::uint64_t page_down(std::uint64_t offset) { return offset / page_size() * page_size(); }
std::uint64_t page_up(std::uint64_t offset) { return align_up(offset, page_size()); }

}  // namespace

void KeptBlocks::add_segment(std::uint32_t segment, std::uint64_t size) {
  segments_[segment].size = size;
}

Status KeptBlocks::add(const Range& block) {
  const Status garbled(Code::protocol, "a table of blocks is garbled");
  const auto found = segments_.find(block.segment);
  if (found == segments_.end()) return garbled;
  Segment& in = found->second;
  if (block.size == 0 || block.offset > in.size || block.size > in.size - block.offset)
    return garbled;
  const auto next = in.blocks.lower_bound(block.offset);
  if (next != in.blocks.end() && next->first - block.offset < block.size) return garbled;
  if (next != in.blocks.begin()) {
    const auto& [offset, size] = *std::prev(next);
    if (block.offset - offset < size) return garbled;
  }
  in.blocks.emplace_hint(next, block.offset, block.size);
  used_ += block.size;
  return {};
}

KeptBlocks::Range KeptBlocks::remove(std::uint32_t segment, std::uint64_t offset) {
  const auto found = segments_.find(segment);
  if (found == segments_.end()) return {};
  auto& blocks = found->second.blocks;
  const auto block = blocks.find(offset);
  if (block == blocks.end()) return {};
  const std::uint64_t size = block->second;
  used_ -= size;
  const auto next = blocks.erase(block);
  const std::uint64_t above = next == blocks.end() ? found->second.size : next->first;
  std::uint64_t below = 0;
  if (next != blocks.begin()) below = std::prev(next)->first + std::prev(next)->second;
  const std::uint64_t begin = std::max(page_down(offset), page_up(below));
  const std::uint64_t end = std::min(page_up(offset + size), page_down(above));
  return begin < end ? Range{segment, begin, end - begin} : Range{};
}

std::vector<KeptBlocks::Range> KeptBlocks::free_pages() const {
  std::vector<Range> ranges;
  for (const auto& [id, segment] : segments_) {
    std::uint64_t below = 0;
    const auto add_up_to = [&, number = id](std::uint64_t above) {
      const std::uint64_t begin = page_up(below), end = page_down(above);
      if (begin < end) ranges.push_back({number, begin, end - begin});
    };
    for (const auto& [offset, size] : segment.blocks) {
      add_up_to(offset);
      below = offset + size;
    }
    add_up_to(segment.size);
  }
  return ranges;
}

}  // namespace pshpc::memory
