#pragma once
// How the memory of a rank's message window is laid out, and the words that ranks put there.
//
// A message lies in a slot of its sender's until the receiver has fetched it; what goes into the
// receiver's memory is one word that says where. So a rank needs the same memory in a job of two
// ranks and of ten thousand.
//
//   tail | head | ring of words | acknowledgements, one a slot | slots

#include <cstddef>
#include <cstdint>

namespace pshpc::fabric::mpi {

inline constexpr std::size_t kWord = sizeof(std::uint64_t);
inline constexpr std::size_t kLine = 64;

// A power of two, so that tickets may wrap around.
inline constexpr std::uint64_t kRing = 1024;
inline constexpr unsigned kSmallSlots = 64, kLargeSlots = 16;
inline constexpr unsigned kSlots = kSmallSlots + kLargeSlots;
inline constexpr std::size_t kSmallSlot = 4 * 1024, kLargeSlot = 256 * 1024;

inline constexpr std::size_t kTailAt = 0;
inline constexpr std::size_t kHeadAt = kLine;
inline constexpr std::size_t kRingAt = 2 * kLine;
inline constexpr std::size_t kAcksAt = kRingAt + kRing * kWord;
inline constexpr std::size_t kSlotsAt = (kAcksAt + kSlots * kWord + 4095) / 4096 * 4096;
inline constexpr std::size_t kWindowSize =
    kSlotsAt + kSmallSlots * kSmallSlot + kLargeSlots * kLargeSlot;

constexpr std::size_t ring_at(std::uint64_t position) {
  return kRingAt + static_cast<std::size_t>(position % kRing) * kWord;
}
constexpr std::size_t ack_at(unsigned slot) { return kAcksAt + slot * kWord; }
constexpr std::size_t slot_size(unsigned slot) {
  return slot < kSmallSlots ? kSmallSlot : kLargeSlot;
}
constexpr std::size_t slot_at(unsigned slot) {
  return slot < kSmallSlots
             ? kSlotsAt + slot * kSmallSlot
             : kSlotsAt + kSmallSlots * kSmallSlot + (slot - kSmallSlots) * kLargeSlot;
}

// Where a record lies. Zero is no record.
struct Notice {
  std::uint32_t rank = 0;  // below 2^24 - 1
  unsigned slot = 0;
  std::uint32_t size = 0;

  constexpr std::uint64_t encode() const {
    return (std::uint64_t{rank} + 1) << 40 | std::uint64_t{slot} << 32 | size;
  }
  static constexpr Notice decode(std::uint64_t word) {
    return {static_cast<std::uint32_t>(word >> 40) - 1, static_cast<unsigned>(word >> 32 & 0xff),
            static_cast<std::uint32_t>(word)};
  }
  constexpr bool plausible(std::uint32_t ranks, std::size_t least) const {
    return rank < ranks && slot < kSlots && size >= least && size <= slot_size(slot);
  }
};
static_assert(kSlots <= 256);

enum class RecordKind : std::uint16_t {
  message = 1,  // header, and the payload or its beginning
  piece,        // more of the payload
  farewell,     // the sender has closed the channel
};

// Records of a channel are numbered, as they may arrive in another order.
struct RecordHead {
  std::uint64_t token = 0;  // of the receiver's choice
  std::uint32_t sequence = 0;
  RecordKind kind = RecordKind::message;
  std::uint16_t header_size = 0;
  std::uint64_t payload_size = 0;  // of the whole payload
};
static_assert(sizeof(RecordHead) == 24);

}  // namespace pshpc::fabric::mpi
