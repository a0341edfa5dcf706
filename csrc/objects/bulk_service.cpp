#include "objects/bulk_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace pshpc::objects {
namespace {

Status short_request() { return {Code::protocol, "a request ends before it says what it wants"}; }

}  // namespace

Status BulkService::serve(const std::shared_ptr<BulkService>& service, rpc::Messenger& messenger) {
  for (auto number = static_cast<std::uint16_t>(BulkKind::check);
       number <= static_cast<std::uint16_t>(kLastBulkKind); ++number) {
    const auto kind = static_cast<BulkKind>(number);
    const rpc::Target target = target_of(kind);
    const Status added =
        messenger.add_handler(kind_name(kind), target.method, target.provider, service);
    if (!added.ok()) return added;
  }
  return {};
}

void BulkService::handle(rpc::Request& request) {
  WireReader in(request.body);
  Ref ref{};
  ref.id = in.get<std::uint64_t>();
  ref.capability = in.get_tag();
  Status status;
  switch (static_cast<BulkKind>(request.method)) {
    case BulkKind::check: status = check(ref, in, request); break;
    case BulkKind::segment: status = segment(ref, in, request); break;
    case BulkKind::region: status = region(ref, in, request); break;
    case BulkKind::fetch: status = fetch(ref, in, request); break;
    case BulkKind::deliver: status = deliver(ref, in, request); break;
    default: status = Status(Code::protocol, "a request of an unknown kind");
  }
  if (!status.ok()) request.responder.reply(status);
}

Status BulkService::check(const Ref& ref, WireReader& in, rpc::Request& request) {
  const auto mode = in.get<std::uint8_t>();
  if (!in.at_end()) return short_request();
  auto used = table_->use(ref.id, ref.capability, mode);
  if (!used) return used.status();
  request.responder.reply({});
  return {};
}

Status BulkService::segment(const Ref& ref, WireReader& in, rpc::Request& request) {
  const auto mode = in.get<std::uint8_t>();
  const auto id = in.get<std::uint16_t>();
  if (!in.at_end()) return short_request();
  if (!request.caller.local)
    return {Code::unavailable, "segments are handed over on their node only"};
  auto used = table_->use(ref.id, ref.capability, mode);
  if (!used) return used.status();
  const Bulk& bulk = used.value()->bulk;
  const bool writable = (mode & kBulkWrite) != 0;
  const bool of_a_piece = std::any_of(
      bulk.pieces.begin(), bulk.pieces.end(),
      [id](const BulkPiece& piece) { return piece.in_segment() && piece.segment == id; });
  const memory::Segment* segment = table_->owner().arena().segment(id);
  if (segment == nullptr || !(of_a_piece || (id == bulk.gate.segment && !writable)))
    return {Code::denied, "nothing of " + bulk.describe() + " lies in that segment"};
  auto fd = writable ? segment->reopen_writable() : segment->reopen_read_only();
  if (!fd) return fd.status();
  std::vector<Fd> fds;
  fds.push_back(std::move(fd).value());
  request.responder.reply({}, {}, {}, std::move(fds));
  return {};
}

Status BulkService::region(const Ref& ref, WireReader& in, rpc::Request& request) {
  const auto id = in.get<std::uint32_t>();
  const std::string door = in.get_text();
  if (!in.at_end()) return short_request();
  auto used = table_->use(ref.id, ref.capability, 0);
  if (!used) return used.status();
  const auto& pieces = used.value()->bulk.pieces;
  if (std::none_of(pieces.begin(), pieces.end(),
                   [id](const BulkPiece& piece) { return piece.region == id; }))
    return {Code::denied, "the region does not belong to " + used.value()->bulk.describe()};
  auto handle = table_->exposure().handle(door, id);
  if (!handle) return handle.status();
  request.responder.reply({}, handle.value());
  return {};
}

Status BulkService::fetch(const Ref& ref, WireReader& in, rpc::Request& request) {
  const auto offset = in.get<std::uint64_t>();
  const auto length = in.get<std::uint64_t>();
  if (!in.at_end()) return short_request();
  auto used = table_->use(ref.id, ref.capability, kBulkRead);
  if (!used) return used.status();
  if (length > request.responder.room())
    return {Code::invalid, "more bytes asked for at once than one reply takes"};
  auto range = used.value()->range(offset, length);
  if (!range) return range.status();
  request.responder.reply({}, {}, {range.value(), std::move(used).value()}, {});
  return {};
}

std::optional<rpc::Delivery> BulkService::delivery(rpc::MethodId method, ConstSpan body,
                                                   std::size_t size, const rpc::Caller&) {
  if (static_cast<BulkKind>(method) != BulkKind::deliver) return rpc::Delivery{};
  WireReader in(body);
  const auto id = in.get<std::uint64_t>();
  const Tag capability = in.get_tag();
  const auto offset = in.get<std::uint64_t>();
  if (!in.at_end()) return rpc::Delivery{};
  auto used = table_->use(id, capability, kBulkWrite);
  if (!used) return rpc::Delivery{};
  auto range = used.value()->range(offset, size);
  if (!range) return rpc::Delivery{};
  return rpc::Delivery{range.value(), std::move(used).value()};
}

Status BulkService::deliver(const Ref& ref, WireReader& in, rpc::Request& request) {
  const auto offset = in.get<std::uint64_t>();
  if (!in.ok()) return short_request();
  // A door puts the bytes where delivery() said; a socket brings them behind the request.
  if (request.payload.span.empty()) {
    auto used = table_->use(ref.id, ref.capability, kBulkWrite);
    if (!used) return used.status();
    auto range = used.value()->range(offset, in.rest().size);
    if (!range) return range.status();
    copy_bytes(range->data, in.rest());
  }
  request.responder.reply({});
  return {};
}

}  // namespace pshpc::objects
