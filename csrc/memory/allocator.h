#pragma once
// Where blocks lie in segments. Knows offsets only: the memory itself is neither read nor written,
// so neither an overrun nor another process can damage the bookkeeping.
//
// Exact best fit, the block released last first among equals, with full coalescing. Blocks of less
// than 64 KiB (a list for every multiple of 64 bytes: O(1)) are cut from the upper end of free
// space, larger ones (a tree by size: O(log n)) from the lower end, so that small ones do not break
// up the room of large ones. Space that was never handed out is kept apart: it comes after space
// that was used before, unless that would break a block of more than eight times the request.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

namespace pshpc::memory {

struct Extent {
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

// Not thread-safe.
class Allocator {
 public:
  static constexpr std::uint64_t kUnit = 64;          // alignment and smallest block
  static constexpr std::uint64_t kLarge = 64u << 10;  // page aligned from here on
  static constexpr std::uint64_t kBreakFactor = 8;

  Allocator();

  // What a request of `size` bytes takes.
  std::uint64_t rounded(std::uint64_t size) const;

  // `size` is a multiple of the page size. A segment's number is used once.
  void add_segment(std::uint32_t segment, std::uint64_t size);
  std::optional<Extent> take(std::uint64_t size);
  // The released size; 0 if no block starts there, which leaves everything as it was.
  std::uint64_t give_back(std::uint32_t segment, std::uint64_t offset);

  std::uint64_t used() const { return used_; }
  // The largest request that take() can serve.
  std::uint64_t largest_free() const;
  std::size_t free_extents() const { return free_extents_; }

 private:
  using Index = std::uint32_t;
  static constexpr Index kNil = ~0u;

  enum class State : std::uint8_t { unused, taken, free, fresh };

  struct Node {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint32_t segment = 0;
    State state = State::unused;
    Index below = kNil, above = kNil;  // neighbours in the segment
    Index older = kNil, newer = kNil;  // equals in the list of their size
  };

  // Free nodes by size.
  class Shelf {
   public:
    void insert(std::vector<Node>& nodes, Index index);
    void remove(std::vector<Node>& nodes, Index index);
    // The newest node of the smallest sufficient size.
    Index smallest(std::uint64_t size) const;
    // As above, of a size greater than `size`.
    Index next_larger(std::uint64_t size) const { return smallest(size + kUnit); }
    Index largest() const;

   private:
    static constexpr std::size_t kLists = kLarge / kUnit;
    std::array<std::uint64_t, kLists / 64> occupied_{};
    std::vector<Index> small_ = std::vector<Index>(kLists, kNil);
    std::map<std::uint64_t, Index> large_;
  };

  Shelf& shelf(State state) { return state == State::fresh ? fresh_ : free_; }
  std::uint64_t usable(const Node& node) const;
  Index find(const Shelf& shelf, std::uint64_t size) const;
  Extent carve(Index index, std::uint64_t size);
  Index split_above(Index index, std::uint64_t size);
  void put_on_shelf(Index index, State state);
  void take_off_shelf(Index index);
  void absorb_above(Index index);
  Index new_node();

  std::uint64_t page_;
  std::vector<Node> nodes_;
  Index spare_ = kNil;  // unused nodes, linked by `older`
  Shelf free_;
  Shelf fresh_;
  std::unordered_map<std::uint64_t, Index> taken_;
  std::uint64_t used_ = 0;
  std::size_t free_extents_ = 0;
};

}  // namespace pshpc::memory
