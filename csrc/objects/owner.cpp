// Owner: storing.

#include "objects/owner.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>

#include "base/fence.h"
#include "base/fork_guard.h"

namespace pshpc::objects {
namespace {

using memory::Block;
using memory::block_word;

// From this size on a new block is worth a look whether a retired one can be had back: the same
// warm memory again beats memory that was never touched.
constexpr std::uint64_t kWorthCollecting = 64 * 1024;

Status closed_error() {
  return {Code::closed,
          "the store is closed; nothing can be stored in it or read from it any more"};
}

Status not_being_written(std::uint64_t object_id) {
  return {Code::invalid, "object " + std::to_string(object_id) + " is not being written"};
}

Status too_long() { return {Code::invalid, "an object cannot be that long"}; }

OwnerOptions sane(OwnerOptions options) {
  options.grace = std::max(options.grace, kShortestGrace);
  return options;
}

}  // namespace

Owner::Owner(OwnerAddress self, OwnerOptions options, memory::Arena::SegmentHook hook)
    : self_(std::move(self)),
      options_(sane(std::move(options))),
      birth_(fork_generation()),
      secret_(options_.secret ? *options_.secret : random_tag()),
      arena_(options_.arena, std::move(hook)),
      table_(options_.table) {
  claims_.use(options_.claim_table);
}

bool Owner::inherited() const { return birth_ != fork_generation(); }

void Owner::set_contact(const std::string& host, std::uint16_t port) {
  std::lock_guard<std::mutex> lock(mutex_);
  self_.host = host;
  self_.port = port;
}

Status Owner::set_outside(Bytes outside) {
  if (outside.size() > Key::kMaxOutside)
    return {Code::invalid, "the endpoints that keys carry take " + std::to_string(outside.size()) +
                               " bytes; at most " + std::to_string(Key::kMaxOutside) +
                               " are allowed: name fewer"};
  std::lock_guard<std::mutex> lock(mutex_);
  outside_ = std::move(outside);
  return {};
}

Tag Owner::capability(std::uint64_t object_id) const {
  return siphash128(secret_, {&object_id, sizeof object_id});
}

Expected<Block> Owner::allocate(std::uint64_t size, Patience patience) {
  if (size >= kWorthCollecting) {
    std::lock_guard<std::mutex> lock(mutex_);
    collect_locked(now());
  }
  auto block = arena_.allocate(size);
  if (block || block.status().code() != Code::full) return block;
  // Blocks in their grace period come back by themselves: wait for them rather than fail.
  const bool wait = patience == Patience::short_of_memory;
  const Deadline deadline =
      Deadline::after(wait ? 2 * options_.grace + 10 * kMillisecond : Nanoseconds{0});
  for (;;) {
    bool resting = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      collect_locked(now());
      resting = std::any_of(retired_.begin(), retired_.end(), [](auto& r) { return r.graced; });
    }
    block = arena_.allocate(size);
    if (block || block.status().code() != Code::full || !resting || deadline.passed()) return block;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

Status Owner::may_reserve_locked(std::uint64_t writer, const Into& into) const {
  if (kept_) return ended_error();
  if (closed_) return closed_error();
  if (writer != 0 && peers_.count(writer) == 0) return {Code::closed, "the writer has left"};
  return may_go_into_locked(into);
}

Status Owner::may_go_into_locked(const Into& into) const {
  if (into.object_id == 0) return {};
  if (kept_) return ended_error();
  if (into.claim == 0) {
    if (deferred_.count(into.object_id) != 0) return {};
    return {Code::invalid, "object " + std::to_string(into.object_id) +
                               " was set or evicted before, or its key was not made by new_key()"};
  }
  const auto found = entries_.find(into.object_id);
  if (found == entries_.end() || found->second.state != State::live)
    return why_absent(into.object_id);
  return claims_.may_write(into.object_id, into.claim);
}

Status Owner::may_store_into(const Into& into, const Tag& presented) const {
  if (!equal_tags(presented, capability(into.object_id)))
    return {Code::denied, "the key of object " + std::to_string(into.object_id) +
                              " was not issued by owner " + self_.short_name()};
  std::lock_guard<std::mutex> lock(mutex_);
  return may_go_into_locked(into);
}

// What was reserved takes the place of what it is meant for. The block of an object that changes
// stays valid until the new one is, so that there is one whenever this process is killed.
Owner::Entries::iterator Owner::enter_locked(Entries::iterator reserved,
                                             std::optional<Replaced>* replaced) {
  const Entry made = reserved->second;
  entries_.erase(reserved);
  if (made.into.claim == 0) {
    deferred_.erase(made.into.object_id);
    return entries_.emplace(made.into.object_id, made).first;
  }
  const auto target = entries_.find(made.into.object_id);
  Entry& entry = target->second;
  *replaced = Replaced{entry.block, entry.slot, entry.generation};
  entry.block = made.block;
  entry.slot = made.slot;
  entry.length = made.length;
  return target;
}

Expected<Reservation> Owner::reserve_block(const Block& block, std::uint64_t length,
                                           std::uint64_t writer, const Into& into) {
  header(block).generation.store(0, std::memory_order_release);
  std::lock_guard<std::mutex> lock(mutex_);
  const Status allowed = may_reserve_locked(writer, into);
  if (!allowed.ok()) {
    arena_.release(block);
    return allowed;
  }
  Reservation reservation{next_id_++, length, block};
  Entry entry;
  entry.block = block;
  if (table_) entry.slot = table_->enter(block_word(block.segment, block.offset), block.size);
  entry.length = length;
  entry.writer = writer;
  entry.into = into;
  entries_.emplace(reservation.object_id, entry);
  if (writer != 0) peers_[writer].reserved.insert(reservation.object_id);
  return reservation;
}

Expected<Reservation> Owner::reserve(std::uint64_t length, std::uint64_t writer, const Into& into) {
  if (length > memory::Segment::kMaxSize - kHeaderSize) return too_long();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Status allowed = may_reserve_locked(writer, into);
    if (!allowed.ok()) return allowed;
  }
  // A foreign writer is served by the progress thread, which must not wait.
  auto block =
      allocate(length + kHeaderSize, writer == 0 ? Patience::short_of_memory : Patience::none);
  if (!block) return block.status();
  return reserve_block(block.value(), length, writer, into);
}

Status Owner::fill(const Reservation& reservation, std::uint64_t offset, ConstSpan bytes) {
  if (offset > reservation.length || bytes.size > reservation.length - offset)
    return {Code::invalid, "a part of the object lies outside of it"};
  return arena_.fill(reservation.block, kHeaderSize + offset, bytes);
}

Expected<Key> Owner::fill_and_publish(const Reservation& reservation,
                                      const std::vector<Part>& parts, const Policy& policy) {
  for (const Part& part : parts) {
    const Status filled = fill(reservation, part.offset, part.bytes);
    if (!filled.ok()) {
      abort(reservation.object_id);
      return filled;
    }
  }
  return publish(reservation.object_id, policy);
}

Expected<Key> Owner::put(std::uint64_t length, const std::vector<Part>& parts, const Policy& policy,
                         const Into& into) {
  auto reservation = reserve(length, 0, into);
  if (!reservation) return reservation.status();
  return fill_and_publish(reservation.value(), parts, policy);
}

Expected<Key> Owner::put_now(std::uint64_t length, const std::vector<Part>& parts,
                             const Policy& policy, const Into& into) {
  if (length > memory::Segment::kMaxSize - kHeaderSize) return too_long();
  const auto block = arena_.try_allocate(length + kHeaderSize);
  if (!block) return Status(Code::unavailable, "memory has to be made room in first");
  auto reservation = reserve_block(*block, length, 0, into);
  if (!reservation) return reservation.status();
  return fill_and_publish(reservation.value(), parts, policy);
}

Owner::Entries::iterator Owner::find_reserved(std::uint64_t object_id, std::uint64_t writer) {
  const auto found = entries_.find(object_id);
  const bool may = found != entries_.end() && found->second.state == State::reserved &&
                   found->second.writer == writer;
  return may ? found : entries_.end();
}

Expected<Key> Owner::publish(std::uint64_t object_id, const Policy& policy, bool pinned,
                             std::uint64_t writer) {
  if (inherited()) return Status(Code::forked, "the object belongs to the parent process");
  std::vector<Waiter> waiters;
  std::optional<Replaced> former;
  Key key;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return closed_error();
    auto found = find_reserved(object_id, writer);
    if (found == entries_.end()) return not_being_written(object_id);
    if (writer != 0) drop_reservation_locked(found->second, object_id);
    if (found->second.into.object_id != 0) {
      // Somebody else may have been quicker.
      const Status allowed = may_go_into_locked(found->second.into);
      if (!allowed.ok()) {
        evict_locked(found);
        return allowed;
      }
      found = enter_locked(found, &former);
      object_id = found->first;
    }
    Entry& entry = found->second;
    const bool replaced = entry.state == State::live;
    entry.state = State::live;
    if (!replaced) entry.flags |= policy.flags;
    entry.generation = next_generation_;
    next_generation_ += 2;
    if (policy.time_to_live > 0 && !replaced) {
      const Nanoseconds time = now();
      const Nanoseconds longest = std::numeric_limits<Nanoseconds>::max() - time;
      set_expiry_locked(entry, object_id, time + std::min(policy.time_to_live, longest));
    } else if (table_ && entry.expires != 0) {
      table_->set_expiry(entry.slot, entry.expires);
    }
    ObjectHeader& at = header(entry.block);
    at.magic = kObjectMagic;
    at.object_id = object_id;
    at.length = entry.length;
    at.flags = entry.flags;
    if ((entry.flags & kRegistered) == 0) {
      at.sequence.store(0, std::memory_order_relaxed);
      at.live_address = at.live_offset = at.region_offset = 0;
      at.live_region = 0;
    }
    at.generation.store(entry.generation, std::memory_order_release);
    if (former) {
      // As in evict_locked(): old keys lead there to ask where the object is now.
      invalidate(former->block, former->generation);
      retire_locked(former->block, former->slot);
    }
    if (pinned) pin_here_locked(entry.block, entry.slot);
    key = key_of(object_id, entry);
    waiters = take_waiters(object_id);
  }
  tell(waiters, {});
  return key;
}

