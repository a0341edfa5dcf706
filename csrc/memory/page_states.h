#pragma once
// How far every page of a segment has come: which way of writing to it is the fastest depends on
// it.

#include <atomic>
#include <cstdint>
#include <vector>

namespace pshpc::memory {

enum class PageState : std::uint8_t {
  fresh,    // reserved, holds nothing yet
  written,  // holds bytes that came through the file; a first touch of the mapping still faults
  mapped,   // was touched through the mapping
};

// Any thread. A wrong state costs time, never bytes, so marks need no order among each other.
class PageStates {
 public:
  explicit PageStates(std::uint64_t pages);

  struct Run {
    PageState state;
    std::uint64_t end;
  };
  // The longest run of one state from page `begin`, not past `end`.
  Run run(std::uint64_t begin, std::uint64_t end) const;
  void mark(std::uint64_t begin, std::uint64_t end, PageState state);
  std::uint64_t mapped() const { return mapped_count_.load(std::memory_order_relaxed); }

 private:
  using Bits = std::vector<std::atomic<std::uint64_t>>;
  static std::uint64_t set(Bits& bits, std::uint64_t begin, std::uint64_t end);

  Bits written_;  // set for mapped pages too
  Bits mapped_;
  std::atomic<std::uint64_t> mapped_count_{0};
};

}  // namespace pshpc::memory
