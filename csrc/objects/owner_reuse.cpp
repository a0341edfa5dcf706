// Owner: when a block may be used again. docs/protocol.md argues why that is safe.

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/fence.h"
#include "objects/owner.h"

namespace pshpc::objects {

using memory::block_word;

Status Owner::evict(std::uint64_t object_id, const Tag& presented, bool force) {
  if (inherited()) return {Code::forked, "the object belongs to the parent process"};
  std::vector<Waiter> waiters;
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
  tell(waiters, {Code::evicted, "it was evicted before it was set"});
  return {};
}

void Owner::evict_locked(Entries::iterator entry) {
  const Entry& gone = entry->second;
  // First of all, so that whoever checks the header from here on learns of it.
  invalidate(gone.block, gone.generation);
  if (gone.expires != 0) expiring_.erase({gone.expires, entry->first});
  retire_locked(gone.block, gone.slot);
  claims_.forget(entry->first);
  entries_.erase(entry);
}

void Owner::invalidate(const memory::Block& block, std::uint64_t generation) {
  header(block).generation.store(generation + 1, std::memory_order_release);
  fence(std::memory_order_seq_cst);
}

void Owner::retire_locked(const memory::Block& block, Slot slot) {
  // Without peers nobody can be looking.
  if (one_sided_ == 0 && tables_ == 0 &&
      local_pins_.count(block_word(block.segment, block.offset)) == 0)
    release_locked(block, slot);
  else
    retired_.push_back({block, slot, now(), one_sided_ > 0});
}

void Owner::release_locked(const memory::Block& block, Slot slot) {
  // First: another thread may be given the block at once.
  if (table_) table_->leave(slot);
  arena_.release(block);
}

void Owner::collect_locked(Nanoseconds time) {
  if (retired_.empty()) return;
  std::vector<std::uint64_t> pinned;
  for (const auto& [connection, peer] : peers_)
    for (const auto& table : peer.tables) table->collect(pinned);
  for (const auto& table : left_tables_) table->collect(pinned);
  std::sort(pinned.begin(), pinned.end());
  const auto reusable = [&](Retired& retired) {
    if (retired.graced && time - retired.since < options_.grace) return false;
    retired.graced = false;
    const std::uint64_t word = block_word(retired.block.segment, retired.block.offset);
    return local_pins_.count(word) == 0 && !std::binary_search(pinned.begin(), pinned.end(), word);
  };
  const auto keep = std::partition(retired_.begin(), retired_.end(),
                                   [&](Retired& retired) { return !reusable(retired); });
  for (auto at = keep; at != retired_.end(); ++at) release_locked(at->block, at->slot);
  retired_.erase(keep, retired_.end());
}

// Peers.

void Owner::join(std::uint64_t connection, const Claims::Party& party, bool on_node) {
  std::lock_guard<std::mutex> lock(mutex_);
  peers_[connection].party = party;
  peers_[connection].on_node = on_node;
  if (party != Claims::Party{}) ++connections_[party];
}

void Owner::leave(std::uint64_t connection) {
  std::vector<Waiter> silenced;  // what they hold ends outside the lock
  std::vector<Waiter> disappointed;
  Peer gone;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto peer = peers_.find(connection);
    if (peer == peers_.end()) return;
    for (const std::uint64_t id : peer->second.reserved) {
      const auto found = entries_.find(id);
      if (found == entries_.end()) continue;
      evict_locked(found);
      auto waiters = take_waiters(id);
      std::move(waiters.begin(), waiters.end(), std::back_inserter(disappointed));
    }
    // After its blocks were retired: it may have been writing to them one-sidedly.
    gone = std::move(peer->second);
    peers_.erase(peer);
    if (gone.one_sided) --one_sided_;
    tables_ -= gone.tables.size();
    if (!leaving_) leave_party_locked(gone.party);
    if (gone.waits > 0) {
      for (auto at = waiters_.begin(); at != waiters_.end();) {
        auto& all = at->second;
        const auto mine = std::stable_partition(
            all.begin(), all.end(), [&](const Waiter& w) { return w.connection != connection; });
        std::move(mine, all.end(), std::back_inserter(silenced));
        all.erase(mine, all.end());
        at = all.empty() ? waiters_.erase(at) : std::next(at);
      }
    }
  }
  tell(disappointed, {Code::evicted, "its writer is gone"});
}

Status Owner::add_reader(std::uint64_t connection, std::shared_ptr<memory::PinTableView> table) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto peer = peers_.find(connection);
  if (peer == peers_.end()) return {Code::closed, "the reader has left"};
  peer->second.tables.push_back(std::move(table));
  ++tables_;
  return {};
}

Status Owner::grant_one_sided(std::uint64_t connection) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto peer = peers_.find(connection);
  if (peer == peers_.end()) return {Code::closed, "the reader has left"};
  if (!std::exchange(peer->second.one_sided, true)) ++one_sided_;
  return {};
}

// Housekeeping.

std::vector<Owner::Waiter> Owner::take_impatient_locked(Nanoseconds time) {
  std::vector<Waiter> impatient;
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    auto& all = at->second;
    const auto late = std::stable_partition(all.begin(), all.end(),
                                            [&](const Waiter& w) { return w.expires > time; });
    for (auto waiter = late; waiter != all.end(); ++waiter) {
      forget_wait_locked(*waiter);
      impatient.push_back(std::move(*waiter));
    }
    all.erase(late, all.end());
    at = all.empty() ? waiters_.erase(at) : std::next(at);
  }
  return impatient;
}

void Owner::tend() {
  std::vector<Waiter> impatient;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Nanoseconds time = now();
    evict_orphans_locked(claims_.expire(time));
    while (!expiring_.empty() && expiring_.begin()->first <= time)
      evict_locked(entries_.find(expiring_.begin()->second));
    impatient = take_impatient_locked(time);
    collect_locked(time);
  }
  tell(impatient, {Code::timed_out, "it was not set within the time allowed"});
}

void Owner::close() {
  std::unordered_map<std::uint64_t, std::vector<Waiter>> waiters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (std::exchange(closed_, true)) return;
    while (!entries_.empty()) evict_locked(entries_.begin());
    deferred_.clear();
    claims_.clear();
    waiters.swap(waiters_);
    for (auto& [connection, peer] : peers_) {
      peer.waits = 0;
      peer.reserved.clear();
    }
  }
  for (auto& [id, list] : waiters) tell(list, {Code::evicted, "its owner closed the store"});
}

OwnerStats Owner::stats() const {
  OwnerStats stats;
  stats.arena = arena_.stats();
  std::lock_guard<std::mutex> lock(mutex_);
  stats.objects = entries_.size();
  stats.retired_blocks = retired_.size();
  for (const Retired& retired : retired_) stats.retired_bytes += retired.block.size;
  stats.readers = tables_;
  stats.references = claims_.size();
  return stats;
}

}  // namespace pshpc::objects
