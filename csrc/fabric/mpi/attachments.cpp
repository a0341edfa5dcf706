#include "fabric/mpi/attachments.h"

#include <string>

#include "base/log.h"

namespace pshpc::fabric::mpi {

Status Attachments::add(const memory::Region& region) {
  if (regions_.count(region.id) != 0) return {};
  const Span span = region.span;
  auto found = attached_.upper_bound(span.data);
  bool covered = false;
  if (found != attached_.begin()) {
    --found;
    const Span& other = found->second.span;
    covered = other.data <= span.data && span.data + span.size <= other.data + other.size;
  }
  if (!covered) {
    const Status attached = attach(span);
    if (!attached.ok()) return attached;
    found = attached_.emplace(span.data, Attached{span, 0}).first;
    count_ = attached_.size();
  }
  ++found->second.users;
  regions_[region.id] = found->first;
  return {};
}

Status Attachments::attach(Span span) {
  const int code = port_.api->win_attach(port_.memory, span.data, static_cast<Aint>(span.size));
  if (code == 0) return {};
  std::string hint = " (attachment " + std::to_string(attached_.size() + 1);
  if (port_.api->family() == "Open MPI")
    hint +=
        "; Open MPI's parameter osc_rdma_max_attach limits their number: mpirun --mca "
        "osc_rdma_max_attach N";
  return {Code::unavailable, port_.api->check(code, "attaching memory").message() + hint + ")"};
}

void Attachments::remove(std::uint32_t region_id) {
  const auto region = regions_.find(region_id);
  if (region == regions_.end()) return;
  const auto attached = attached_.find(region->second);
  regions_.erase(region);
  if (--attached->second.users > 0) return;
  detach(attached->first);
  attached_.erase(attached);
  count_ = attached_.size();
}

void Attachments::detach(std::uint8_t* data) {
  const Status status =
      port_.api->check(port_.api->win_detach(port_.memory, data), "detaching memory");
  if (!status.ok()) log_warn_once(status.message());
}

void Attachments::clear() {
  for (const auto& [data, attached] : attached_) detach(data);
  attached_.clear();
  regions_.clear();
  count_ = 0;
}

}  // namespace pshpc::fabric::mpi
