#include "objects/service.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace pshpc::objects {
namespace {

Status short_request() { return {Code::protocol, "a request ends before it says what it wants"}; }

Status too_many() { return {Code::protocol, "a request for more objects than one may name"}; }

Status untrusted(const char* what) {
  return {Code::denied, std::string(what) +
                            " in another process needs the job's secret: create both stores with "
                            "Store.from_mpi(), or give them the same secret="};
}

// Keeps an object's block from reuse while it is sent.
std::shared_ptr<const void> keep_block(std::shared_ptr<Owner> owner, const memory::Block& block) {
  return std::shared_ptr<const void>(
      static_cast<const void*>(block.data),
      [owner = std::move(owner), block](const void*) { owner->unpin(block); });
}

}  // namespace

Status adopt_pins(Owner& owner, Handover* handover, std::uint64_t connection, Fd table) {
  Fd for_the_keeper;
  if (handover != nullptr) {
    for_the_keeper = Fd(::fcntl(table.get(), F_DUPFD_CLOEXEC, 0));
    if (!for_the_keeper) return system_error("handing a pin table on");
  }
  auto view = memory::PinTableView::open(std::move(table));
  if (!view) return view.status();
  // First: the reader may use it as soon as it is answered.
  if (handover != nullptr) handover->add_pin_table(connection, for_the_keeper.get());
  return owner.add_reader(connection, std::move(view).value());
}

Expected<PayloadRange> payload_range(const Located& object, std::uint64_t offset,
                                     std::uint64_t length) {
  if (offset > object.length || length > object.length - offset)
    return Status(Code::invalid, "bytes " + std::to_string(offset) + " to " +
                                     std::to_string(offset + length) + " lie outside of object " +
                                     std::to_string(object.object_id) + ", which has " +
                                     std::to_string(object.length));
  PayloadRange range;
  const std::uint8_t* stored = object.block.data + kHeaderSize;
  if ((object.flags & kRegistered) == 0) {
    range.first = {stored + offset, static_cast<std::size_t>(length)};
    return range;
  }
  const ObjectHeader& header = object.header();
  const std::uint64_t live_offset = header.live_offset;
  if (offset < live_offset)
    range.first = {stored + offset,
                   static_cast<std::size_t>(std::min(length, live_offset - offset))};
  const std::uint64_t rest = length - range.first.size;
  if (rest > 0) {
    const std::uint64_t from = offset + range.first.size - live_offset;
    range.second = {reinterpret_cast<const void*>(header.live_address + from),
                    static_cast<std::size_t>(rest)};
  }
  if (range.first.empty()) std::swap(range.first, range.second);
  return range;
}

Status Service::serve(const std::shared_ptr<Service>& service, rpc::Messenger& messenger) {
  for (auto number = static_cast<std::uint16_t>(Kind::locate);
       number <= static_cast<std::uint16_t>(kLastKind); ++number) {
    const auto kind = static_cast<Kind>(number);
    const rpc::Target target = target_of(kind);
    const Status added =
        messenger.add_handler(kind_name(kind), target.method, target.provider, service);
    if (!added.ok()) return added;
  }
  return {};
}

void Service::handle(rpc::Request& request) {
  WireReader in(request.body);
  Responder& to = request.responder;
  const Caller& caller = request.caller;
  Status status;
  switch (static_cast<Kind>(request.method)) {
    case Kind::locate: status = locate(in, to); break;
    case Kind::exists: status = exists(in, to); break;
    case Kind::evict: status = evict(in, to); break;
    case Kind::segment: status = segment(in, caller, to); break;
    case Kind::region: status = region(in, caller, to); break;
    case Kind::reserve: status = reserve(in, caller, to); break;
    case Kind::deliver: status = deliver(in, request.payload.span, caller, to); break;
    case Kind::publish: status = publish(in, caller, to); break;
    case Kind::abort: status = abort(in, caller, to); break;
    case Kind::fetch: status = fetch(in, to); break;
    case Kind::wait: status = wait(in, request); break;
    case Kind::pin_table: status = pin_table(in, std::move(request.fds), caller, to); break;
    case Kind::hold: status = hold(in, caller, to); break;
    case Kind::release: status = release(in, to); break;
    case Kind::extend: status = extend(in, to); break;
    case Kind::validate: status = validate(in, to); break;
    case Kind::store: status = store(in, caller, to); break;
    default: status = Status(Code::protocol, "a request of an unknown kind");
  }
  if (!status.ok()) to.reply(status);
}

