#pragma once
// Frames on a stream socket: 24 bytes of header, then the body. Descriptors travel beside the frame
// that announces them.

#include <cstdint>
#include <deque>
#include <vector>

#include "base/fd.h"
#include "base/span.h"
#include "base/status.h"

namespace pshpc::fabric {

inline constexpr std::uint32_t kFrameMagic = 0x43505350;  // "PSPC"
inline constexpr std::uint32_t kMaxBody = 4u << 20;

struct Frame {
  std::uint16_t kind = 0;
  std::uint64_t id = 0;  // of the call; the reply carries the same
  Bytes body;
  std::vector<Fd> fds;
};

struct FrameHeader {
  std::uint32_t magic = kFrameMagic;
  std::uint32_t size = 0;  // of the body
  std::uint16_t kind = 0;
  std::uint16_t fd_count = 0;
  std::uint32_t reserved = 0;
  std::uint64_t id = 0;
};
static_assert(sizeof(FrameHeader) == 24);

Bytes encode_frame(std::uint16_t kind, std::uint64_t id, ConstSpan body, std::size_t fd_count);

// Cuts a stream into frames. Garbage, oversized bodies and missing descriptors end in
// Code::protocol, after which the stream cannot be trusted and is closed.
class FrameParser {
 public:
  explicit FrameParser(std::uint32_t max_body = kMaxBody) : max_body_(max_body) {}

  // The longest body from now on.
  void allow(std::uint32_t max_body) { max_body_ = max_body; }
  // Room for the next receive; commit() says how much of it was filled.
  Span room();
  Status commit(std::size_t size, std::vector<Fd> fds);
  bool has_frame() const { return !frames_.empty(); }
  Frame take();

 private:
  Status cut();

  std::uint32_t max_body_;
  Bytes buffer_ = Bytes(64 * 1024);
  std::size_t filled_ = 0;
  std::deque<Fd> fds_;
  std::deque<Frame> frames_;
};

}  // namespace pshpc::fabric
