#include "fabric/ucx/memory.h"

#include "base/fork_guard.h"
#include "base/wire.h"
#include "fabric/ucx/errors.h"

namespace pshpc::fabric::ucx {

Expected<std::unique_ptr<Registration>> Registration::create(std::shared_ptr<Context> context,
                                                             Span span) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = span.data;
  params.length = span.size;
  ucp_mem_h memory = nullptr;
  const std::string attempted = "registering " + std::to_string(span.size) + " bytes with UCX";
  const ucs_status_t status = ucp_mem_map(context->handle(), &params, &memory);
  if (status != UCS_OK) {
    const Status refused = to_status(status, attempted);
    return Status(refused.code(), refused.message() + " (is the memlock limit large enough?)");
  }
  std::unique_ptr<Registration> made(new Registration(std::move(context), memory));
  const Status packed = made->pack(span);
  if (!packed.ok()) return packed.within(attempted);
  return made;
}

Registration::Registration(std::shared_ptr<Context> context, ucp_mem_h memory)
    : context_(std::move(context)), memory_(memory), birth_(fork_generation()) {}

Registration::~Registration() {
  if (birth_ == fork_generation()) ucp_mem_unmap(context_->handle(), memory_);
}

Status Registration::pack(Span span) {
  void* key = nullptr;
  std::size_t size = 0;
  const ucs_status_t status = ucp_rkey_pack(context_->handle(), memory_, &key, &size);
  if (status != UCS_OK) return to_status(status, "packing its remote key");
  remote_handle_ = WireWriter()
                       .put(reinterpret_cast<std::uint64_t>(span.data))
                       .put(static_cast<std::uint64_t>(span.size))
                       .put_blob({key, size})
                       .take();
  ucp_rkey_buffer_release(key);
  return {};
}

Expected<std::shared_ptr<RemoteRegion>> Remote::unpack_locked(std::shared_ptr<Worker> worker,
                                                              ucp_ep_h endpoint, ConstSpan handle) {
  WireReader reader(handle);
  const auto base = reader.get<std::uint64_t>();
  const auto length = reader.get<std::uint64_t>();
  const ConstSpan packed = reader.get_blob();
  if (!reader.at_end() || packed.empty())
    return Status(Code::protocol, "not a handle of memory exposed over ucx");
  ucp_rkey_h key = nullptr;
  const ucs_status_t status = ucp_ep_rkey_unpack(endpoint, packed.data, &key);
  if (status != UCS_OK) return to_status(status, "taking a peer's remote key");
  return std::shared_ptr<RemoteRegion>(new Remote(std::move(worker), key, base, length));
}

Remote::~Remote() {
  const Worker::Guard guard(*worker_);
  if (guard) ucp_rkey_destroy(key_);
}

}  // namespace pshpc::fabric::ucx
