#pragma once
// Descriptions of memory that is exposed for one-sided transfers. They travel: in calls, pickled,
// stored.

#include <cstdint>
#include <string>
#include <vector>

#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "base/wire.h"
#include "objects/key.h"
#include "rpc/messenger.h"

namespace pshpc::objects {

enum BulkMode : std::uint8_t { kBulkRead = 1, kBulkWrite = 2 };
enum class Direction { pull, push };

constexpr std::uint8_t mode_for(Direction direction) {
  return direction == Direction::pull ? kBulkRead : kBulkWrite;
}

// One contiguous part of the exposed memory.
struct BulkPiece {
  static constexpr std::uint16_t kPrivate = 0xffff;

  std::uint64_t length = 0;
  std::uint64_t place = 0;   // offset within the segment, or the address of private memory
  std::uint32_t region = 0;  // the doors know it by this; 0 if it is empty
  std::uint16_t segment = kPrivate;

  bool in_segment() const { return segment != kPrivate; }
};

// A block in the owner's arena, whose header is valid for as long as the memory is exposed.
// Processes of the same node pin it while they touch the memory directly.
struct BulkGate {
  std::uint16_t segment = 0;
  std::uint64_t offset = 0;
  std::uint64_t object_id = 0;
  std::uint64_t generation = 0;
};

struct Bulk {
  static constexpr std::size_t kMaxPieces = 4096;

  OwnerAddress owner;
  std::uint64_t id = 0;
  Tag capability{};
  std::uint8_t mode = 0;
  BulkGate gate;
  std::vector<BulkPiece> pieces;  // of all that was exposed
  // What of it is meant.
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  std::string describe() const;  // "bulk 7 of owner 12ab34cd"
  // Lengths of the pieces within what is meant.
  std::vector<std::uint64_t> segments() const;
  Expected<Bulk> select(std::uint64_t from, std::uint64_t count) const;

  Bytes encode() const;
  static Expected<Bulk> parse(ConstSpan bytes);
};

// Bytes that lie together on both sides.
struct Stretch {
  std::size_t piece = 0;
  std::uint64_t at = 0;      // within the piece
  std::uint64_t offset = 0;  // within all that was exposed
  Span local;
};

// Lays `local` side by side with the bytes from `offset` of what is meant on.
Expected<std::vector<Stretch>> lay_out(const Bulk& bulk, std::uint64_t offset,
                                       const std::vector<Span>& local);
// The same bytes in stretches of at most `longest`.
std::vector<Stretch> cut(const std::vector<Stretch>& stretches, std::size_t longest);

// What is asked of the owner.
enum class BulkKind : std::uint16_t {
  check = 32,  // bulk, mode
  segment,     // bulk, mode, segment -> descriptor
  region,      // bulk, region, door -> handle
  fetch,       // bulk, range -> bytes
  deliver,     // bulk, offset, bytes
};
inline constexpr BulkKind kLastBulkKind = BulkKind::deliver;

inline rpc::Target target_of(BulkKind kind) { return {static_cast<rpc::MethodId>(kind), 0}; }
const char* kind_name(BulkKind kind);

// How every request begins.
WireWriter ask_about(const Bulk& bulk);

}  // namespace pshpc::objects
