#include "memory/page_states.h"

#include <algorithm>

namespace pshpc::memory {
namespace {

// The bits of word `index` that belong to pages [begin, end).
std::uint64_t mask(std::uint64_t index, std::uint64_t begin, std::uint64_t end) {
  const std::uint64_t first = index * 64;
  std::uint64_t bits = ~std::uint64_t{0};
  if (begin > first) bits &= ~std::uint64_t{0} << (begin - first);
  if (end < first + 64) bits &= ~(~std::uint64_t{0} << (end - first));
  return bits;
}

bool test(std::uint64_t word, std::uint64_t page) { return (word >> (page % 64) & 1) != 0; }

}  // namespace

PageStates::PageStates(std::uint64_t pages)
    : written_((pages + 63) / 64), mapped_(written_.size()) {}

PageStates::Run PageStates::run(std::uint64_t begin, std::uint64_t end) const {
  const auto load = [](const Bits& bits, std::uint64_t i) {
    return bits[i].load(std::memory_order_relaxed);
  };
  const bool written = test(load(written_, begin / 64), begin);
  const bool mapped = test(load(mapped_, begin / 64), begin);
  const PageState state = mapped    ? PageState::mapped
                          : written ? PageState::written
                                    : PageState::fresh;
  for (std::uint64_t i = begin / 64; i * 64 < end; ++i) {
    std::uint64_t differs = mapped ? ~load(mapped_, i) : load(mapped_, i);
    if (!mapped) differs |= written ? ~load(written_, i) : load(written_, i);
    differs &= mask(i, begin, end);
    if (differs != 0) return {state, i * 64 + static_cast<std::uint64_t>(__builtin_ctzll(differs))};
  }
  return {state, end};
}

void PageStates::mark(std::uint64_t begin, std::uint64_t end, PageState state) {
  if (state == PageState::fresh || begin >= end) return;
  if (state == PageState::mapped) {
    mapped_count_.fetch_add(set(mapped_, begin, end), std::memory_order_relaxed);
  }
  set(written_, begin, end);
}

// How many bits were not set before.
std::uint64_t PageStates::set(Bits& bits, std::uint64_t begin, std::uint64_t end) {
  std::uint64_t added = 0;
  for (std::uint64_t i = begin / 64; i * 64 < end; ++i) {
    const std::uint64_t wanted = mask(i, begin, end);
    if ((bits[i].load(std::memory_order_relaxed) & wanted) == wanted) continue;
    const std::uint64_t before = bits[i].fetch_or(wanted, std::memory_order_relaxed);
    added += static_cast<std::uint64_t>(__builtin_popcountll(wanted & ~before));
  }
  return added;
}

}  // namespace pshpc::memory
