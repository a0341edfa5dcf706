#include "bindings/core_rpc.h"

namespace pshpc::bindings {

py::object to_lease(rpc::Delivery payload) {
  if (payload.span.empty()) return py::none();
  objects::Lease lease;
  lease.memory = payload.span;
  lease.writable = true;
  lease.door = "rpc";
  lease.holder = std::move(payload.keep);
  return py::cast(PyLease(std::move(lease)));
}

void bind_rpc(py::module_& module) {
  bind_completions(module);
  bind_endpoint(module);
  bind_handlers(module);
}

}  // namespace pshpc::bindings
