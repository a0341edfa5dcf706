#pragma once
// How the memory of a rank's message window is laid out, and the words that ranks put there.
//
// A message lies in a slot of its sender's until the receiver has fetched it; what goes into the
// receiver's memory is one word that says where. So a rank needs the same memory in a job of two
// ranks and of ten thousand.
//
// A long payload is fetched by itself: parts of it from further slots, or from where they lie if
// that is attached to the other window. Then only their acknowledgements are here.
//
//   tail | head | ring of words | acknowledgements | slots

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/siphash.h"

namespace pshpc::fabric::mpi {

inline constexpr std::size_t kWord = sizeof(std::uint64_t);
inline constexpr std::size_t kLine = 64;

// A power of two, so that tickets may wrap around.
inline constexpr std::uint64_t kRing = 1024;
inline constexpr unsigned kSmallSlots = 64, kLargeSlots = 16;
inline constexpr unsigned kSlots = kSmallSlots + kLargeSlots;
inline constexpr unsigned kLoans = 64;  // parts that are fetched from where they lie
inline constexpr unsigned kAcks = kSlots + kLoans;
inline constexpr std::size_t kSmallSlot = 4 * 1024, kLargeSlot = 256 * 1024;

// A count of MPI is an int.
inline constexpr std::size_t kLongestPart = std::size_t{1} << 30;

inline constexpr std::size_t kTailAt = 0;
inline constexpr std::size_t kHeadAt = kLine;
inline constexpr std::size_t kRingAt = 2 * kLine;
inline constexpr std::size_t kAcksAt = kRingAt + kRing * kWord;
inline constexpr std::size_t kSlotsAt = (kAcksAt + kAcks * kWord + 4095) / 4096 * 4096;
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
static_assert(kSlots <= 256, "a notice has 8 bits for it");

enum class RecordKind : std::uint16_t {
  message = 1,  // header, and the payload or its beginning
  piece,        // more of the payload
  farewell,     // the sender has closed the channel
  dial,         // the first one of a stream; its header is the sender's address
};

// Records of a channel are numbered, as they may arrive in another order.
struct RecordHead {
  std::uint64_t token = 0;  // of the receiver's choice
  std::uint32_t sequence = 0;
  RecordKind kind = RecordKind::message;
  std::uint16_t header_size = 0;
  std::uint64_t payload_size = 0;  // of the whole payload
  std::uint32_t parts = 0;         // behind the header; then come bytes of the payload
  std::uint32_t reserved = 0;
};
static_assert(sizeof(RecordHead) == 32);

// Bytes of a payload that the receiver fetches. It then adds one to the acknowledgements; had they
// been other than `acks` - 1, the sender has taken the memory back and the bytes are worth nothing.
struct Part {
  std::uint64_t address = 0;  // of a loan
  std::uint64_t size = 0;
  std::uint32_t slot = 0;  // from kSlots on: a loan
  std::uint32_t acks = 0;

  constexpr bool loan() const { return slot >= kSlots; }
  constexpr bool plausible() const {
    return size > 0 && size <= kLongestPart && slot < kAcks && (loan() || size <= slot_size(slot));
  }
};
static_assert(sizeof(Part) == 24);

// Tokens count up from a number of each door's own, so that none is met again in windows that a
// later door took over. Those of streams are chosen by who dials, for both sides.
inline constexpr unsigned kTokenBits = 39, kTokenSpareBits = 17;
inline constexpr std::uint64_t kDialed = std::uint64_t{1} << 63;

inline std::uint64_t first_token(const Tag& job) {
  std::uint32_t number = 0;
  std::memcpy(&number, job.data(), sizeof number);
  return (std::uint64_t{number} << kTokenSpareBits & ((std::uint64_t{1} << kTokenBits) - 1)) + 1;
}
constexpr std::uint64_t dialed_token(std::uint32_t dialer, std::uint64_t token) {
  return kDialed | std::uint64_t{dialer} << kTokenBits | token;
}
constexpr bool is_dialed(std::uint64_t token) { return (token & kDialed) != 0; }
constexpr std::uint32_t dialer_of(std::uint64_t token) {
  return static_cast<std::uint32_t>((token & ~kDialed) >> kTokenBits);
}
constexpr std::uint64_t dialers_token(std::uint64_t token) {
  return token & ((std::uint64_t{1} << kTokenBits) - 1);
}

}  // namespace pshpc::fabric::mpi
