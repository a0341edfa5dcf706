#include "objects/door_reads.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "objects/header.h"

namespace pshpc::objects {
namespace {

constexpr Nanoseconds kTrustedDuration = kShortestGrace / 2;
// Up to here a copy is cheaper than another round trip.
constexpr std::size_t kSmall = 16u << 10;
// An owner that is there to send answers within this time, unless its machine is very busy.
constexpr Nanoseconds kOwnersTurn = 5 * kMillisecond;

// What an operation in flight needs, for as long as it is: also when nobody waits for it any more.
struct InFlight {
  std::shared_ptr<fabric::Channel> channel;
  std::shared_ptr<fabric::RemoteRegion> region;
  std::shared_ptr<memory::Pool::Buffer> buffer;
};
struct HeaderInFlight {
  ObjectHeader header;
  InFlight uses;
};
struct BytesInFlight {
  Bytes bytes;
  InFlight uses;
};

Status gone(const Key& key) { return {Code::evicted, key.describe() + " was evicted"}; }

bool header_is(const std::uint8_t* block, const Key& key) {
  const auto& header = *reinterpret_cast<const ObjectHeader*>(block);
  return header.is(key.object_id, key.generation) && header.length == key.length;
}

Bytes fetch_request(const Key& key, std::uint64_t offset, std::uint64_t length) {
  WireWriter request;
  ref_of(key).encode(request);
  request.put(offset).put(length);
  return request.take();
}

// A synchronous piece of work at a door with memory that must not be touched after a failure.
class Transfer {
 public:
  Transfer(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door)
      : link_(link), door_(door), channel_(link->channel(door->name())) {}

  bool open() const { return channel_ != nullptr; }
  const fabric::Channel& channel() const { return *channel_; }

  using Region = std::shared_ptr<fabric::RemoteRegion>;

  Status read(const Region& region, std::uint64_t offset, Span into, Deadline deadline) {
    auto operation = std::make_unique<fabric::Operation>(
        std::make_shared<InFlight>(InFlight{channel_, region, nullptr}));
    operation->set_awaited();
    channel_->read(*region, offset, into, operation.get());
    const Status status = link_->wait(*door_, *operation, deadline);
    return settle(status, std::move(operation));
  }

  Expected<std::shared_ptr<const ObjectHeader>> read_header(const Region& region,
                                                            std::uint64_t offset,
                                                            Deadline deadline) {
    auto kept = std::make_shared<HeaderInFlight>();
    kept->uses = {channel_, region, nullptr};
    auto operation = std::make_unique<fabric::Operation>(kept);
    operation->set_awaited();
    channel_->read(*region, offset, {&kept->header, kHeaderSize}, operation.get());
    const Status status = link_->wait(*door_, *operation, deadline);
    if (!operation->done()) fabric::Operation::abandon(std::move(operation));
    if (!status.ok()) return status;
    return std::shared_ptr<const ObjectHeader>(kept, &kept->header);
  }

  // Into memory that stays as long as the transfer does.
  Expected<std::shared_ptr<const Bytes>> read_kept(const Region& region, std::uint64_t offset,
                                                   std::size_t size, Deadline deadline) {
    auto kept = std::make_shared<BytesInFlight>();
    kept->bytes.resize(size);
    kept->uses = {channel_, region, nullptr};
    auto operation = std::make_unique<fabric::Operation>(kept);
    operation->set_awaited();
    channel_->read(*region, offset, kept->bytes, operation.get());
    const Status status = link_->wait(*door_, *operation, deadline);
    if (!operation->done()) fabric::Operation::abandon(std::move(operation));
    if (!status.ok()) return status;
    return std::shared_ptr<const Bytes>(kept, &kept->bytes);
  }

  Expected<FetchReply> fetch(const Key& key, std::uint64_t offset, Span into, Deadline deadline) {
    auto call = std::make_unique<rpc::Call>(into, nullptr);
    rpc::Call* waiting = call.get();
    link_->messenger().start(channel_, target_of(Kind::fetch),
                             fetch_request(key, offset, into.size), {}, deadline, false, waiting);
    Status status = link_->wait(*door_, *waiting, deadline);
    FetchReply reply;
    std::size_t received = 0;
    if (status.ok()) {
      WireReader in(waiting->reply());
      reply = FetchReply::decode(in);
      if (!in.at_end()) status = Status(Code::protocol, "a garbled answer to a fetch");
      received = waiting->received();
    }
    status = settle(status, std::move(call));
    if (!status.ok()) return status;
    if (reply.total != key.length || reply.generation != key.generation) return gone(key);
    if (received != into.size)
      return Status(Code::protocol, "fewer bytes came than were asked for");
    return reply;
  }

