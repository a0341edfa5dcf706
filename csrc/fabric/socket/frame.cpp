#include "fabric/socket/frame.h"

#include <cstring>
#include <utility>

namespace pshpc::fabric {
namespace {

// Descriptors that no frame claims are an attack or a bug: they would fill our table.
constexpr std::size_t kMaxUnclaimedFds = 64;

}  // namespace

Bytes encode_frame(std::uint16_t kind, std::uint64_t id, ConstSpan body, std::size_t fd_count) {
  FrameHeader header;
  header.size = static_cast<std::uint32_t>(body.size);
  header.kind = kind;
  header.fd_count = static_cast<std::uint16_t>(fd_count);
  header.id = id;
  Bytes frame(sizeof header + body.size);
  std::memcpy(frame.data(), &header, sizeof header);
  copy_bytes(frame.data() + sizeof header, body);
  return frame;
}

Span FrameParser::room() {
  if (filled_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);
  return {buffer_.data() + filled_, buffer_.size() - filled_};
}

Status FrameParser::commit(std::size_t size, std::vector<Fd> fds) {
  filled_ += size;
  for (Fd& fd : fds) fds_.push_back(std::move(fd));
  if (fds_.size() > kMaxUnclaimedFds)
    return {Code::protocol, "a peer sent descriptors that no frame announces"};
  return cut();
}

Status FrameParser::cut() {
  std::size_t start = 0;
  while (filled_ - start >= sizeof(FrameHeader)) {
    FrameHeader header;
    std::memcpy(&header, buffer_.data() + start, sizeof header);
    if (header.magic != kFrameMagic || header.size > max_body_)
      return {Code::protocol, "a peer sent something that is no frame of proxystore_hpc"};
    const std::size_t whole = sizeof header + header.size;
    // The buffer grows with what came, not with what is announced.
    if (filled_ - start < whole) break;
    if (fds_.size() < header.fd_count)
      return {Code::protocol, "a frame announces descriptors that did not arrive with it"};
    Frame frame;
    frame.kind = header.kind;
    frame.id = header.id;
    const auto* body = buffer_.data() + start + sizeof header;
    frame.body.assign(body, body + header.size);
    for (int i = 0; i < header.fd_count; ++i) {
      frame.fds.push_back(std::move(fds_.front()));
      fds_.pop_front();
    }
    frames_.push_back(std::move(frame));
    start += whole;
  }
  if (start > 0) {
    std::memmove(buffer_.data(), buffer_.data() + start, filled_ - start);
    filled_ -= start;
  }
  return {};
}

Frame FrameParser::take() {
  Frame frame = std::move(frames_.front());
  frames_.pop_front();
  return frame;
}

}  // namespace pshpc::fabric
