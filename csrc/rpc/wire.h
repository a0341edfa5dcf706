#pragma once
// The heads of requests and replies (docs/protocol.md). The same ones travel over sockets of ours
// and in the headers of a door's messages.

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/span.h"
#include "base/status.h"
#include "fabric/payload.h"

namespace pshpc::rpc {

enum class MessageType : std::uint8_t { request = 1, reply, cancel };

enum MessageFlags : std::uint8_t {
  kOneWay = 1,         // nobody waits for an answer
  kBodyInPayload = 2,  // the payload begins with the body, which was too long for the header
};

// Names of remote procedures as they travel: those of the library itself are small numbers, all
// others are hashed and have the highest bit set.
using MethodId = std::uint64_t;
inline constexpr MethodId kHashed = MethodId{1} << 63;
MethodId method_id(const std::string& name);

struct RequestHead {
  MessageType type = MessageType::request;
  std::uint8_t flags = 0;
  std::uint16_t provider = 0;
  std::uint32_t budget_us = 0;  // microseconds that the caller still waits; 0: for ever
  std::uint64_t call = 0;       // of the caller's choice; the reply carries the same
  MethodId method = 0;
};
static_assert(sizeof(RequestHead) == 24);

struct ReplyHead {
  MessageType type = MessageType::reply;
  std::uint8_t flags = 0;
  std::uint16_t code =
      0;  // of Status; unless ok, the body is its message, or what a handler raised
  std::uint32_t reserved = 0;
  std::uint64_t call = 0;
};
static_assert(sizeof(ReplyHead) == 16);

// The caller does not want the answer any more.
struct CancelHead {
  MessageType type = MessageType::cancel;
  std::uint8_t reserved[7]{};
  std::uint64_t call = 0;
};
static_assert(sizeof(CancelHead) == 16);

// False if `bytes` are too few.
template <class Head>
bool read_head(ConstSpan bytes, Head* head) {
  if (bytes.size < sizeof(Head)) return false;
  copy_bytes(head, bytes.slice(0, sizeof(Head)));
  return true;
}

// What a deadline is on the way: rounded up, so that the caller gives up first.
std::uint32_t to_budget(Deadline deadline);
Deadline from_budget(std::uint32_t budget_us, Nanoseconds arrived);

// As one piece, for sockets.
Bytes encode_request(const RequestHead& head, ConstSpan body);
Bytes encode_reply(const Status& status, std::uint8_t flags, std::uint64_t call, ConstSpan body,
                   const fabric::Payload& payload);
// The status of the other side, or Code::protocol; `body` is what follows.
Status decode_reply(ConstSpan reply, ConstSpan* body);
Status reply_status(const ReplyHead& head, ConstSpan body);

}  // namespace pshpc::rpc