Status Service::locate(WireReader& in, Responder& to) {
  const ObjectRef object = ObjectRef::decode(in);
  if (!in.at_end()) return short_request();
  auto key = owner_->locate(object.object_id, object.capability);
  if (!key) return key.status();
  to.reply({}, key->encode());
  return {};
}

Status Service::exists(WireReader& in, Responder& to) {
  const auto count = in.get<std::uint32_t>();
  if (count > kMaxBatch) return too_many();
  WireWriter codes;
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    const ObjectRef object = ObjectRef::decode(in);
    codes.put(static_cast<std::uint8_t>(owner_->check(object.object_id, object.capability).code()));
  }
  if (!in.at_end()) return short_request();
  to.reply({}, codes.bytes());
  return {};
}

Status Service::evict(WireReader& in, Responder& to) {
  const bool force = in.get<std::uint8_t>() != 0;
  const auto count = in.get<std::uint32_t>();
  if (count > kMaxBatch) return too_many();
  std::vector<ObjectRef> objects;
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) objects.push_back(ObjectRef::decode(in));
  if (!in.at_end()) return short_request();
  WireWriter codes;
  for (const ObjectRef& object : objects)
    codes.put(static_cast<std::uint8_t>(
        owner_->evict(object.object_id, object.capability, force).code()));
  to.reply({}, codes.bytes());
  return {};
}

Status Service::segment(WireReader& in, const Caller& caller, Responder& to) {
  const ObjectRef object = ObjectRef::decode(in);
  const auto id = in.get<std::uint16_t>();
  const bool writable = in.get<std::uint8_t>() != 0;
  if (!in.at_end()) return short_request();
  if (!caller.local) return {Code::unavailable, "segments are handed over on their node only"};
  if (writable && !caller.trusted) return untrusted("storing objects");
  if (!writable) {
    const Status known = owner_->check(object.object_id, object.capability);
    if (!known.ok()) return known;
  }
  const memory::Segment* segment = owner_->arena().segment(id);
  if (segment == nullptr) return {Code::not_found, "there is no segment " + std::to_string(id)};
  auto fd = writable ? segment->reopen_writable() : segment->reopen_read_only();
  if (!fd) return fd.status();
  std::vector<Fd> fds;
  fds.push_back(std::move(fd).value());
  to.reply({}, {}, {}, std::move(fds));
  return {};
}

Status Service::region(WireReader& in, const Caller& caller, Responder& to) {
  const ObjectRef object = ObjectRef::decode(in);
  const auto id = in.get<std::uint32_t>();
  const std::string door = in.get_text();
  if (!in.at_end()) return short_request();
  if (!caller.trusted) {
    const Status known = owner_->check(object.object_id, object.capability);
    if (!known.ok()) return known;
  }
  auto handle = exposure_.handle(door, id);
  if (!handle) return handle.status();
  // Before the handle goes out: evictions from now on leave time for reads that nobody sees.
  const Status granted = owner_->grant_one_sided(caller.connection);
  if (!granted.ok()) return granted;
  to.reply({}, handle.value());
  return {};
}

Expected<Reservation> Service::reserve_as_asked(const ReserveOrder& order, const Caller& caller) {
  if (!caller.trusted) return untrusted("storing objects");
  const Into into{order.object.object_id, order.claim};
  if (into.object_id != 0) {
    const Status allowed = owner_->may_store_into(into, order.object.capability);
    if (!allowed.ok()) return allowed;
  }
  return owner_->reserve(order.length, caller.connection, into);
}

Status Service::reserve(WireReader& in, const Caller& caller, Responder& to) {
  const ReserveOrder order = ReserveOrder::decode(in);
  if (!in.at_end()) return short_request();
  auto reservation = reserve_as_asked(order, caller);
  if (!reservation) return reservation.status();
  WireWriter out;
  out.put(reservation->object_id);
  out.put(reservation->block.segment);
  out.put(reservation->block.offset);
  to.reply({}, out.bytes());
  return {};
}

