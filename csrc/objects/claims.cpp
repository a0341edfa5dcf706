#include "objects/claims.h"

#include <algorithm>
#include <limits>

namespace pshpc::objects {
namespace {

Status moved(std::uint64_t object) {
  return {Code::moved, "the reference to object " + std::to_string(object) +
                           " ended, or another process has taken it over"};
}

Status borrowed(std::uint64_t object, const char* how) {
  return {Code::borrowed, "object " + std::to_string(object) + " is " + how};
}

Nanoseconds after(Nanoseconds time, Nanoseconds lease) {
  return time + std::min(lease, std::numeric_limits<Nanoseconds>::max() - time);
}

}  // namespace

Status Claims::hold(std::uint64_t object, const ClaimRequest& request, const Party& party,
                    Nanoseconds time) {
  const auto found = objects_.find(object);
  if (request.fresh) {
    if (found != objects_.end()) return add(found->second, object, request, party, time);
    Object first;
    const Status added = add(first, object, request, party, time);
    if (added.ok()) objects_.emplace(object, std::move(first));
    return added;
  }
  if (found == objects_.end()) return moved(object);
  const auto known = found->second.claims.find(request.claim);
  if (known == found->second.claims.end() || known->second.mode != request.mode)
    return moved(object);
  Claim& claim = known->second;
  const bool under_way = claim.expires != 0;
  // A claim that somebody holds is taken from him by nobody: a pickle that is loaded twice.
  if (!under_way && (request.lease == 0 || claim.party != party)) return moved(object);
  detach(object, request.claim, claim);
  claim.on_node = request.on_node;
  attach(object, request.claim, claim, party,
         request.lease > 0 ? after(time, request.lease) : Nanoseconds{0});
  return {};
}

Status Claims::add(Object& object, std::uint64_t id, const ClaimRequest& request,
                   const Party& party, Nanoseconds time) {
  const std::size_t exclusive = object.count(ClaimMode::exclusive);
  if (request.mode == ClaimMode::own && object.count(ClaimMode::own) > 0)
    return borrowed(id, "owned by another reference already");
  if (request.mode != ClaimMode::own && exclusive > 0)
    return borrowed(id, "borrowed as mutable already");
  if (request.mode == ClaimMode::exclusive && object.count(ClaimMode::shared) > 0)
    return borrowed(id, "borrowed as immutable already");
  const auto held = parties_.find(party);
  if (held != parties_.end() && held->second.size >= kMaxClaims)
    return {Code::full, "this process holds as many references as one owner counts"};
  const auto [place, added] = object.claims.try_emplace(request.claim);
  if (!added) return {Code::invalid, "the number of a new reference is taken"};
  place->second.mode = request.mode;
  place->second.on_node = request.on_node;
  attach(id, request.claim, place->second, party,
         request.lease > 0 ? after(time, request.lease) : Nanoseconds{0});
  ++object.modes[static_cast<std::size_t>(request.mode)];
  ++size_;
  return {};
}

void Claims::attach(std::uint64_t object, std::uint64_t number, Claim& claim, const Party& party,
                    Nanoseconds expires) {
  claim.expires = expires;
  claim.party = expires != 0 ? Party{} : party;
  if (table_) {
    const ClaimTable::Slot former = claim.slot;
    claim.slot = table_->enter({object, number, expires, static_cast<std::uint8_t>(claim.mode),
                                claim.on_node, claim.party});
    table_->leave(former);
  }
  if (expires != 0) {
    leases_.emplace(expires, object, number);
    return;
  }
  Held& held = parties_[party];
  ++held.objects[object];
  ++held.size;
  held.on_node = claim.on_node;
}

void Claims::leave_table(const Claim& claim) {
  if (table_) table_->leave(claim.slot);
}

bool Claims::restore(const ClaimTable::Entry& entry) {
  if (entry.mode == 0 || entry.mode > static_cast<std::uint8_t>(kLastClaimMode)) return false;
  if (entry.expires == 0 && entry.party == Party{}) return false;
  Object& object = objects_[entry.object];
  const auto [place, added] = object.claims.try_emplace(entry.claim);
  Claim& claim = place->second;
  if (added) {
    claim.mode = static_cast<ClaimMode>(entry.mode);
    ++object.count_of(claim.mode);
    ++size_;
  } else if (entry.expires == 0 && claim.expires != 0) {
    // It was changing hands: who holds it counts, as he may not know of the other step.
    detach(entry.object, entry.claim, claim);
  } else {
    return true;
  }
  claim.on_node = entry.on_node;
  attach(entry.object, entry.claim, claim, entry.party, entry.expires);
  return true;
}

std::vector<Claims::Party> Claims::parties_on_node() const {
  std::vector<Party> parties;
  for (const auto& [party, held] : parties_)
    if (held.on_node && party != Party{}) parties.push_back(party);
  return parties;
}

void Claims::detach(std::uint64_t object, std::uint64_t number, const Claim& claim) {
  if (claim.expires != 0) {
    leases_.erase({claim.expires, object, number});
    return;
  }
  const auto held = parties_.find(claim.party);
  if (held == parties_.end()) return;
  const auto count = held->second.objects.find(object);
  if (count != held->second.objects.end() && --count->second == 0)
    held->second.objects.erase(count);
  if (--held->second.size == 0) parties_.erase(held);
}

bool Claims::release(std::uint64_t object, std::uint64_t claim) {
  const auto found = objects_.find(object);
  if (found == objects_.end()) return false;
  Object& at = found->second;
  const auto known = at.claims.find(claim);
  if (known == at.claims.end()) return false;
  detach(object, claim, known->second);
  leave_table(known->second);
  --at.modes[static_cast<std::size_t>(known->second.mode)];
  at.claims.erase(known);
  --size_;
  if (!at.claims.empty()) return false;
  objects_.erase(found);
  return true;
}

Status Claims::may_write(std::uint64_t object, std::uint64_t number) const {
  const auto found = objects_.find(object);
  if (found == objects_.end()) return moved(object);
  const Object& at = found->second;
  const auto known = at.claims.find(number);
  if (known == at.claims.end()) return moved(object);
  switch (known->second.mode) {
    case ClaimMode::exclusive: return {};
    case ClaimMode::own:
      if (at.count(ClaimMode::shared) + at.count(ClaimMode::exclusive) == 0) return {};
      return borrowed(object, "borrowed, so its owner may not change it");
    default: return {Code::borrowed, "an immutable reference does not change its object"};
  }
}

void Claims::forget(std::uint64_t object) {
  const auto found = objects_.find(object);
  if (found == objects_.end()) return;
  for (const auto& [number, claim] : found->second.claims) {
    detach(object, number, claim);
    leave_table(claim);
  }
  size_ -= found->second.claims.size();
  objects_.erase(found);
}

std::vector<std::uint64_t> Claims::end(const Party& party) {
  std::vector<std::uint64_t> orphans;
  const auto held = parties_.find(party);
  if (held == parties_.end()) return orphans;
  std::vector<std::uint64_t> touched;
  for (const auto& [object, count] : held->second.objects) touched.push_back(object);
  for (const std::uint64_t object : touched) {
    std::vector<std::uint64_t> theirs;
    for (const auto& [number, claim] : objects_.at(object).claims)
      if (claim.expires == 0 && claim.party == party) theirs.push_back(number);
    for (const std::uint64_t number : theirs)
      if (release(object, number)) orphans.push_back(object);
  }
  return orphans;
}

std::vector<std::uint64_t> Claims::expire(Nanoseconds time) {
  std::vector<std::uint64_t> orphans;
  while (!leases_.empty() && std::get<0>(*leases_.begin()) <= time) {
    const auto [when, object, number] = *leases_.begin();
    if (release(object, number)) orphans.push_back(object);
  }
  return orphans;
}

void Claims::clear() {
  objects_.clear();
  parties_.clear();
  leases_.clear();
  size_ = 0;
}

}  // namespace pshpc::objects
