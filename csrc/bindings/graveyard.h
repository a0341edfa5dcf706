#pragma once
// Python objects whose last use ends on a thread without the GIL. They are laid down here, and
// released by the next thread that comes along with it.

#include <pybind11/pybind11.h>

#include <memory>

#include "base/span.h"
#include "fabric/payload.h"

namespace pshpc::bindings {

namespace py = pybind11;

// Any thread, no GIL needed. Takes over the reference.
void bury(PyObject* object);
// With the GIL; costs next to nothing when there is nothing.
void release_buried();

// A reference that may be dropped anywhere.
class Buriable {
 public:
  Buriable() = default;
  explicit Buriable(py::object object) : object_(object.release().ptr()) {}
  Buriable(Buriable&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Buriable& operator=(Buriable&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Buriable() {
    if (object_ != nullptr) bury(object_);
  }

  // With the GIL.
  py::object get() const { return py::reinterpret_borrow<py::object>(object_); }
  py::object take() { return py::reinterpret_steal<py::object>(std::exchange(object_, nullptr)); }

 private:
  PyObject* object_ = nullptr;
};

// The bytes of a contiguous buffer, held until the last reference goes, wherever that is. With the
// GIL; raises what the buffer protocol raises.
struct HeldBytes {
  ConstSpan span;
  std::shared_ptr<const void> keep;
};
HeldBytes hold_bytes(const py::handle& object);
// What is sent behind a body: nothing for None, or the bytes of a buffer, or those of several in a
// tuple, each at a multiple of 64.
fabric::Payload hold_payload(const py::handle& object);

}  // namespace pshpc::bindings
