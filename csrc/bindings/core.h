#pragma once
// What the files of the _core module share.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "objects/key.h"

namespace pshpc::bindings {

namespace py = pybind11;

// Raises the exception of proxystore_hpc.exceptions that stands for the status.
[[noreturn]] void raise(const Status& status, const py::dict& details = {});
// The same as an object, for results of a batch.
py::object to_exception(const Status& status);

inline void check(const Status& status) {
  if (!status.ok()) raise(status);
}
template <class T>
T check(Expected<T> result) {
  if (!result.ok()) raise(result.status());
  return std::move(result).value();
}

// A contiguous buffer of any object with the buffer protocol, held while this lives. Made and
// dropped with the GIL.
class BufferView {
 public:
  enum class Access { read, write };

  BufferView(const py::handle& object, Access access);
  BufferView(BufferView&& other) noexcept;
  BufferView(const BufferView&) = delete;
  BufferView& operator=(const BufferView&) = delete;
  ~BufferView();

  ConstSpan span() const { return {view_.buf, static_cast<std::size_t>(view_.len)}; }
  Span writable() const { return {view_.buf, static_cast<std::size_t>(view_.len)}; }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

inline py::bytes to_bytes(ConstSpan span) {
  return py::bytes(reinterpret_cast<const char*>(span.data), span.size);
}
Tag to_tag(const py::bytes& bytes, const char* what);
objects::Key to_key(const py::bytes& bytes);
std::vector<objects::Key> to_keys(const py::list& list);
Deadline to_deadline(double timeout_seconds);

void bind_memory(py::module_& module);
void bind_lease(py::module_& module);
void bind_instance(py::module_& module);
void bind_rpc(py::module_& module);
void bind_bulk(py::module_& module);

}  // namespace pshpc::bindings