 private:
  Status settle(const Status& status, std::unique_ptr<fabric::Operation> operation) {
    if (operation->done()) return status;
    // Still in flight, into memory that we do not own: cut the channel, which ends it.
    link_->drop_channel(door_->name());
    const Status ended =
        door_->wait(*operation, Deadline::after(5 * kSecond), [] { return false; });
    if (!ended.ok()) fabric::Operation::abandon(std::move(operation));
    return status;
  }

  std::shared_ptr<Link> link_;
  fabric::DoorHandle door_;
  std::shared_ptr<fabric::Channel> channel_;
};

// Whether the owner is to send the bytes: where nothing else leads there, or where that is faster
// and it is there to do so. One that is stopped, or busy elsewhere, is read from one-sidedly.
bool owner_sends(Link& link, const fabric::Channel& channel, const Key& key, std::uint64_t length,
                 Deadline deadline) {
  if (!channel.one_sided()) return true;
  if (!channel.prefers_message(static_cast<std::size_t>(length))) return false;
  WireWriter request;
  request.put(std::uint32_t{1});
  ref_of(key).encode(request);
  const Nanoseconds patience = std::min(deadline.remaining(), kOwnersTurn);
  return link.ask(Kind::exists, request.bytes(), Deadline::after(patience)).ok();
}

Status lost_door(const fabric::DoorHandle& door) {
  return {Code::peer_lost, "the " + door->name() + " door to the owner was lost"};
}

Status outside(const Key& key) {
  return {Code::invalid, "the range lies outside of " + key.describe()};
}

Status kept_changing(const Key& key) {
  return {Code::changed, key.describe() +
                             " kept changing while it was read; read it between the owner's "
                             "writing() blocks, or allow more time"};
}

// Time may run out anywhere in a read: what held it up is worth more than where that was.
Status blame(const Key& key, bool changing, const Status& status) {
  return changing && status.code() == Code::timed_out ? kept_changing(key) : status;
}

// Header and bytes at once, where that is little. Nothing if the look at the header comes too late
// to vouch for the bytes.
std::optional<Status> read_small(Transfer& transfer, const Transfer::Region& block, const Key& key,
                                 std::uint64_t offset, Span into, Deadline deadline) {
  const Nanoseconds started = now();
  const auto before = kHeaderSize + static_cast<std::size_t>(offset);
  auto both = transfer.read_kept(block, key.offset, before + into.size, deadline);
  if (!both) return both.status();
  const std::uint8_t* const bytes = both.value()->data();
  if (!header_is(bytes, key)) return gone(key);
  if (now() - started >= kTrustedDuration) return std::nullopt;
  copy_bytes(into.data, {bytes + before, into.size});
  return Status();
}

// What is stored never changes: that it is there afterwards says that it was there before.
Status read_stored(Transfer& transfer, const Transfer::Region& block, const Key& key,
                   std::uint64_t offset, Span into, Deadline deadline) {
  if (offset + into.size <= kSmall) {
    const auto small = read_small(transfer, block, key, offset, into, deadline);
    if (small) return *small;
  }
  const Status status = transfer.read(block, key.offset + kHeaderSize + offset, into, deadline);
  if (!status.ok()) return status;
  auto after = transfer.read_header(block, key.offset, deadline);
  if (!after) return after.status();
  return after.value()->is(key.object_id, key.generation) ? Status() : gone(key);
}

// One-sided. What changes is read between two looks at its header, in an order that needs no grace
// period.
Status read_one_sided(Transfer& transfer, const std::shared_ptr<Link>& link,
                      const fabric::DoorHandle& door, const Key& key, std::uint64_t offset,
                      Span into, Deadline deadline) {
  auto block = link->region(door->name(), key.segment, key, deadline);
  if (!block) return block.status();
  if (!(key.flags & Key::kLive))
    return read_stored(transfer, block.value(), key, offset, into, deadline);
  bool changing = false;
  const auto outcome = [&](const Status& status) { return blame(key, changing, status); };
  do {
    auto before = transfer.read_header(block.value(), key.offset, deadline);
    if (!before) return outcome(before.status());
    const ObjectHeader& header = *before.value();
    if (!header.is(key.object_id, key.generation)) return gone(key);
    const std::uint64_t sequence = header.sequence.load();
    if (sequence & 1) {
      changing = true;
      ::sched_yield();
      continue;
    }
    const std::uint64_t stored = header.flags & kRegistered ? header.live_offset : key.length;
    std::size_t here = 0;
    if (offset < stored) {
      here = static_cast<std::size_t>(std::min<std::uint64_t>(into.size, stored - offset));
      const Status status = transfer.read(block.value(), key.offset + kHeaderSize + offset,
                                          into.slice(0, here), deadline);
      if (!status.ok()) return outcome(status);
    }
    if (here < into.size) {
      auto live = link->region(door->name(), header.live_region, key, deadline);
      if (!live) return live.status();
      const Status status =
          transfer.read(live.value(), header.region_offset + offset + here - stored,
                        into.slice(here, into.size - here), deadline);
      if (!status.ok()) return outcome(status);
    }
    auto after = transfer.read_header(block.value(), key.offset, deadline);
    if (!after) return outcome(after.status());
    if (!after.value()->is(key.object_id, key.generation)) return gone(key);
    if (after.value()->sequence.load() == sequence) return {};
    changing = true;
  } while (!deadline.passed());
  return kept_changing(key);
}

// Fetches pieces of a payload, stored or live, by `fetch(offset, into)`; live bytes between two
// looks at the sequence.
using Fetch = std::function<Expected<FetchReply>(std::uint64_t offset, Span into)>;

Status read_by_fetching(const Key& key, std::uint64_t offset, Span into, Deadline deadline,
                        const Fetch& fetch) {
  if (!(key.flags & Key::kLive)) {
    auto reply = fetch(offset, into);
    return reply.status();
  }
  bool changing = false;
  const auto outcome = [&](const Status& status) { return blame(key, changing, status); };
  do {
    auto before = fetch(0, {});
    if (!before) return outcome(before.status());
    if (before->sequence & 1) {
      changing = true;
      ::sched_yield();
      continue;
    }
    std::size_t described = 0;
    if (offset < before->live_offset) {
      described = static_cast<std::size_t>(
          std::min<std::uint64_t>(into.size, before->live_offset - offset));
      auto reply = fetch(offset, into.slice(0, described));
      if (!reply) return outcome(reply.status());
    }
    if (described < into.size) {
      auto reply = fetch(offset + described, into.slice(described, into.size - described));
      if (!reply) return outcome(reply.status());
    }
    auto after = fetch(0, {});
    if (!after) return outcome(after.status());
    if (after->sequence == before->sequence && after->generation == before->generation) return {};
    changing = true;
  } while (!deadline.passed());
  return kept_changing(key);
}

}  // namespace

DoorRead::DoorRead(std::shared_ptr<Link> link, fabric::DoorHandle door, Key key,
                   std::shared_ptr<memory::Pool::Buffer> buffer)
    : link_(std::move(link)),
      door_(std::move(door)),
      key_(std::move(key)),
      buffer_(std::move(buffer)) {}

DoorRead::DoorRead(DoorRead&&) noexcept = default;

DoorRead::~DoorRead() {
  if (operation_ && !operation_->done()) fabric::Operation::abandon(std::move(operation_));
}

Status DoorRead::start(Deadline deadline) {
  channel_ = link_->channel(door_->name());
  if (!channel_) return lost_door(door_);
  const Span span = buffer_->span();
  started_ = now();
  const bool asked = owner_sends(*link_, *channel_, key_, key_.length, deadline);
  Expected<std::shared_ptr<fabric::RemoteRegion>> region = Status(Code::unavailable, "");
  if (!asked) region = link_->region(door_->name(), key_.segment, key_, deadline);
  if (!asked && !region &&
      !(region.status().code() == Code::unavailable && channel_->serves_messages()))
    return region.status();
  if (region) {
    region_ = std::move(region).value();
    operation_ = std::make_unique<fabric::Operation>(
        std::make_shared<InFlight>(InFlight{channel_, region_, buffer_}));
    operation_->set_awaited();
    started_ = now();
    channel_->read(*region_, key_.offset,
                   span.slice(0, kHeaderSize + static_cast<std::size_t>(key_.length)),
                   operation_.get());
    return {};
  }
  const Span payload = span.slice(kHeaderSize, static_cast<std::size_t>(key_.length));
  auto call = std::make_unique<rpc::Call>(payload, buffer_);
  call_ = call.get();
  operation_ = std::move(call);
  link_->messenger().start(channel_, target_of(Kind::fetch), fetch_request(key_, 0, key_.length),
                           {}, deadline, false, call_);
  return {};
}

Status DoorRead::finish(Deadline deadline) {
  Status status = link_->wait(*door_, *operation_, deadline);
  if (!operation_->done()) {
    fabric::Operation::abandon(std::move(operation_));
    return status;
  }
  if (!status.ok()) return status;
  return validate(deadline);
}

Status DoorRead::validate(Deadline deadline) {
  if (call_ != nullptr) {
    WireReader in(call_->reply());
    const FetchReply reply = FetchReply::decode(in);
    if (!in.at_end()) return {Code::protocol, "a garbled answer to a fetch"};
    if (reply.total != key_.length || reply.generation != key_.generation) return gone(key_);
    if (call_->received() != key_.length)
      return {Code::protocol, "fewer bytes came than " + key_.describe() + " has"};
    return {};
  }
  if (!header_is(buffer_->span().data, key_)) return gone(key_);
  if (now() - started_ < kTrustedDuration) return {};
  Transfer again(link_, door_);
  if (!again.open()) return lost_door(door_);
  auto header = again.read_header(region_, key_.offset, deadline);
  if (!header) return header.status();
  return header.value()->is(key_.object_id, key_.generation) ? Status() : gone(key_);
}

Status read_through_door(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                         const Key& key, std::uint64_t offset, Span into, Deadline deadline) {
  if (offset > key.length || into.size > key.length - offset) return outside(key);
  Transfer transfer(link, door);
  if (!transfer.open()) return lost_door(door);
  if (!owner_sends(*link, transfer.channel(), key, into.size, deadline)) {
    const Status direct = read_one_sided(transfer, link, door, key, offset, into, deadline);
    // What the owner could not register at this door is asked for.
    if (direct.code() != Code::unavailable || !transfer.channel().serves_messages()) return direct;
  }
  return read_by_fetching(key, offset, into, deadline, [&](std::uint64_t from, Span piece) {
    return transfer.fetch(key, from, piece, deadline);
  });
}

Status confirm_remotely(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                        const Key& key, Deadline deadline) {
  if (!door) {
    WireWriter request;
    ref_of(key).encode(request);
    auto answer = link->ask_socket(Kind::locate, request.bytes(), deadline);
    if (!answer) return answer.status();
    auto located = Key::parse(answer->body);
    if (!located) return located.status();
    const bool same = located->generation == key.generation && located->length == key.length;
    return same ? Status() : gone(key);
  }
  Transfer transfer(link, door);
  if (!transfer.open()) return lost_door(door);
  Expected<std::shared_ptr<fabric::RemoteRegion>> block = Status(Code::unavailable, "");
  if (transfer.channel().one_sided()) {
    block = link->region(door->name(), key.segment, key, deadline);
    if (!block &&
        !(block.status().code() == Code::unavailable && transfer.channel().serves_messages()))
      return block.status();
  }
  if (!block) return transfer.fetch(key, 0, {}, deadline).status();
  auto header = transfer.read_header(block.value(), key.offset, deadline);
  if (!header) return header.status();
  const bool same =
      header.value()->is(key.object_id, key.generation) && header.value()->length == key.length;
  return same ? Status() : gone(key);
}

bool seen_unchanged(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                    const Key& key, Deadline deadline) {
  Transfer transfer(link, door);
  if (!transfer.open() || !transfer.channel().one_sided()) return false;
  const auto block = link->region(door->name(), key.segment, key, deadline);
  if (!block) return false;
  const auto header = transfer.read_header(block.value(), key.offset, deadline);
  return header && header.value()->is(key.object_id, key.generation);
}

Status read_through_socket(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t offset,
                           Span into, Deadline deadline) {
  if (offset > key.length || into.size > key.length - offset) return outside(key);
  const auto fetch = [&](std::uint64_t from, Span whole) -> Expected<FetchReply> {
    FetchReply facts;
    std::size_t done = 0;
    do {
      const std::size_t length = std::min<std::size_t>(whole.size - done, kChunk);
      auto frame = link->ask_socket(Kind::fetch, fetch_request(key, from + done, length), deadline);
      if (!frame) return frame.status();
      WireReader in(frame->body);
      facts = FetchReply::decode(in);
      if (!in.ok() || in.rest().size != length)
        return Status(Code::protocol, "a garbled answer to a fetch");
      if (facts.generation != key.generation || facts.total != key.length) return gone(key);
      copy_bytes(whole.data + done, in.rest());
      done += length;
    } while (done < whole.size);
    return facts;
  };
  return read_by_fetching(key, offset, into, deadline, fetch);
}

}  // namespace pshpc::objects
