#include "objects/owner.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/wire.h"

namespace pshpc::objects {
namespace {

using memory::Block;
using memory::block_word;

// From this size on a new block is worth a look whether a retired one can be had back: the same warm
// memory again beats memory that was never touched.
constexpr std::uint64_t kWorthCollecting = 64 * 1024;

Status closed_error() {
  return {Code::closed, "the store is closed; nothing can be stored in it or read from it any more"};
}

}  // namespace

Owner::Owner(OwnerAddress self, OwnerOptions options, memory::Arena::SegmentHook hook)
    : self_(std::move(self)),
      options_(std::move(options)),
      arena_(options_.arena, std::move(hook)) {}

void Owner::set_contact(const std::string& host, std::uint16_t port) {
  std::lock_guard<std::mutex> lock(mutex_);
  self_.host = host;
  self_.port = port;
}

Tag Owner::capability(std::uint64_t object_id) const {
  return siphash128(secret_, {&object_id, sizeof object_id});
}

// Storing.

Expected<Block> Owner::allocate(std::uint64_t size, bool may_wait) {
  if (size >= kWorthCollecting) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!retired_.empty()) collect_locked(now());
  }
  auto block = arena_.allocate(size);
  if (block || block.status().code() != Code::full || !may_wait) return block;
  // Blocks in their grace period come back by themselves: wait for them rather than fail.
  const Deadline deadline = Deadline::after(2 * options_.grace + 10 * kMillisecond);
  for (;;) {
    bool waiting = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      collect_locked(now());
      waiting = std::any_of(retired_.begin(), retired_.end(), [](auto& r) { return r.graced; });
    }
    block = arena_.allocate(size);
    if (block || !waiting || deadline.passed()) return block;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

Expected<Reservation> Owner::reserve(std::uint64_t length, std::uint64_t writer,
                                     std::uint64_t into) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return closed_error();
    if (into != 0 && deferred_.count(into) == 0)
      return Status(Code::invalid, "object " + std::to_string(into) +
                                       " was set before, or its key was not made by new_key()");
  }
  if (length > ~std::uint64_t{0} - kHeaderSize)
    return Status(Code::invalid, "an object cannot be that long");
  // A foreign writer is served by the progress thread, which must not wait.
  auto block = allocate(length + kHeaderSize, writer == 0);
  if (!block) return block.status();

  auto& fresh = header(block.value());
  fresh.generation.store(0, std::memory_order_release);

  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_ || (into != 0 && deferred_.erase(into) == 0)) {
    arena_.release(block.value());
    if (closed_) return closed_error();
    return Status(Code::invalid, "object " + std::to_string(into) + " was set by another thread");
  }
  Reservation reservation{into != 0 ? into : next_id_++, length, block.value()};
  Entry entry;
  entry.block = block.value();
  entry.length = length;
  entry.writer = writer;
  entries_.emplace(reservation.object_id, entry);
  return reservation;
}

Status Owner::fill(const Reservation& reservation, std::uint64_t offset, ConstSpan bytes) {
  if (offset > reservation.length || bytes.size > reservation.length - offset)
    return {Code::invalid, "a part of the object lies outside of it"};
  return arena_.fill(reservation.block, kHeaderSize + offset, bytes);
}

Expected<Key> Owner::put(std::uint64_t length, const std::vector<Part>& parts, const Policy& policy,
                         std::uint64_t into) {
  auto reservation = reserve(length, 0, into);
  if (!reservation) return reservation.status();
  for (const Part& part : parts) {
    const Status filled = fill(reservation.value(), part.offset, part.bytes);
    if (!filled.ok()) {
      abort(reservation->object_id);
      return filled;
    }
  }
  return publish(reservation->object_id, policy);
}

Expected<Key> Owner::publish(std::uint64_t object_id, const Policy& policy, bool pinned) {
  std::vector<Notify> waiters;
  Key key;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(object_id);
    if (found == entries_.end() || found->second.state != State::reserved)
      return Status(Code::invalid, "object " + std::to_string(object_id) + " is not being written");
    Entry& entry = found->second;
    entry.state = State::live;
    entry.flags |= policy.flags;
    entry.generation = next_generation_;
    next_generation_ += 2;
    if (policy.time_to_live > 0) {
      entry.expires = now() + policy.time_to_live;
      expiring_[entry.expires].push_back(object_id);
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
    if (pinned) ++local_pins_[block_word(entry.block.segment, entry.block.offset)];
    key = key_of(object_id, entry);
    waiters = take_waiters(object_id);
  }
  for (Notify& notify : waiters) notify({});
  return key;
}

void Owner::abort(std::uint64_t object_id) {
  std::vector<Notify> waiters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(object_id);
    if (found == entries_.end() || found->second.state != State::reserved) return;
    // A writer on another node may still be writing into it: the same quarantine as after an evict.
    evict_locked(found);
    waiters = take_waiters(object_id);
  }
  for (Notify& notify : waiters) notify({Code::evicted, "its writer gave up"});
}

