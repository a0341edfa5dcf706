#include "objects/handover.h"

#include <poll.h>
#include <sys/socket.h>

#include <utility>

#include "base/log.h"
#include "base/wire.h"
#include "fabric/socket/frame.h"
#include "fabric/socket/socket.h"

namespace pshpc::objects {
namespace {

// A keeper that does not take a few hundred bytes for so long is not waited for again.
constexpr Nanoseconds kPatience = kSecond;

}  // namespace

Bytes Identity::encode() const {
  WireWriter out;
  out.put(kVersion);
  self.encode(out);
  out.put_tag(owner_secret).put_tag(job_secret);
  out.put(static_cast<std::uint8_t>(trust_user)).put_text(store).put(grace);
  return out.take();
}

Expected<Identity> Identity::parse(ConstSpan bytes) {
  WireReader in(bytes);
  Identity identity;
  if (in.get<std::uint32_t>() != kVersion)
    return Status(Code::protocol,
                  "a keeper of another version of proxystore_hpc runs on this node: end it with "
                  "'proxystore-hpc keep --stop'");
  identity.self = rpc::Address::decode(in);
  identity.owner_secret = in.get_tag();
  identity.job_secret = in.get_tag();
  identity.trust_user = in.get<std::uint8_t>() != 0;
  identity.store = in.get_text();
  identity.grace = in.get<Nanoseconds>();
  if (!in.at_end()) return Status(Code::protocol, "what an owner said of itself is garbled");
  return identity;
}

void Handover::begin(const Identity& identity, const memory::BlockTable& table,
                     const ClaimTable& claims, const std::vector<int>& listeners) {
  std::vector<int> fds{table.fd(), claims.fd()};
  fds.insert(fds.end(), listeners.begin(), listeners.end());
  send(HandoverKind::identity, identity.encode(), fds);
}

void Handover::add_segment(const memory::Segment& segment) {
  WireWriter body;
  body.put(segment.id());
  send(HandoverKind::segment, body.bytes(), {segment.fd()});
}

void Handover::add_pin_table(std::uint64_t connection, int fd) {
  WireWriter body;
  body.put(connection);
  send(HandoverKind::pin_table, body.bytes(), {fd});
}

void Handover::drop_pin_tables(std::uint64_t connection) {
  WireWriter body;
  body.put(connection);
  send(HandoverKind::left, body.bytes(), {});
}

void Handover::set_config(const std::string& config) {
  send(HandoverKind::config, ConstSpan(config), {});
}

void Handover::set_outside(ConstSpan outside) { send(HandoverKind::outside, outside, {}); }

void Handover::finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (fd_) ::shutdown(fd_.get(), SHUT_RDWR);
  fd_.reset();
  broken_ = true;
}

bool Handover::broken() {
  std::lock_guard<std::mutex> lock(mutex_);
  return broken_;
}

// The connection stays open after a failure: its end would tell the keeper that we have ended.
void Handover::send(HandoverKind kind, ConstSpan body, const std::vector<int>& fds) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (broken_ || !fd_) return;
  const Bytes frame = fabric::encode_frame(static_cast<std::uint16_t>(kind), 0, body, fds.size());
  const Deadline deadline = Deadline::after(kPatience);
  Status status;
  for (std::size_t sent = 0; status.ok() && sent < frame.size();) {
    auto some = fabric::send_some(fd_.get(), ConstSpan(frame).from(sent), {},
                                  sent == 0 ? fds : std::vector<int>{});
    if (!some) {
      status = some.status();
    } else if (some.value() > 0) {
      sent += some.value();
    } else {
      auto ready = fabric::wait_ready(fd_.get(), POLLOUT, deadline);
      if (!ready)
        status = ready.status();
      else if (!ready.value())
        status = Status(Code::timed_out, "it takes nothing");
    }
  }
  if (status.ok()) return;
  broken_ = true;
  log_warn_once("the keeper of this node is not reached any more (" + status.message() +
                "): what this store holds ends with this process; open a new store to have its "
                "objects kept");
}

}  // namespace pshpc::objects
