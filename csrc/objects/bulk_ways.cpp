#include "objects/bulk_ways.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "fabric/shm/process_read.h"
#include "objects/header.h"
#include "objects/protocol.h"

namespace pshpc::objects {
namespace {

// The time and the owner's life are looked at between copies of this size.
constexpr std::size_t kCopiedAtOnce = 64u << 20;

struct Hold {
  std::shared_ptr<Tether> tether;
  Tether::Pin pin;

  explicit Hold(std::shared_ptr<Tether> t) : tether(std::move(t)) {}
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  ~Hold() {
    if (pin.table != nullptr) tether->unpin(pin);
  }
};

Expected<std::shared_ptr<fabric::MappedSegment>> segment_of(Link& link, const Bulk& bulk,
                                                            std::uint16_t id, std::uint8_t mode,
                                                            Deadline deadline) {
  const auto ask = [&]() -> Link::Question {
    WireWriter request = ask_about(bulk);
    request.put(mode).put(id);
    return {target_of(BulkKind::segment), request.take()};
  };
  return link.segment(id, mode == kBulkWrite, ask, deadline);
}

Status outside(const Bulk& bulk) {
  return {Code::invalid, "the handle of " + bulk.describe() + " points outside of its segment"};
}

Status took_too_long(const Bulk& bulk) {
  return {Code::timed_out, "the transfer of " + bulk.describe() + " took too long"};
}

Status lost(const Bulk& bulk) {
  return {Code::peer_lost, "the owner of " + bulk.describe() + " is lost"};
}

Status copy(fabric::MappedSegment& segment, const Bulk& bulk, Direction direction,
            const Stretch& stretch) {
  const std::uint64_t place = bulk.pieces[stretch.piece].place + stretch.at;
  if (!segment.covers(place, stretch.local.size)) return outside(bulk);
  const Span there(segment.data() + place, stretch.local.size);
  if (direction == Direction::pull)
    copy_bytes(stretch.local.data, there);
  else
    copy_bytes(there.data, stretch.local);
  return {};
}

Status copy_by_kernel(const Link& link, const Bulk& bulk, Direction direction,
                      const Stretch& stretch) {
  const std::uint64_t address = bulk.pieces[stretch.piece].place + stretch.at;
  Status moved = direction == Direction::pull
                     ? fabric::read_process(link.pid(), address, stretch.local)
                     : fabric::write_process(link.pid(), address, stretch.local);
  if (moved.ok() || moved.code() == Code::unavailable) return moved;
  // The memory of a process that is ending goes away before its connection does.
  if (moved.code() == Code::owner_gone || moved.code() == Code::invalid || !link.alive())
    return lost(bulk).within(moved.message());
  return {Code::unavailable, moved.message()};
}

}  // namespace

Expected<std::shared_ptr<const void>> hold_bulk(const std::shared_ptr<Link>& link, const Bulk& bulk,
                                                Deadline deadline) {
  const BulkGate& gate = bulk.gate;
  auto segment = segment_of(*link, bulk, gate.segment, 0, deadline);
  if (!segment) return segment.status();
  if (!segment.value()->covers(gate.offset, kHeaderSize) ||
      gate.offset % alignof(ObjectHeader) != 0)
    return outside(bulk);
  auto hold = std::make_shared<Hold>(link->tether());
  auto pin =
      hold->tether->pin(memory::block_word(gate.segment, gate.offset), gate.generation, deadline);
  if (!pin) return pin.status();
  hold->pin = pin.value();
  const auto& header =
      *reinterpret_cast<const ObjectHeader*>(segment.value()->data() + gate.offset);
  // Only now, with the pin visible to the owner, does a valid header promise anything.
  if (!header.is(gate.object_id, gate.generation))
    return Status(Code::evicted, bulk.describe() + " is not exposed any more: it was closed");
  return std::shared_ptr<const void>(std::move(hold));
}

Status move_on_node(const std::shared_ptr<Link>& link, const Bulk& bulk, Direction direction,
                    const std::vector<Stretch>& stretches, Deadline deadline) {
  auto hold = hold_bulk(link, bulk, deadline);
  if (!hold) return hold.status();
  for (const Stretch& stretch : cut(stretches, kCopiedAtOnce)) {
    const BulkPiece& piece = bulk.pieces[stretch.piece];
    Status copied;
    if (piece.in_segment()) {
      auto segment = segment_of(*link, bulk, piece.segment, mode_for(direction), deadline);
      copied = segment ? copy(*segment.value(), bulk, direction, stretch) : segment.status();
    } else {
      copied = copy_by_kernel(*link, bulk, direction, stretch);
    }
    if (!copied.ok()) return copied;
    if (deadline.passed()) return took_too_long(bulk);
    // What is mapped outlives its owner, which says nothing about the bytes.
    if (!link->alive()) return lost(bulk);
  }
  return {};
}

Status move_through_socket(const std::shared_ptr<Link>& link, const Bulk& bulk, Direction direction,
                           const std::vector<Stretch>& stretches, Deadline deadline) {
  for (const Stretch& stretch : cut(stretches, kChunk)) {
    WireWriter request = ask_about(bulk);
    request.put(stretch.offset);
    const bool pull = direction == Direction::pull;
    if (pull)
      request.put(static_cast<std::uint64_t>(stretch.local.size));
    else
      request.put_raw(stretch.local);
    const rpc::Target target = target_of(pull ? BulkKind::fetch : BulkKind::deliver);
    auto frame = link->wire()->ask_socket(target, request.bytes(), deadline);
    if (!frame) return frame.status();
    if (!pull) continue;
    if (frame->body.size() != stretch.local.size)
      return {Code::protocol, "fewer bytes came than were asked for"};
    copy_bytes(stretch.local.data, frame->body);
  }
  return {};
}

}  // namespace pshpc::objects