Expected<Reservation> Owner::reserved(std::uint64_t object_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(object_id);
  if (found == entries_.end() || found->second.state != State::reserved)
    return Status(Code::invalid, "object " + std::to_string(object_id) + " is not being written");
  return Reservation{object_id, found->second.length, found->second.block};
}

void Owner::writer_lost(std::uint64_t writer) {
  std::vector<std::uint64_t> orphans;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [id, entry] : entries_)
      if (entry.state == State::reserved && entry.writer == writer) orphans.push_back(id);
  }
  for (const std::uint64_t id : orphans) abort(id);
}

Key Owner::new_key() {
  std::lock_guard<std::mutex> lock(mutex_);
  Key key;
  key.flags = Key::kDeferred;
  key.object_id = next_id_++;
  key.capability = capability(key.object_id);
  key.owner = self_;
  deferred_.insert(key.object_id);
  return key;
}

Expected<Key> Owner::publish_live(ConstSpan prefix, std::uint64_t live_offset, Span live,
                                  std::uint32_t region, std::uint64_t region_offset) {
  if (live_offset < prefix.size)
    return Status(Code::invalid, "the live bytes would lie over their own description");
  auto reservation = reserve(prefix.size);
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

bool Owner::sending(const Key& key) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return local_pins_.count(block_word(key.segment, key.offset)) != 0;
}

Status Owner::begin_writing(std::uint64_t object_id) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(object_id);
  if (found == entries_.end() || (found->second.flags & kRegistered) == 0)
    return {Code::invalid, "object " + std::to_string(object_id) + " is not registered memory"};
  auto& sequence = header(found->second.block).sequence;
  if (sequence.load(std::memory_order_relaxed) & 1)
    return {Code::invalid, "the memory is being written already; writing() does not nest"};
  sequence.fetch_add(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return {};
}

Status Owner::end_writing(std::uint64_t object_id) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(object_id);
  if (found == entries_.end()) return {};  // closed inside its writing() block
  auto& sequence = header(found->second.block).sequence;
  if ((sequence.load(std::memory_order_relaxed) & 1) == 0)
    return {Code::invalid, "the memory is not being written"};
  sequence.fetch_add(1, std::memory_order_release);
  return {};
}

// Reading.

Status Owner::why_absent(std::uint64_t object_id) const {
  const std::string what =
      "object " + std::to_string(object_id) + " of owner " + self_.short_name();
  if (deferred_.count(object_id) != 0 || entries_.count(object_id) != 0)
    return {Code::not_found, what + " has not been set yet"};
  if (closed_) return {Code::evicted, what + " is gone: its owner closed the store"};
  if (object_id != 0 && object_id < next_id_) return {Code::evicted, what + " was evicted"};
  return {Code::not_found, what + " never existed"};
}

Expected<const Owner::Entry*> Owner::find_live(std::uint64_t object_id,
                                               const Tag& presented) const {
  if (!equal_tags(presented, capability(object_id)))
    return Status(Code::denied, "the key of object " + std::to_string(object_id) +
                                    " was not issued by owner " + self_.short_name());
  const auto found = entries_.find(object_id);
  if (found == entries_.end() || found->second.state != State::live) return why_absent(object_id);
  if (found->second.expires != 0 && found->second.expires <= now())
    return Status(Code::evicted, "object " + std::to_string(object_id) + " of owner " +
                                     self_.short_name() + " outlived its time-to-live");
  return &found->second;
}

Key Owner::key_of(std::uint64_t object_id, const Entry& entry) const {
  Key key;
  key.flags = entry.flags & kRegistered ? Key::kLive : 0;
  key.segment = static_cast<std::uint16_t>(entry.block.segment);
  key.object_id = object_id;
  key.generation = entry.generation;
  key.offset = entry.block.offset;
  key.length = entry.length;
  key.capability = capability(object_id);
  key.owner = self_;
  return key;
}

Expected<Located> Owner::pin(std::uint64_t object_id, const Tag& presented) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  const Entry& entry = *found.value();
  ++local_pins_[block_word(entry.block.segment, entry.block.offset)];
  return Located{object_id, entry.generation, entry.length, entry.flags, entry.block};
}

void Owner::unpin(const Block& block) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = local_pins_.find(block_word(block.segment, block.offset));
  if (found != local_pins_.end() && --found->second == 0) local_pins_.erase(found);
}

Expected<Key> Owner::locate(std::uint64_t object_id, const Tag& presented) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  return key_of(object_id, *found.value());
}

Status Owner::check(std::uint64_t object_id, const Tag& presented) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return find_live(object_id, presented).status();
}

