#pragma once
// What two processes of a node share so as to send each other messages: a ring of bytes in each
// direction, in one memfd that the one who connects makes and hands over.
//
// Each ring has one writer and one reader. A writer that is killed leaves nothing half-visible, as
// bytes show only when the tail moves, and nothing that a third process would wait for.

#include <atomic>
#include <cstdint>

#include "base/guarded_fd.h"
#include "base/mapping.h"
#include "base/status.h"

namespace pshpc::fabric::ring {

// Bytes of one ring; a power of two.
inline constexpr std::size_t kCapacity = 256 * 1024;

// Both sides are on one machine, but may be of different builds.
struct Flow {
  alignas(64) std::atomic<std::uint64_t> tail;  // bytes ever written; by the writer
  alignas(64) std::atomic<std::uint64_t> head;  // bytes ever read; by the reader
  // Set by one side, cleared by the other, which then rings the bell.
  alignas(64) std::atomic<std::uint32_t> reader_sleeps;
  std::atomic<std::uint32_t> writer_waits;
  // Payloads that come in pieces: how the two sides share the work, see Claim, and the last that
  // arrived.
  alignas(64) std::atomic<std::uint64_t> claim;
  std::atomic<std::uint64_t> finished;
  std::atomic<std::uint32_t> closed;  // the writer's memory must not be read any more
};
static_assert(sizeof(Flow) == 256);

// Of the pieces of one payload, those before `front` are the writer's to send, those from `back` on
// the reader's to fetch out of the writer's memory. Each side takes of what lies between.
struct Claim {
  std::uint16_t payload = 0;  // its number, modulo 2^16
  std::uint32_t front = 0;    // of 24 bits
  std::uint32_t back = 0;     // of 24 bits

  static constexpr std::uint32_t kMost = 0xffffff;
  static Claim unpack(std::uint64_t word) {
    return {static_cast<std::uint16_t>(word >> 48), static_cast<std::uint32_t>(word >> 24) & kMost,
            static_cast<std::uint32_t>(word) & kMost};
  }
  std::uint64_t pack() const {
    return std::uint64_t{payload} << 48 | std::uint64_t{front} << 24 | back;
  }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

class Shared {
 public:
  Shared() = default;
  // Made by the one who connects, opened by the other, who checks what it was handed.
  static Expected<Shared> create(GuardedFd* fd);
  static Expected<Shared> open(int fd);

  Flow& outgoing() const { return flow(connects_ ? 0 : 1); }
  Flow& incoming() const { return flow(connects_ ? 1 : 0); }
  // Mirrored: kCapacity bytes from any position lie in a row.
  std::uint8_t* outgoing_bytes() const { return rings_[connects_ ? 0 : 1].data(); }
  std::uint8_t* incoming_bytes() const { return rings_[connects_ ? 1 : 0].data(); }

 private:
  static Expected<Shared> map(int fd, bool connects);
  Flow& flow(int i) const;

  bool connects_ = false;
  Mapping control_;
  Mapping rings_[2];
};

// Where the next bytes of a ring go. One thread at a time.
class Writer {
 public:
  explicit Writer(const Shared& shared)
      : flow_(shared.outgoing()), bytes_(shared.outgoing_bytes()) {}

  // Bytes that can be written now; 0 also when the other side's word cannot be true.
  std::size_t room(std::size_t wanted);
  std::uint8_t* at() const { return bytes_ + tail_ % kCapacity; }
  void publish(std::size_t size) {
    tail_ += size;
    flow_.tail.store(tail_, std::memory_order_release);
  }

 private:
  Flow& flow_;
  std::uint8_t* const bytes_;
  std::uint64_t tail_ = 0;
  std::uint64_t head_ = 0;  // as last seen
};

// What comes next from a ring. One thread at a time.
class Reader {
 public:
  explicit Reader(const Shared& shared)
      : flow_(shared.incoming()), bytes_(shared.incoming_bytes()) {}

  // Bytes to be read; more than kCapacity: the other side's word cannot be true.
  std::size_t available() {
    if (tail_ == head_) tail_ = flow_.tail.load(std::memory_order_acquire);
    return static_cast<std::size_t>(tail_ - head_);
  }
  const std::uint8_t* at() const { return bytes_ + head_ % kCapacity; }
  void release(std::size_t size) {
    head_ += size;
    flow_.head.store(head_, std::memory_order_release);
  }

 private:
  Flow& flow_;
  const std::uint8_t* const bytes_;
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;  // as last seen
};

}  // namespace pshpc::fabric::ring
