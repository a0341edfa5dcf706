// The _core module: registered memory, the shm door, the object store. Thin: every rule stands
// below.

#include "bindings/core.h"

namespace pshpc::bindings {

void raise(const Status& status, const py::dict& details) {
  const py::object make = py::module_::import("proxystore_hpc.exceptions").attr("from_code");
  const py::object error = make(code_name(status.code()), status.message(), **details);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

py::object to_exception(const Status& status) {
  const py::object make = py::module_::import("proxystore_hpc.exceptions").attr("from_code");
  return make(code_name(status.code()), status.message());
}

BufferView::BufferView(const py::handle& object, Access access) {
  const int flags = access == Access::write ? PyBUF_WRITABLE : PyBUF_SIMPLE;
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw py::error_already_set();
  held_ = true;
}

BufferView::BufferView(BufferView&& other) noexcept
    : view_(other.view_), held_(std::exchange(other.held_, false)) {}

BufferView::~BufferView() {
  if (held_) PyBuffer_Release(&view_);
}

Tag to_tag(const py::bytes& bytes, const char* what) {
  const std::string text = bytes;
  Tag tag{};
  if (text.size() != tag.size())
    raise({Code::invalid, std::string(what) + " has 16 bytes, not " + std::to_string(text.size())});
  std::copy(text.begin(), text.end(), tag.begin());
  return tag;
}

objects::Key to_key(const py::bytes& bytes) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw py::error_already_set();
  auto key = objects::Key::parse({data, static_cast<std::size_t>(size)});
  if (!key.ok()) {
    py::dict details;
    details["key"] = bytes;
    raise(key.status(), details);
  }
  return std::move(key).value();
}

std::vector<objects::Key> to_keys(const py::list& list) {
  std::vector<objects::Key> keys;
  keys.reserve(list.size());
  for (const py::handle& item : list) keys.push_back(to_key(py::cast<py::bytes>(item)));
  return keys;
}

Deadline to_deadline(double timeout_seconds) { return Deadline::after_seconds(timeout_seconds); }

}  // namespace pshpc::bindings

PYBIND11_MODULE(_core, module) {
  module.doc() = "Registered memory, the shm door and the object store of proxystore_hpc.";
  pshpc::bindings::bind_memory(module);
  pshpc::bindings::bind_lease(module);
  pshpc::bindings::bind_instance(module);
  pshpc::bindings::bind_rpc(module);
  pshpc::bindings::bind_bulk(module);
}