std::optional<Delivery> Service::delivery(rpc::MethodId method, ConstSpan body, std::size_t size,
                                          const Caller& caller) {
  if (static_cast<Kind>(method) != Kind::deliver) return Delivery{};
  WireReader in(body);
  const auto object = in.get<std::uint64_t>();
  const auto offset = in.get<std::uint64_t>();
  if (!in.at_end() || !caller.trusted) return Delivery{};
  auto reservation = owner_->pin_reserved(object, caller.connection);
  if (!reservation) return Delivery{};
  auto keep = keep_block(owner_, reservation->block);
  if (offset > reservation->length || size > reservation->length - offset) return Delivery{};
  return Delivery{reservation->payload().slice(static_cast<std::size_t>(offset), size),
                  std::move(keep)};
}

Status Service::deliver(WireReader& in, ConstSpan payload, const Caller& caller, Responder& to) {
  const auto object = in.get<std::uint64_t>();
  const auto offset = in.get<std::uint64_t>();
  if (!in.ok()) return short_request();
  if (!caller.trusted) return untrusted("storing objects");
  auto reservation = owner_->reserved(object, caller.connection);
  if (!reservation) return reservation.status();
  // A door puts the bytes where delivery() said; a socket brings them behind the request.
  const bool placed = !payload.empty();
  if (!placed) {
    const Status filled = owner_->fill(reservation.value(), offset, in.rest());
    if (!filled.ok()) return filled;
  }
  to.reply({});
  return {};
}

Status Service::publish(WireReader& in, const Caller& caller, Responder& to) {
  const auto object = in.get<std::uint64_t>();
  const Policy policy = Policy::decode(in);
  if (!in.at_end()) return short_request();
  if (!caller.trusted) return untrusted("storing objects");
  if (!policy.known()) return {Code::invalid, "an unknown policy"};
  auto key = owner_->publish(object, policy, false, caller.connection);
  if (!key) return key.status();
  to.reply({}, key->encode());
  return {};
}

Status Service::store(WireReader& in, const Caller& caller, Responder& to) {
  const ReserveOrder order = ReserveOrder::decode(in);
  const Policy policy = Policy::decode(in);
  if (!in.ok()) return short_request();
  if (!policy.known()) return {Code::invalid, "an unknown policy"};
  const ConstSpan bytes = in.rest();
  if (bytes.size != order.length || bytes.size > kStoredAtOnce)
    return {Code::protocol, "an object of another size than was said"};
  auto reservation = reserve_as_asked(order, caller);
  if (!reservation) return reservation.status();
  Status filled = owner_->fill(reservation.value(), 0, bytes);
  auto key = filled.ok() ? owner_->publish(reservation->object_id, policy, false, caller.connection)
                         : Expected<Key>(std::move(filled));
  if (!key) {
    owner_->abort(reservation->object_id, caller.connection);
    return key.status();
  }
  to.reply({}, key->encode());
  return {};
}

Status Service::abort(WireReader& in, const Caller& caller, Responder& to) {
  const auto object = in.get<std::uint64_t>();
  if (!in.at_end()) return short_request();
  if (!caller.trusted) return untrusted("storing objects");
  owner_->abort(object, caller.connection);
  to.reply({});
  return {};
}

Status Service::fetch(WireReader& in, Responder& to) {
  const ObjectRef object = ObjectRef::decode(in);
  const auto offset = in.get<std::uint64_t>();
  const auto length = in.get<std::uint64_t>();
  if (!in.at_end()) return short_request();
  auto located = owner_->pin(object.object_id, object.capability);
  if (!located) return located.status();
  auto keep = keep_block(owner_, located->block);
  if (length > to.room())
    return {Code::invalid, "more bytes asked for at once than one reply takes"};
  auto range = payload_range(located.value(), offset, length);
  if (!range) return range.status();

  WireWriter facts;
  facts.put(located->generation);
  facts.put(located->header().sequence.load(std::memory_order_acquire));
  facts.put(located->length);
  facts.put(located->flags & kRegistered ? located->header().live_offset : std::uint64_t{0});
  if (!range->second.empty())
    return {Code::invalid, "a live object's description and its data are fetched separately"};
  to.reply({}, facts.bytes(), {range->first, std::move(keep)}, {});
  return {};
}

