// Owner: finding objects, and keeping them while they are looked at.

#include <algorithm>
#include <limits>
#include <utility>

#include "objects/owner.h"

namespace pshpc::objects {

using memory::Block;
using memory::block_word;

Status Owner::why_absent(std::uint64_t object_id) const {
  const std::string what =
      "object " + std::to_string(object_id) + " of owner " + self_.short_name();
  if (deferred_.count(object_id) != 0 || entries_.count(object_id) != 0)
    return {Code::not_found, what + " has not been set yet"};
  if (kept_)
    return {Code::evicted, what + " was evicted, or had not been set when its owner ended"};
  if (closed_) return {Code::evicted, what + " is gone: its owner closed the store"};
  if (object_id != 0 && object_id < next_id_) return {Code::evicted, what + " was evicted"};
  return {Code::not_found, what + " never existed"};
}

Expected<const Owner::Entry*> Owner::find_live(std::uint64_t object_id, const Tag& presented) {
  if (!equal_tags(presented, capability(object_id)))
    return Status(Code::denied, "the key of object " + std::to_string(object_id) +
                                    " was not issued by owner " + self_.short_name());
  const auto found = entries_.find(object_id);
  if (found == entries_.end() || found->second.state != State::live) return why_absent(object_id);
  const Entry& entry = found->second;
  if (entry.expires == 0 || entry.expires > now()) return &entry;
  evict_locked(found);
  return Status(Code::evicted, "object " + std::to_string(object_id) + " of owner " +
                                   self_.short_name() + " outlived its time-to-live");
}

Key Owner::key_of(std::uint64_t object_id, const Entry& entry) const {
  Key key;
  key.flags = static_cast<std::uint8_t>((entry.flags & kRegistered ? Key::kLive : 0) |
                                        (entry.flags & kRaised ? Key::kRaised : 0));
  key.segment = static_cast<std::uint16_t>(entry.block.segment);
  key.object_id = object_id;
  key.generation = entry.generation;
  key.offset = entry.block.offset;
  key.length = entry.length;
  key.capability = capability(object_id);
  key.owner = self_;
  key.outside = outside_;
  return key;
}

Expected<Located> Owner::pin(std::uint64_t object_id, const Tag& presented) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  const Entry& entry = *found.value();
  pin_here_locked(entry.block, entry.slot);
  return Located{object_id, entry.generation, entry.length, entry.flags, entry.block};
}

void Owner::pin_here_locked(const Block& block, Slot slot) {
  LocalPins& pins = local_pins_[block_word(block.segment, block.offset)];
  if (++pins.count > 1) return;
  pins.slot = slot;
  if (table_) table_->set_viewed(slot, true);
}

void Owner::unpin(const Block& block) {
  if (inherited()) return;  // the pins are the parent's
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = local_pins_.find(block_word(block.segment, block.offset));
  if (found == local_pins_.end() || --found->second.count > 0) return;
  if (table_) table_->set_viewed(found->second.slot, false);
  local_pins_.erase(found);
}

bool Owner::sending(const Key& key) const {
  if (inherited()) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  return local_pins_.count(block_word(key.segment, key.offset)) != 0;
}

bool Owner::watched(const Block& block) const {
  if (inherited()) return false;
  std::vector<std::shared_ptr<memory::PinTableView>> tables;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [connection, peer] : peers_)
      tables.insert(tables.end(), peer.tables.begin(), peer.tables.end());
    tables.insert(tables.end(), left_tables_.begin(), left_tables_.end());
  }
  const std::uint64_t word = block_word(block.segment, block.offset);
  return std::any_of(tables.begin(), tables.end(),
                     [word](const auto& table) { return table->holds(word); });
}

Expected<Key> Owner::locate(std::uint64_t object_id, const Tag& presented) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  return key_of(object_id, *found.value());
}

Status Owner::check(std::uint64_t object_id, const Tag& presented) {
  std::lock_guard<std::mutex> lock(mutex_);
  return find_live(object_id, presented).status();
}

Status Owner::validate(std::uint64_t object_id, const Tag& presented, std::uint64_t generation) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  if (found.value()->generation == generation) return {};
  return {Code::changed, "object " + std::to_string(object_id) + " was updated"};
}

// Waiting for deferred objects.

void Owner::when_published(std::uint64_t object_id, const Tag& presented, const Waiting& waiting,
                           Notify notify) {
  Status status;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    status = find_live(object_id, presented).status();
    const bool expected = deferred_.count(object_id) != 0 || entries_.count(object_id) != 0;
    const auto peer = peers_.find(waiting.connection);
    if (status.code() == Code::not_found && expected) {
      if (waiting.connection != 0 && peer == peers_.end()) return;  // it has left
      if (peer == peers_.end() || peer->second.waits < kMaxWaits) {
        const Nanoseconds time = now();
        const Nanoseconds longest = std::numeric_limits<Nanoseconds>::max() - time;
        if (peer != peers_.end()) ++peer->second.waits;
        waiters_[object_id].push_back(
            {std::move(notify), waiting.connection, time + std::min(waiting.patience, longest)});
        return;
      }
      status = {Code::full, "this process waits for too many objects at once"};
    }
  }
  notify(std::move(status));
}

std::vector<Owner::Waiter> Owner::take_waiters(std::uint64_t object_id) {
  const auto found = waiters_.find(object_id);
  if (found == waiters_.end()) return {};
  std::vector<Waiter> waiters = std::move(found->second);
  waiters_.erase(found);
  for (const Waiter& waiter : waiters) forget_wait_locked(waiter);
  return waiters;
}

void Owner::forget_wait_locked(const Waiter& waiter) {
  const auto peer = peers_.find(waiter.connection);
  if (peer != peers_.end()) --peer->second.waits;
}

void Owner::tell(std::vector<Waiter>& waiters, const Status& status) {
  for (Waiter& waiter : waiters) waiter.notify(status);
}

}  // namespace pshpc::objects
