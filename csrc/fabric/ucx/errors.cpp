#include "fabric/ucx/errors.h"

namespace pshpc::fabric::ucx {
namespace {

Code code_of(ucs_status_t status) {
  switch (status) {
    case UCS_ERR_CANCELED:  // how UCX ends what was in flight on a failed or closed endpoint
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_ENDPOINT_TIMEOUT:
    case UCS_ERR_NOT_CONNECTED:
    case UCS_ERR_REJECTED:
    case UCS_ERR_TIMED_OUT:
    case UCS_ERR_IO_ERROR: return Code::peer_lost;
    case UCS_ERR_NO_MEMORY:
    case UCS_ERR_EXCEEDS_LIMIT: return Code::full;
    case UCS_ERR_INVALID_PARAM:
    case UCS_ERR_INVALID_ADDR:
    case UCS_ERR_MESSAGE_TRUNCATED:
    case UCS_ERR_OUT_OF_RANGE: return Code::invalid;
    case UCS_ERR_UNREACHABLE:
    case UCS_ERR_SHMEM_SEGMENT:
    case UCS_ERR_NO_DEVICE:
    case UCS_ERR_NO_RESOURCE:
    case UCS_ERR_NOT_IMPLEMENTED:
    case UCS_ERR_UNSUPPORTED: return Code::unavailable;
    default:
      return UCS_IS_ENDPOINT_ERROR(status) || UCS_IS_LINK_ERROR(status) ? Code::peer_lost
                                                                        : Code::system;
  }
}

}  // namespace

Status to_status(ucs_status_t status, const std::string& attempted) {
  if (status == UCS_OK) return {};
  return {code_of(status), attempted + ": " + ucs_status_string(status)};
}

}  // namespace pshpc::fabric::ucx