Status Service::wait(WireReader& in, rpc::Request& request) {
  const ObjectRef object = ObjectRef::decode(in);
  // After that the asker does not listen any more.
  const auto patience = in.get<std::int64_t>();
  if (!in.at_end()) return short_request();
  if (patience < 0) return {Code::invalid, "a negative patience"};
  std::weak_ptr<Owner> weak = owner_;
  const Waiting waiting{request.caller.connection, patience};
  const std::shared_ptr<Responder> to = request.defer();
  owner_->when_published(
      object.object_id, object.capability, waiting, [weak, object, to](const Status& status) {
        const auto owner = weak.lock();
        if (!status.ok() || !owner) {
          to->reply(status.ok() ? Status(Code::closed, "the owner closed its store") : status);
          return;
        }
        auto key = owner->locate(object.object_id, object.capability);
        if (key)
          to->reply({}, key->encode());
        else
          to->reply(key.status());
      });
  return {};
}

// Reads all of them before the first is done: a request is obeyed as a whole or not at all.
template <class Item, class Read, class Do>
Status Service::each(WireReader& in, Responder& to, Read read, Do act) {
  const auto count = in.get<std::uint32_t>();
  if (count > kMaxBatch) return too_many();
  std::vector<std::pair<ObjectRef, Item>> items;
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    const ObjectRef object = ObjectRef::decode(in);
    items.emplace_back(object, read());
  }
  if (!in.at_end()) return short_request();
  WireWriter codes;
  for (const auto& [object, item] : items)
    codes.put(static_cast<std::uint8_t>(act(object, item).code()));
  to.reply({}, codes.bytes());
  return {};
}

Status Service::hold(WireReader& in, const Caller& caller, Responder& to) {
  const auto read = [&in] {
    ClaimRequest request;
    request.claim = in.get<std::uint64_t>();
    request.mode = in.get<ClaimMode>();
    request.fresh = in.get<std::uint8_t>() != 0;
    request.lease = in.get<std::int64_t>();
    return request;
  };
  return each<ClaimRequest>(in, to, read, [&](const ObjectRef& object, const ClaimRequest& asked) {
    const auto mode = static_cast<std::uint8_t>(asked.mode);
    if (mode == 0 || mode > static_cast<std::uint8_t>(kLastClaimMode) || asked.lease < 0)
      return Status(Code::invalid, "no such reference");
    return owner_->hold(object.object_id, object.capability, asked, caller.connection);
  });
}

Status Service::release(WireReader& in, Responder& to) {
  return each<std::uint64_t>(
      in, to, [&in] { return in.get<std::uint64_t>(); },
      [this](const ObjectRef& object, std::uint64_t claim) {
        return owner_->release(object.object_id, object.capability, claim);
      });
}

Status Service::extend(WireReader& in, Responder& to) {
  const auto time_to_live = in.get<std::int64_t>();
  if (time_to_live < 0) return {Code::invalid, "a negative time to live"};
  return each<bool>(
      in, to, [] { return true; },
      [this, time_to_live](const ObjectRef& object, bool) {
        return owner_->extend(object.object_id, object.capability, time_to_live);
      });
}

Status Service::validate(WireReader& in, Responder& to) {
  return each<std::uint64_t>(
      in, to, [&in] { return in.get<std::uint64_t>(); },
      [this](const ObjectRef& object, std::uint64_t generation) {
        return owner_->validate(object.object_id, object.capability, generation);
      });
}

Status Service::pin_table(WireReader& in, std::vector<Fd> fds, const Caller& caller,
                          Responder& to) {
  if (!in.at_end() || fds.size() != 1)
    return {Code::protocol, "a pin table came without its descriptor"};
  const Status added =
      adopt_pins(*owner_, handover_.get(), caller.connection, std::move(fds.front()));
  if (!added.ok()) return added;
  to.reply({});
  return {};
}

}  // namespace pshpc::objects
