#include "rpc/wire.h"

#include <cstring>
#include <limits>

#include "base/siphash.h"
#include "rpc/hello.h"

namespace pshpc::rpc {
namespace {

constexpr Nanoseconds kClockMatters = kSecond;

Bytes join(const void* head, std::size_t size, ConstSpan body, ConstSpan payload) {
  Bytes bytes(size + body.size + payload.size);
  std::memcpy(bytes.data(), head, size);
  copy_bytes(bytes.data() + size, body);
  copy_bytes(bytes.data() + size + body.size, payload);
  return bytes;
}

}  // namespace

MethodId method_id(const std::string& name) {
  const Tag hash = siphash128({}, ConstSpan(name));
  MethodId id;
  std::memcpy(&id, hash.data(), sizeof id);
  return id | kHashed;
}

std::uint32_t to_budget(Deadline deadline) {
  // A clock that is behind errs on the right side, and matters little where much time is left.
  Nanoseconds left = deadline.at() - coarse_now();
  if (left < kClockMatters) left = deadline.remaining();
  const Nanoseconds budget = left / kMicrosecond + 1;
  return budget > std::numeric_limits<std::uint32_t>::max() ? 0
                                                            : static_cast<std::uint32_t>(budget);
}

Deadline from_budget(std::uint32_t budget_us, Nanoseconds arrived) {
  if (budget_us == 0) return Deadline::never();
  return Deadline::at_time(arrived + budget_us * kMicrosecond);
}

Bytes encode_request(const RequestHead& head, ConstSpan body) {
  return join(&head, sizeof head, body, {});
}

Bytes encode_reply(const Status& status, std::uint8_t flags, std::uint64_t call, ConstSpan body,
                   const fabric::Payload& payload) {
  ReplyHead head;
  head.flags = flags;
  head.code = static_cast<std::uint16_t>(status.code());
  head.call = call;
  if (!status.ok() && status.code() != Code::raised)
    return join(&head, sizeof head, ConstSpan(status.message()), {});
  Bytes all = join(&head, sizeof head, body, {});
  const std::size_t before = all.size();
  all.resize(before + payload.size());
  payload.copy_to(all.data() + before);
  return all;
}

Status reply_status(const ReplyHead& head, ConstSpan body) {
  if (head.code == 0) return {};
  if (head.code > static_cast<std::uint16_t>(kLastCode)) return garbled("reply");
  const auto code = static_cast<Code>(head.code);
  if (code == Code::raised) return {code, "the handler raised an exception"};
  return {code, std::string(reinterpret_cast<const char*>(body.data), body.size)};
}

Status decode_reply(ConstSpan reply, ConstSpan* body) {
  ReplyHead head;
  if (!read_head(reply, &head) || head.type != MessageType::reply) return garbled("reply");
  *body = reply.from(sizeof head);
  return reply_status(head, *body);
}

}  // namespace pshpc::rpc
