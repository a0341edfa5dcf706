#pragma once
// What the files of the RPC binding share.

#include <memory>
#include <string>

#include "bindings/core.h"
#include "bindings/core_lease.h"
#include "objects/instance.h"
#include "rpc/handler.h"

namespace pshpc::bindings {

// The instance that a Python object holds; raises if it is closed or inherited.
objects::Instance& instance_of(const py::object& python_instance);

// Whether it can be used, and if not, why.
Status state_of(const py::object& python_instance);

// None if there is no payload.
py::object to_lease(rpc::Delivery payload);

// A handler of an extension module, from the capsule of proxystore_hpc/rpc.h.
std::shared_ptr<rpc::Handler> native_handler(py::object capsule);

// Registers under a name; `what` is a handler object for Python threads of `pool`.
void serve_python(objects::Instance& instance, const std::string& name, std::uint16_t provider,
                  py::object what, const py::object& pool);

py::object open_endpoint(const py::object& instance, const std::string& address, double timeout);

// A wait for the object of a key, whose end can be told to a queue. None if that is not possible:
// the owner is here, or no door that carries messages leads to it.
py::object start_wait(const py::object& instance, const py::bytes& key, double timeout);

void bind_endpoint(py::module_& module);
void bind_completions(py::module_& module);
void bind_handlers(py::module_& module);

}  // namespace pshpc::bindings
