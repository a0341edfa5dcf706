// Owner: objects that live for as long as somebody refers to them, or for a time that is renewed.

#include <algorithm>
#include <limits>

#include "objects/owner.h"

namespace pshpc::objects {

Status Owner::hold(std::uint64_t object_id, const Tag& presented, const ClaimRequest& request,
                   std::uint64_t connection) {
  if (inherited()) return {Code::forked, "the object belongs to the parent process"};
  std::lock_guard<std::mutex> lock(mutex_);
  // What is over by now counts no more, whether or not the timer has come by.
  evict_orphans_locked(claims_.expire(now()));
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  Claims::Party party{};
  ClaimRequest asked = request;
  if (connection != 0) {
    const auto peer = peers_.find(connection);
    if (peer == peers_.end()) return {Code::closed, "the process has left"};
    party = peer->second.party;
    asked.on_node = peer->second.on_node;
  }
  return claims_.hold(object_id, asked, party, now());
}

Status Owner::release(std::uint64_t object_id, const Tag& presented, std::uint64_t claim) {
  if (inherited()) return {Code::forked, "the reference belongs to the parent process"};
  std::lock_guard<std::mutex> lock(mutex_);
  if (!equal_tags(presented, capability(object_id)))
    return {Code::denied, "the key of object " + std::to_string(object_id) +
                              " was not issued by owner " + self_.short_name()};
  if (claims_.release(object_id, claim)) evict_orphans_locked({object_id});
  return {};
}

void Owner::leave_party_locked(const Claims::Party& party) {
  const auto count = connections_.find(party);
  if (count == connections_.end() || --count->second > 0) return;
  connections_.erase(count);
  evict_orphans_locked(claims_.end(party));
}

void Owner::evict_orphans_locked(const std::vector<std::uint64_t>& orphans) {
  for (const std::uint64_t object_id : orphans) {
    const auto found = entries_.find(object_id);
    if (found != entries_.end() && found->second.state == State::live) evict_locked(found);
  }
}

Status Owner::extend(std::uint64_t object_id, const Tag& presented, Nanoseconds time_to_live) {
  if (inherited()) return {Code::forked, "the object belongs to the parent process"};
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = find_live(object_id, presented);
  if (!found) return found.status();
  Entry& entry = entries_.at(object_id);
  if (entry.expires != 0) expiring_.erase({entry.expires, object_id});
  entry.expires = 0;
  if (time_to_live <= 0) {
    if (table_) table_->set_expiry(entry.slot, 0);
    return {};
  }
  const Nanoseconds time = now();
  const Nanoseconds longest = std::numeric_limits<Nanoseconds>::max() - time;
  set_expiry_locked(entry, object_id, time + std::min(time_to_live, longest));
  return {};
}

void Owner::set_expiry_locked(Entry& entry, std::uint64_t object_id, Nanoseconds expires) {
  entry.expires = expires;
  expiring_.emplace(expires, object_id);
  if (table_) table_->set_expiry(entry.slot, expires);
}

}  // namespace pshpc::objects