void Owner::abort(std::uint64_t object_id, std::uint64_t writer) {
  if (inherited()) return;
  std::vector<Waiter> waiters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = find_reserved(object_id, writer);
    if (found == entries_.end()) return;
    if (writer != 0) drop_reservation_locked(found->second, object_id);
    // A writer on another node may still be writing into it: the same quarantine as after an evict.
    evict_locked(found);
    waiters = take_waiters(object_id);
  }
  tell(waiters, {Code::evicted, "its writer gave up"});
}

void Owner::drop_reservation_locked(const Entry& entry, std::uint64_t object_id) {
  const auto peer = peers_.find(entry.writer);
  if (peer != peers_.end()) peer->second.reserved.erase(object_id);
}

Expected<Reservation> Owner::reserved(std::uint64_t object_id, std::uint64_t writer) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = const_cast<Owner*>(this)->find_reserved(object_id, writer);
  if (found == entries_.end()) return not_being_written(object_id);
  return Reservation{object_id, found->second.length, found->second.block};
}

Expected<Reservation> Owner::pin_reserved(std::uint64_t object_id, std::uint64_t writer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = find_reserved(object_id, writer);
  if (found == entries_.end()) return not_being_written(object_id);
  const Block& block = found->second.block;
  pin_here_locked(block, found->second.slot);
  return Reservation{object_id, found->second.length, block};
}

