#include "memory/allocator.h"

#include <algorithm>
#include <cassert>

#include "base/mapping.h"

namespace pshpc::memory {
namespace {

// Misaligned candidates to pass over before asking for a size that fits whatever its alignment.
constexpr int kAttempts = 8;

constexpr std::uint64_t word(std::uint32_t segment, std::uint64_t offset) {
  return static_cast<std::uint64_t>(segment) << 48 | offset;
}

}  // namespace

void Allocator::Shelf::insert(std::vector<Node>& nodes, Index index) {
  Node& node = nodes[index];
  const std::size_t list = node.size / kUnit;
  Index& head =
      node.size < kLarge ? small_[list] : large_.try_emplace(node.size, kNil).first->second;
  if (node.size < kLarge) occupied_[list / 64] |= std::uint64_t{1} << (list % 64);
  node.newer = kNil;
  node.older = head;
  if (head != kNil) nodes[head].newer = index;
  head = index;
}

void Allocator::Shelf::remove(std::vector<Node>& nodes, Index index) {
  Node& node = nodes[index];
  if (node.older != kNil) nodes[node.older].newer = node.newer;
  if (node.newer != kNil) {
    nodes[node.newer].older = node.older;
  } else if (node.size < kLarge) {
    const std::size_t list = node.size / kUnit;
    small_[list] = node.older;
    if (node.older == kNil) occupied_[list / 64] &= ~(std::uint64_t{1} << (list % 64));
  } else if (node.older != kNil) {
    large_[node.size] = node.older;
  } else {
    large_.erase(node.size);
  }
  node.older = node.newer = kNil;
}

Allocator::Index Allocator::Shelf::smallest(std::uint64_t size) const {
  if (size < kLarge) {
    const std::size_t list = size / kUnit;
    std::uint64_t skip = (std::uint64_t{1} << (list % 64)) - 1;
    for (std::size_t i = list / 64; i < occupied_.size(); ++i, skip = 0) {
      const std::uint64_t bits = occupied_[i] & ~skip;
      if (bits != 0) return small_[i * 64 + static_cast<std::size_t>(__builtin_ctzll(bits))];
    }
  }
  const auto found = large_.lower_bound(size);
  return found == large_.end() ? kNil : found->second;
}

Allocator::Index Allocator::Shelf::largest() const {
  if (!large_.empty()) return large_.rbegin()->second;
  for (std::size_t i = occupied_.size(); i-- > 0;) {
    if (occupied_[i] == 0) continue;
    return small_[i * 64 + 63 - static_cast<std::size_t>(__builtin_clzll(occupied_[i]))];
  }
  return kNil;
}

Allocator::Allocator() : page_(page_size()) {}

std::uint64_t Allocator::rounded(std::uint64_t size) const {
  return size <= kLarge - kUnit ? align_up(std::max<std::uint64_t>(size, 1), kUnit)
                                : align_up(size, page_);
}

void Allocator::add_segment(std::uint32_t segment, std::uint64_t size) {
  assert(size != 0 && size % page_ == 0);
  const Index index = new_node();
  nodes_[index].segment = segment;
  nodes_[index].offset = 0;
  nodes_[index].size = size;
  put_on_shelf(index, State::fresh);
}

std::optional<Extent> Allocator::take(std::uint64_t size) {
  size = rounded(size);
  const Index used = find(free_, size);
  const std::uint64_t whole = size < kLarge ? kLarge - kUnit : kBreakFactor * size;
  if (used != kNil && nodes_[used].size <= whole) return carve(used, size);
  const Index fresh = find(fresh_, size);
  if (fresh != kNil) return carve(fresh, size);
  if (used != kNil) return carve(used, size);
  return std::nullopt;
}

std::uint64_t Allocator::give_back(std::uint32_t segment, std::uint64_t offset) {
  const auto found = taken_.find(word(segment, offset));
  if (found == taken_.end()) return 0;
  Index index = found->second;
  taken_.erase(found);
  const std::uint64_t size = nodes_[index].size;
  used_ -= size;

  State state = State::free;
  const auto merges = [&](Index neighbour) {
    if (neighbour == kNil || nodes_[neighbour].state == State::taken) return false;
    if (nodes_[neighbour].state == State::fresh) state = State::fresh;
    take_off_shelf(neighbour);
    return true;
  };
  if (merges(nodes_[index].above)) absorb_above(index);
  if (merges(nodes_[index].below)) {
    index = nodes_[index].below;
    absorb_above(index);
  }
  put_on_shelf(index, state);
  return size;
}

std::uint64_t Allocator::largest_free() const {
  std::uint64_t most = 0;
  for (const Shelf* shelf : {&free_, &fresh_}) {
    const Index index = shelf->largest();
    if (index != kNil) most = std::max(most, usable(nodes_[index]));
  }
  return most;
}

// The largest request that fits into a free node.
std::uint64_t Allocator::usable(const Node& node) const {
  if (node.size < kLarge) return node.size;
  const std::uint64_t begin = align_up(node.offset, page_);
  const std::uint64_t end = (node.offset + node.size) / page_ * page_;
  return end >= begin + kLarge ? end - begin : kLarge - kUnit;
}

Allocator::Index Allocator::find(const Shelf& shelf, std::uint64_t size) const {
  Index index = shelf.smallest(size);
  if (size < kLarge) return index;
  for (int i = 0; i < kAttempts && index != kNil; ++i) {
    const Node& node = nodes_[index];
    if (align_up(node.offset, page_) + size <= node.offset + node.size) return index;
    index = shelf.next_larger(node.size);
  }
  return index == kNil ? kNil : shelf.smallest(size + page_ - kUnit);
}

// Takes `size` out of a free node; what is left stays on the shelf that the node was on.
Extent Allocator::carve(Index index, std::uint64_t size) {
  const State state = nodes_[index].state;
  take_off_shelf(index);
  const std::uint64_t spare = nodes_[index].size - size;
  const std::uint64_t before =
      size < kLarge ? spare : align_up(nodes_[index].offset, page_) - nodes_[index].offset;
  if (before != 0) {
    const Index upper = split_above(index, before);
    put_on_shelf(index, state);
    index = upper;
  }
  if (nodes_[index].size != size) put_on_shelf(split_above(index, size), state);
  Node& node = nodes_[index];
  node.state = State::taken;
  taken_.emplace(word(node.segment, node.offset), index);
  used_ += size;
  return {node.segment, node.offset, node.size};
}

// Cuts the node down to `size`; returns a node of the rest.
Allocator::Index Allocator::split_above(Index index, std::uint64_t size) {
  const Index rest = new_node();
  Node& lower = nodes_[index];
  Node& upper = nodes_[rest];
  upper.segment = lower.segment;
  upper.offset = lower.offset + size;
  upper.size = lower.size - size;
  upper.below = index;
  upper.above = lower.above;
  if (lower.above != kNil) nodes_[lower.above].below = rest;
  lower.above = rest;
  lower.size = size;
  return rest;
}

void Allocator::put_on_shelf(Index index, State state) {
  nodes_[index].state = state;
  shelf(state).insert(nodes_, index);
  ++free_extents_;
}

void Allocator::take_off_shelf(Index index) {
  shelf(nodes_[index].state).remove(nodes_, index);
  --free_extents_;
}

void Allocator::absorb_above(Index index) {
  const Index gone = nodes_[index].above;
  nodes_[index].size += nodes_[gone].size;
  nodes_[index].above = nodes_[gone].above;
  if (nodes_[gone].above != kNil) nodes_[nodes_[gone].above].below = index;
  nodes_[gone] = Node{};
  nodes_[gone].older = spare_;
  spare_ = gone;
}

Allocator::Index Allocator::new_node() {
  if (spare_ == kNil) {
    nodes_.emplace_back();
    return static_cast<Index>(nodes_.size() - 1);
  }
  const Index index = spare_;
  spare_ = nodes_[index].older;
  nodes_[index] = Node{};
  return index;
}

}  // namespace pshpc::memory
