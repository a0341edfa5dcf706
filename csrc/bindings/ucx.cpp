// The _ucx module: makes ucx doors and tells about the UCX in use. A door goes to _core in a
// capsule; the two modules share nothing but the interface in fabric/door.h.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "fabric/ucx/door.h"
#include "fabric/ucx/inspect.h"

namespace py = pybind11;

namespace pshpc::bindings {
namespace {

namespace ucx = fabric::ucx;

[[noreturn]] void raise(const Status& status) {
  const py::object make = py::module_::import("proxystore_hpc.exceptions").attr("from_code");
  const py::object error =
      make(code_name(status.code()), status.message(), py::arg("door") = "ucx");
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

void destroy_handle(PyObject* capsule) {
  // The door may wait for its worker when it is the last to hold it.
  const std::unique_ptr<fabric::DoorHandle> handle(
      static_cast<fabric::DoorHandle*>(PyCapsule_GetPointer(capsule, fabric::kDoorCapsule)));
  const py::gil_scoped_release release;
  handle->reset();
}

py::object create_door(const std::string& tls, const std::string& interface,
                       const std::string& net_devices, bool error_handling, double keepalive,
                       const std::map<std::string, std::string>& tuning, const std::string& name) {
  if (!(keepalive > 0)) raise({Code::invalid, "keepalive: a time in seconds above 0"});
  ucx::Options options;
  options.name = name;
  options.tls = tls;
  options.interface = interface;
  options.net_devices = net_devices;
  options.error_handling = error_handling;
  options.keepalive = static_cast<Nanoseconds>(keepalive * static_cast<double>(kSecond));
  options.tuning.assign(tuning.begin(), tuning.end());
  auto door = [&] {
    const py::gil_scoped_release release;
    return ucx::UcxDoor::create(options);
  }();
  if (!door.ok()) raise(door.status());
  auto handle = std::make_unique<fabric::DoorHandle>(std::move(door).value());
  PyObject* capsule = PyCapsule_New(handle.get(), fabric::kDoorCapsule, destroy_handle);
  if (capsule == nullptr) throw py::error_already_set();
  [[maybe_unused]] const auto* given = handle.release();  // to the capsule
  return py::reinterpret_steal<py::object>(capsule);
}

ucx::Inventory inventory() {
  auto found = [] {
    const py::gil_scoped_release release;
    return ucx::full_inventory();
  }();
  if (!found.ok()) raise(found.status());
  return std::move(found).value();
}

py::list transports() {
  py::list rows;
  for (const ucx::Transport& transport : inventory().transports) {
    py::dict row;
    row["transport"] = transport.name;
    row["device"] = transport.device;
    row["domain"] = transport.domain;
    rows.append(row);
  }
  return rows;
}

py::dict build_config() {
  py::dict config;
  config["headers"] = ucx::headers_version();
  config["compiler"] = __VERSION__;
  return config;
}

}  // namespace

PYBIND11_MODULE(_ucx, module) {
  module.def("create_door", &create_door, py::kw_only(), py::arg("tls") = "",
             py::arg("interface") = "", py::arg("net_devices") = "",
             py::arg("error_handling") = true, py::arg("keepalive") = 0.5,
             py::arg("tuning") = std::map<std::string, std::string>(), py::arg("name") = "ucx");
  module.def("version", &ucx::version_text);
  module.def("library_path", &ucx::library_path);
  module.def("transports", &transports);
  module.def("has_verbs", [] { return inventory().has_verbs(); });
  module.def("build_config", &build_config);
}

}  // namespace pshpc::bindings
