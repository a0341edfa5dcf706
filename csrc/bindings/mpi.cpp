// The _mpi module: makes mpi doors of the communicator and windows that Python has made. A door
// goes to _core in a capsule; the two modules share nothing but the interface in fabric/door.h.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "fabric/mpi/alone.h"
#include "fabric/mpi/door.h"

namespace py = pybind11;

namespace pshpc::bindings {
namespace {

namespace mpi = fabric::mpi;

[[noreturn]] void raise(const Status& status) {
  const py::object make = py::module_::import("proxystore_hpc.exceptions").attr("from_code");
  const py::object error =
      make(code_name(status.code()), status.message(), py::arg("door") = "mpi");
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

void destroy_handle(PyObject* capsule) {
  // The door says farewell to its peers when it is the last to hold it.
  const std::unique_ptr<fabric::DoorHandle> handle(
      static_cast<fabric::DoorHandle*>(PyCapsule_GetPointer(capsule, fabric::kDoorCapsule)));
  const py::gil_scoped_release release;
  handle->reset();
}

std::shared_ptr<const mpi::Api> load(const std::string& library,
                                     const std::map<std::string, std::uint64_t>& constants) {
  const auto handle = [&](const char* name) {
    const auto found = constants.find(name);
    if (found == constants.end()) raise({Code::invalid, std::string("constants: no ") + name});
    return found->second;
  };
  mpi::Constants all;
  all.byte = handle("BYTE");
  all.uint64 = handle("UINT64_T");
  all.sum = handle("SUM");
  all.replace = handle("REPLACE");
  all.no_op = handle("NO_OP");
  const auto number = [&](const char* name) {
    return static_cast<int>(static_cast<std::uint32_t>(handle(name)));
  };
  all.any_source = number("ANY_SOURCE");
  all.lock_shared = number("LOCK_SHARED");
  all.no_check = number("MODE_NOCHECK");
  auto api = mpi::Api::load(library, all);
  if (!api) raise(api.status());
  return std::move(api).value();
}

py::tuple identify(const std::string& library,
                   const std::map<std::string, std::uint64_t>& constants) {
  const auto api = load(library, constants);
  return py::make_tuple(api->family(), api->version());
}

py::object create_door(const std::string& library,
                       const std::map<std::string, std::uint64_t>& constants, std::uint64_t comm,
                       std::uint64_t messages, std::uint64_t memory, std::uint64_t base,
                       const py::buffer& locked, int rank, int ranks, const py::bytes& job,
                       const std::string& threads, double idle) {
  const std::string tag = job;
  if (tag.size() != sizeof(Tag)) raise({Code::invalid, "job: 16 bytes are needed"});
  if (!(idle > 0 && idle < 10)) raise({Code::invalid, "idle: a time in seconds, above 0"});
  mpi::Port port;
  port.api = load(library, constants);
  port.comm = comm;
  port.messages = messages;
  port.memory = memory;
  port.base = reinterpret_cast<std::uint8_t*>(base);
  const py::buffer_info flags = locked.request(true);
  if (flags.itemsize != 1 || flags.size != ranks) raise({Code::invalid, "locked: a byte a rank"});
  port.locked = static_cast<std::uint8_t*>(flags.ptr);
  port.rank = rank;
  port.ranks = ranks;
  std::memcpy(port.job.data(), tag.data(), sizeof(Tag));
  if (threads == "multiple")
    port.threads = mpi::ThreadLevel::multiple;
  else if (threads == "serialized")
    port.threads = mpi::ThreadLevel::one_at_a_time;
  else
    port.threads = mpi::ThreadLevel::main_only;
  mpi::Options options;
  options.idle = static_cast<Nanoseconds>(idle * static_cast<double>(kSecond));
  auto door = mpi::MpiDoor::create(port, options);
  if (!door) raise(door.status());
  auto handle = std::make_unique<fabric::DoorHandle>(std::move(door).value());
  PyObject* capsule = PyCapsule_New(handle.get(), fabric::kDoorCapsule, destroy_handle);
  if (capsule == nullptr) throw py::error_already_set();
  [[maybe_unused]] const auto* given = handle.release();  // to the capsule
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

PYBIND11_MODULE(_mpi, module) {
  module.attr("WINDOW_NBYTES") = mpi::kWindowSize;
  module.def("identify", &identify, py::arg("library"), py::arg("constants"));
  module.def("create_door", &create_door, py::kw_only(), py::arg("library"), py::arg("constants"),
             py::arg("comm"), py::arg("messages"), py::arg("memory"), py::arg("base"),
             py::arg("locked"), py::arg("rank"), py::arg("ranks"), py::arg("job"),
             py::arg("threads"), py::arg("idle") = 2e-3);
  using without_gil = py::call_guard<py::gil_scoped_release>;
  module.def("begin_alone", &mpi::Alone::begin, without_gil());
  module.def("enter_alone", &mpi::Alone::enter, without_gil());
  module.def("leave_alone", &mpi::Alone::leave);
}

}  // namespace pshpc::bindings
