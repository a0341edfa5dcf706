#include "fabric/mpi/attachments.h"

#include <string>

#include "base/log.h"

namespace pshpc::fabric::mpi {

Status Attachments::add(const memory::Region& region) {
  if (regions_.count(region.id) != 0) return {};
  const Span span = region.span;
  auto found = around(span);
  if (found == attached_.end()) {
    const Status attached = attach(span);
    if (!attached.ok()) return attached;
    found = attached_.emplace(span.data, Attached{span, 0}).first;
    count_ = attached_.size();
  }
  ++found->second.users;
  regions_[region.id] = found->second.span.data;
  return {};
}

// The attachment that a span lies in.
Attachments::ByAddress::iterator Attachments::around(ConstSpan span) {
  auto found = attached_.upper_bound(span.data);
  if (found == attached_.begin()) return attached_.end();
  --found;
  const Span& other = found->second.span;
  const bool inside = span.data + span.size <= other.data + other.size;
  return inside ? found : attached_.end();
}

bool Attachments::hold(ConstSpan span) {
  const auto found = around(span);
  if (found == attached_.end()) return false;
  ++found->second.users;
  return true;
}

void Attachments::release(ConstSpan span) {
  const auto found = around(span);
  if (found != attached_.end()) unuse(found);
}

Status Attachments::attach(Span span) {
  const std::size_t limit = port_.api->settings().attach_limit;
  // Open MPI 5.0 keeps a lock when it refuses one too many, and the next one waits for ever.
  if (limit > 0 && attached_.size() >= limit)
    return {Code::unavailable, "this MPI attaches " + std::to_string(limit) +
                                   " pieces of memory at most; raise the limit with mpirun --mca "
                                   "osc_rdma_max_attach N, or register fewer and larger ones"};
  const int code = port_.api->win_attach(port_.memory, span.data, static_cast<Aint>(span.size));
  if (code == 0) return {};
  return {Code::unavailable, port_.api->check(code, "attaching memory").message() +
                                 " (attachment " + std::to_string(attached_.size() + 1) + ")"};
}

void Attachments::remove(std::uint32_t region_id) {
  const auto region = regions_.find(region_id);
  if (region == regions_.end()) return;
  const auto attached = attached_.find(region->second);
  regions_.erase(region);
  unuse(attached);
}

void Attachments::unuse(ByAddress::iterator attached) {
  if (--attached->second.users > 0) return;
  detach(attached->second.span.data);
  attached_.erase(attached);
  count_ = attached_.size();
}

void Attachments::detach(std::uint8_t* data) {
  const Status status =
      port_.api->check(port_.api->win_detach(port_.memory, data), "detaching memory");
  if (!status.ok()) log_warn_once(status.message());
}

void Attachments::clear() {
  for (const auto& [data, attached] : attached_) detach(attached.span.data);
  attached_.clear();
  regions_.clear();
  count_ = 0;
}

}  // namespace pshpc::fabric::mpi
