#include "objects/writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "objects/header.h"

namespace pshpc::objects {
namespace {

struct Remote {
  std::uint64_t object_id = 0;
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

Key segment_key(const Link& link, const Remote& remote) {
  Key key;
  key.owner = link.address();
  key.object_id = remote.object_id;
  key.segment = static_cast<std::uint16_t>(remote.segment);
  return key;
}

Bytes delivery(const Remote& remote, std::uint64_t offset) {
  WireWriter request;
  request.put(remote.object_id).put(offset);
  return request.take();
}

Status through_segment(Link& link, const Remote& remote, const std::vector<Part>& parts,
                       Deadline deadline) {
  auto segment = link.segment(segment_key(link, remote), true, deadline);
  if (!segment) return segment.status();
  if (!segment.value()->covers(remote.offset, kHeaderSize + remote.length))
    return {Code::protocol, "the owner reserved a block outside of its segment"};
  std::uint8_t* payload = segment.value()->data() + remote.offset + kHeaderSize;
  for (const Part& part : parts) copy_bytes(payload + part.offset, part.bytes);
  return {};
}

// Waits for operations into and out of memory that belongs to the caller: when one cannot be waited
// for any longer, the channel is cut before this returns.
Status settle(Link& link, const fabric::DoorHandle& door,
              std::unique_ptr<fabric::Operation> operation, Deadline deadline) {
  const Status status = link.wait(*door, *operation, deadline);
  if (operation->done()) return status;
  link.drop_channel(door->name());
  const Status ended = door->wait(*operation, Deadline::after(5 * kSecond), [] { return false; });
  if (!ended.ok()) fabric::Operation::abandon(std::move(operation));
  return status;
}

Status through_door(Link& link, const fabric::DoorHandle& door, const Remote& remote,
                    const std::vector<Part>& parts, Deadline deadline) {
  const auto channel = link.channel(door->name());
  if (!channel) return {Code::unavailable, "the " + door->name() + " door is not open"};
  std::shared_ptr<fabric::RemoteRegion> region;
  if (channel->one_sided()) {
    auto imported = link.region(door->name(), remote.segment, segment_key(link, remote), deadline);
    if (!imported) return imported.status();
    region = std::move(imported).value();
  }
  for (const Part& part : parts) {
    if (part.bytes.empty()) continue;
    std::unique_ptr<fabric::Operation> operation;
    if (region) {
      operation = std::make_unique<fabric::Operation>(region);
      channel->write(*region, remote.offset + kHeaderSize + part.offset, part.bytes,
                     operation.get());
    } else {
      auto call = std::make_unique<rpc::Call>();
      link.messenger().start(channel, target_of(Kind::deliver), delivery(remote, part.offset),
                             part.bytes, deadline, false, call.get());
      operation = std::move(call);
    }
    const Status status = settle(link, door, std::move(operation), deadline);
    if (!status.ok()) return status;
  }
  return {};
}

Status through_socket(Link& link, const Remote& remote, const std::vector<Part>& parts,
                      Deadline deadline) {
  for (const Part& part : parts) {
    for (std::size_t done = 0; done < part.bytes.size; done += kChunk) {
      const std::size_t size = std::min<std::size_t>(part.bytes.size - done, kChunk);
      Bytes request = delivery(remote, part.offset + done);
      request.insert(request.end(), part.bytes.data + done, part.bytes.data + done + size);
      auto reply = link.ask_socket(Kind::deliver, request, deadline);
      if (!reply) return reply.status();
    }
  }
  return {};
}

Status fill(Link& link, const rpc::Exposure& exposure, const DoorChoice& doors,
            const Remote& remote, const std::vector<Part>& parts, Deadline deadline) {
  Status last(Code::unavailable, "no door leads to owner " + link.address().short_name() +
                                     " (allowed: " + doors.describe() + ")");
  const auto decided = [&] {
    return last.code() != Code::unavailable && !(last.code() == Code::peer_lost && link.alive());
  };
  if (link.on_node() && doors.allows(kShmDoor)) {
    last = through_segment(link, remote, parts, deadline);
    if (decided()) return last;
  }
  for (const auto& door : exposure.doors()) {
    if (!doors.allows(door->name())) continue;
    last = through_door(link, door, remote, parts, deadline);
    if (decided()) return last;
  }
  if (!doors.allows(kSocketDoor)) return last;
  log_warn_once(
      "storing at owner " + link.address().short_name() +
      " over the node socket, which is slow, because no better door is open: " + last.message());
  return through_socket(link, remote, parts, deadline);
}

// One message there and back instead of three: what counts for small objects.
Expected<Key> store_at_once(Link& link, const ReserveOrder& order, const std::vector<Part>& parts,
                            const Policy& policy, Deadline deadline) {
  WireWriter head;
  order.encode(head);
  policy.encode(head);
  Bytes request = head.take();
  const std::size_t start = request.size();
  request.resize(start + static_cast<std::size_t>(order.length));
  for (const Part& part : parts) copy_bytes(request.data() + start + part.offset, part.bytes);
  auto stored = link.ask(Kind::store, request, deadline);
  if (!stored) return stored.status();
  return Key::parse(stored->body);
}

}  // namespace

Expected<Key> write_to(const std::shared_ptr<Link>& link, const rpc::Exposure& exposure,
                       const DoorChoice& doors, const Destination& to, std::uint64_t length,
                       const std::vector<Part>& parts, const Policy& policy, Deadline deadline) {
  for (const Part& part : parts)
    if (part.offset > length || part.bytes.size > length - part.offset)
      return Status(Code::invalid, "a part of the object lies outside of it");
  const ReserveOrder order{length, to.object, to.claim};
  if (length <= kStoredAtOnce) return store_at_once(*link, order, parts, policy, deadline);
  WireWriter reserve;
  order.encode(reserve);
  auto reserved = link->ask(Kind::reserve, reserve.bytes(), deadline);
  if (!reserved) return reserved.status();
  WireReader in(reserved->body);
  Remote remote;
  remote.object_id = in.get<std::uint64_t>();
  remote.segment = in.get<std::uint32_t>();
  remote.offset = in.get<std::uint64_t>();
  remote.length = length;
  if (!in.at_end()) return Status(Code::protocol, "a garbled answer to a reservation");

  const auto give_up = [&](const Status& why) {
    const auto ignored = link->ask(Kind::abort, WireWriter().put(remote.object_id).bytes(),
                                   Deadline::after(kSecond));
    return why;
  };
  const Status filled = fill(*link, exposure, doors, remote, parts, deadline);
  if (!filled.ok()) return give_up(filled);
  WireWriter publish;
  publish.put(remote.object_id);
  policy.encode(publish);
  auto published = link->ask(Kind::publish, publish.bytes(), deadline);
  if (!published) return give_up(published.status());
  return Key::parse(published->body);
}

}  // namespace pshpc::objects
