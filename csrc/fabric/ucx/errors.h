#pragma once
// The one place where UCX's status codes become ours.

#include <string>

#include <ucs/type/status.h>

#include "base/status.h"

namespace pshpc::fabric::ucx {

// "attempted: UCX's text".
Status to_status(ucs_status_t status, const std::string& attempted);

}  // namespace pshpc::fabric::ucx
