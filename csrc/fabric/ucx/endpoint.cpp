#include "fabric/ucx/endpoint.h"

#include <utility>

#include "fabric/ucx/errors.h"
#include "fabric/ucx/text.h"

namespace pshpc::fabric::ucx {

Status Endpoint::create(ucp_worker_h worker, ucp_ep_params_t& params) {
  params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.err_mode = error_handling_ ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE;
  params.err_handler.cb = on_error;
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker, &params, &handle_);
  if (status == UCS_OK) return {};
  handle_ = nullptr;
  return to_status(status, "connecting to a peer over ucx");
}

Status Endpoint::connect_locked(ucp_worker_h worker, ConstSpan worker_address) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
  params.address = reinterpret_cast<const ucp_address_t*>(worker_address.data);
  return create(worker, params);
}

Status Endpoint::dial_locked(ucp_worker_h worker, const sockaddr* address, socklen_t size) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr.addr = address;
  params.sockaddr.addrlen = size;
  return create(worker, params);
}

Status Endpoint::accept_locked(ucp_worker_h worker, ucp_conn_request_h request) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  return create(worker, params);
}

void Endpoint::close_locked() {
  if (handle_ == nullptr) return;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(std::exchange(handle_, nullptr), &params);
  // Given back now, released by UCX when the close is over.
  if (UCS_PTR_IS_PTR(request)) ucp_request_free(request);
}

std::string Endpoint::describe_locked() const {
  if (handle_ == nullptr) return {};
  return printed([this](FILE* stream) { ucp_ep_print_info(handle_, stream); });
}

void Endpoint::on_error(void* self, ucp_ep_h, ucs_status_t status) {
  static_cast<Endpoint*>(self)->owner_.failed_locked(status);
}

}  // namespace pshpc::fabric::ucx
