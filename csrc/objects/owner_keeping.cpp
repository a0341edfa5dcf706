// Owner: leaving objects to another process, and taking them over (docs/protocol.md, The keeper).

#include <algorithm>
#include <utility>

#include "objects/owner.h"

namespace pshpc::objects {

using memory::block_word;
using memory::BlockTable;

Status Owner::ended_error() {
  return {Code::owner_gone,
          "the process that owned this memory has ended; a keeper serves what it had stored, and "
          "takes nothing new: put into a store that is open"};
}

void Owner::begin_hand_over() {
  std::lock_guard<std::mutex> lock(mutex_);
  leaving_ = true;
}

bool Owner::leaving() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return leaving_;
}

void Owner::hand_over() {
  std::unordered_map<std::uint64_t, std::vector<Waiter>> waiters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (std::exchange(closed_, true)) return;
    evict_orphans_locked(claims_.end(Claims::Party{}));
    for (auto at = entries_.begin(); at != entries_.end();) {
      const auto entry = at++;
      const bool bound = entry->second.flags & (kRegistered | kGate);
      if (bound || entry->second.state == State::reserved) evict_locked(entry);
    }
    // From here on all of it is the other's, also the blocks that rest.
    table_.reset();
    entries_.clear();
    expiring_.clear();
    deferred_.clear();
    claims_.clear();
    waiters.swap(waiters_);
    for (auto& [connection, peer] : peers_) {
      peer.waits = 0;
      peer.reserved.clear();
    }
  }
  for (auto& [id, list] : waiters)
    tell(list, {Code::evicted, "its owner closed the store before it was set"});
}

Status Owner::adopt(Heritage heritage) {
  const Status mapped = arena_.adopt(std::move(heritage.segments));
  if (!mapped.ok()) return mapped;
  std::lock_guard<std::mutex> lock(mutex_);
  kept_ = true;
  left_tables_ = std::move(heritage.tables);
  tables_ += left_tables_.size();
  for (const BlockTable::Entry& left : heritage.blocks) {
    const Status adopted = adopt_block_locked(left);
    if (!adopted.ok()) return adopted;
  }
  adopt_claims_locked(heritage.claims);
  return {};
}

// Objects whose last references were the former owner's own end with it.
void Owner::adopt_claims_locked(const std::vector<ClaimTable::Entry>& left) {
  std::vector<std::uint64_t> counted;
  for (const ClaimTable::Entry& entry : left) {
    if (entries_.count(entry.object) == 0) continue;
    counted.push_back(entry.object);
    claims_.restore(entry);
  }
  counted.erase(std::remove_if(counted.begin(), counted.end(),
                               [this](std::uint64_t object) { return claims_.has(object); }),
                counted.end());
  evict_orphans_locked(counted);
}

std::vector<Claims::Party> Owner::absent_parties() const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto parties = claims_.parties_on_node();
  parties.erase(
      std::remove_if(parties.begin(), parties.end(),
                     [this](const auto& party) { return connections_.count(party) != 0; }),
      parties.end());
  return parties;
}

void Owner::end_party(const Claims::Party& party) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (connections_.count(party) == 0) evict_orphans_locked(claims_.end(party));
}

Status Owner::adopt_block_locked(const BlockTable::Entry& left) {
  constexpr int kSegmentShift = 48;
  const auto segment = static_cast<std::uint32_t>(left.block >> kSegmentShift);
  const std::uint64_t offset = left.block & ((std::uint64_t{1} << kSegmentShift) - 1);
  // Its owner was killed before it had told us of the segment: nobody has a key to what is there.
  if (arena_.segment(segment) == nullptr) return {};
  auto block = arena_.adopt_block(segment, offset, left.size);
  if (!block) return block.status();
  if (left.viewed) local_pins_[left.block].count = 1;  // for ever: nobody tells us of their end
  if (left.size < kHeaderSize || offset % alignof(ObjectHeader) != 0)
    return {Code::protocol, "a table of blocks is garbled"};

  ObjectHeader& at = header(block.value());
  const std::uint64_t generation = at.generation.load(std::memory_order_acquire);
  const bool live = generation != 0 && generation % 2 == 0 && at.magic == kObjectMagic &&
                    at.object_id != 0 && at.length <= left.size - kHeaderSize &&
                    (at.flags & (kRegistered | kGate)) == 0;
  const auto retire = [this](const memory::Block& which) {
    retired_.push_back({which, BlockTable::kNone, 0, false});
  };
  if (!live) {
    // A registered one's length is that of memory which went with its process.
    if (generation % 2 == 0) invalidate(block.value(), generation);
    retire(block.value());
    return {};
  }
  const auto [place, first] = entries_.try_emplace(at.object_id);
  Entry& entry = place->second;
  // The owner was killed in the middle of an update: of two values the newer one counts.
  if (!first && entry.generation > generation) {
    invalidate(block.value(), generation);
    retire(block.value());
    return {};
  }
  if (!first) {
    invalidate(entry.block, entry.generation);
    retire(entry.block);
    if (entry.expires != 0) expiring_.erase({entry.expires, at.object_id});
  }
  entry = Entry{};
  entry.state = State::live;
  entry.block = block.value();
  entry.length = at.length;
  entry.generation = generation;
  entry.flags = at.flags;
  if (left.expires != 0) set_expiry_locked(entry, at.object_id, left.expires);
  return {};
}

Shed Owner::shed(std::uint64_t most) {
  std::lock_guard<std::mutex> lock(mutex_);
  Shed shed;
  const std::uint64_t used = arena_.stats().used;
  if (used <= most) return shed;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> by_size;
  for (const auto& [id, entry] : entries_) by_size.emplace_back(entry.block.size, id);
  std::sort(by_size.rbegin(), by_size.rend());
  for (const auto& [size, id] : by_size) {
    if (used - shed.bytes <= most) break;
    evict_locked(entries_.find(id));
    ++shed.objects;
    shed.bytes += size;
  }
  return shed;
}

}  // namespace pshpc::objects