Key Owner::new_key() {
  std::lock_guard<std::mutex> lock(mutex_);
  Key key;
  key.flags = Key::kDeferred;
  key.object_id = next_id_++;
  key.capability = capability(key.object_id);
  key.owner = self_;
  key.outside = outside_;
  deferred_.insert(key.object_id);
  return key;
}

// Live memory.

Expected<Key> Owner::publish_live(ConstSpan prefix, std::uint64_t live_offset, Span live,
                                  std::uint32_t region, std::uint64_t region_offset) {
  if (live_offset < prefix.size || live_offset > std::numeric_limits<std::uint32_t>::max())
    return Status(Code::invalid, "the live bytes would lie over their own description");
  // Readers find the bytes before `live_offset` in the block.
  auto reservation = reserve(live_offset);
  if (!reservation) return reservation.status();
  Status filled = fill(reservation.value(), 0, prefix);
  if (!filled.ok()) {
    abort(reservation->object_id);
    return filled;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(reservation->object_id);
    if (found == entries_.end()) return closed_error();
    found->second.length = live_offset + live.size;
    found->second.flags |= kRegistered;
    ObjectHeader& at = header(found->second.block);
    at.sequence.store(0, std::memory_order_relaxed);
    at.live_address = reinterpret_cast<std::uint64_t>(live.data);
    at.live_offset = static_cast<std::uint32_t>(live_offset);
    at.live_region = region;
    at.region_offset = region_offset;
  }
  return publish(reservation->object_id, {});
}

Status Owner::begin_writing(std::uint64_t object_id) {
  if (inherited()) return {Code::forked, "the memory belongs to the parent process"};
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(object_id);
  if (found == entries_.end() || (found->second.flags & kRegistered) == 0)
    return {Code::invalid, "object " + std::to_string(object_id) + " is not registered memory"};
  auto& sequence = header(found->second.block).sequence;
  if (sequence.load(std::memory_order_relaxed) & 1)
    return {Code::invalid, "the memory is being written already; writing() does not nest"};
  sequence.fetch_add(1, std::memory_order_relaxed);
  fence(std::memory_order_seq_cst);
  return {};
}

Status Owner::end_writing(std::uint64_t object_id) {
  if (inherited()) return {Code::forked, "the memory belongs to the parent process"};
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(object_id);
  if (found == entries_.end()) return {};  // closed inside its writing() block
  auto& sequence = header(found->second.block).sequence;
  if ((sequence.load(std::memory_order_relaxed) & 1) == 0)
    return {Code::invalid, "the memory is not being written"};
  sequence.fetch_add(1, std::memory_order_release);
  return {};
}

}  // namespace pshpc::objects