Status Owner::evict(std::uint64_t object_id, const Tag& presented, bool force) {
  std::vector<Notify> waiters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!equal_tags(presented, capability(object_id)))
      return {Code::denied, "the key of object " + std::to_string(object_id) +
                                " was not issued by owner " + self_.short_name()};
    const auto found = entries_.find(object_id);
    if (found != entries_.end() && found->second.state == State::live) {
      if ((found->second.flags & kPinned) && !force)
        return {Code::pinned, "object " + std::to_string(object_id) +
                                  " was stored with Pinned(); evict it with force=True"};
      evict_locked(found);
    }
    if (deferred_.erase(object_id) != 0) waiters = take_waiters(object_id);
  }
  for (Notify& notify : waiters) notify({Code::evicted, "it was evicted before it was set"});
  return {};
}

void Owner::when_published(std::uint64_t object_id, const Tag& presented, Notify notify) {
  Status status;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    status = find_live(object_id, presented).status();
    if (status.code() == Code::not_found &&
        (deferred_.count(object_id) != 0 || entries_.count(object_id) != 0)) {
      waiters_[object_id].push_back(std::move(notify));
      return;
    }
  }
  notify(status);
}

std::vector<Owner::Notify> Owner::take_waiters(std::uint64_t object_id) {
  const auto found = waiters_.find(object_id);
  if (found == waiters_.end()) return {};
  std::vector<Notify> waiters = std::move(found->second);
  waiters_.erase(found);
  return waiters;
}

// Reuse.

void Owner::evict_locked(std::map<std::uint64_t, Entry>::iterator entry) {
  const Entry& gone = entry->second;
  // First of all, so that whoever checks the header from here on learns of it.
  header(gone.block).generation.store(gone.generation + 1, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const bool graced = !one_sided_.empty();
  retired_.push_back({gone.block, now(), graced});
  entries_.erase(entry);
}

void Owner::collect_locked(Nanoseconds time) {
  if (retired_.empty()) return;
  std::vector<std::uint64_t> pinned;
  for (const auto& [connection, table] : readers_) table->collect(pinned);
  std::sort(pinned.begin(), pinned.end());
  const auto reusable = [&](Retired& retired) {
    if (retired.graced && time - retired.since < options_.grace) return false;
    retired.graced = false;
    const std::uint64_t word = block_word(retired.block.segment, retired.block.offset);
    return local_pins_.count(word) == 0 &&
           !std::binary_search(pinned.begin(), pinned.end(), word);
  };
  const auto keep = std::partition(retired_.begin(), retired_.end(),
                                   [&](Retired& retired) { return !reusable(retired); });
  for (auto at = keep; at != retired_.end(); ++at) arena_.release(at->block);
  retired_.erase(keep, retired_.end());
}

void Owner::add_reader(std::uint64_t connection, std::shared_ptr<memory::PinTableView> table) {
  std::lock_guard<std::mutex> lock(mutex_);
  readers_.emplace(connection, std::move(table));
}

void Owner::remove_reader(std::uint64_t connection) {
  std::lock_guard<std::mutex> lock(mutex_);
  readers_.erase(connection);
  one_sided_.erase(connection);
}

void Owner::grant_one_sided(std::uint64_t connection) {
  std::lock_guard<std::mutex> lock(mutex_);
  one_sided_.insert(connection);
}

void Owner::revoke_one_sided(std::uint64_t connection) {
  std::lock_guard<std::mutex> lock(mutex_);
  one_sided_.erase(connection);
}

void Owner::tend() {
  std::lock_guard<std::mutex> lock(mutex_);
  const Nanoseconds time = now();
  while (!expiring_.empty() && expiring_.begin()->first <= time) {
    for (const std::uint64_t id : expiring_.begin()->second) {
      const auto found = entries_.find(id);
      if (found != entries_.end() && found->second.state == State::live) evict_locked(found);
    }
    expiring_.erase(expiring_.begin());
  }
  collect_locked(time);
}

void Owner::close() {
  std::map<std::uint64_t, std::vector<Notify>> waiters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (std::exchange(closed_, true)) return;
    while (!entries_.empty()) evict_locked(entries_.begin());
    deferred_.clear();
    expiring_.clear();
    waiters.swap(waiters_);
  }
  for (auto& [id, list] : waiters)
    for (Notify& notify : list) notify({Code::evicted, "its owner closed the store"});
}

OwnerStats Owner::stats() const {
  OwnerStats stats;
  stats.arena = arena_.stats();
  std::lock_guard<std::mutex> lock(mutex_);
  stats.objects = entries_.size();
  stats.retired_blocks = retired_.size();
  for (const Retired& retired : retired_) stats.retired_bytes += retired.block.size;
  stats.readers = readers_.size();
  return stats;
}

}  // namespace pshpc::objects
