#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include "bindings/graveyard.h"

namespace pshpc::bindings {
namespace {

struct Graveyard {
  std::mutex mutex;
  std::vector<PyObject*> buried;
  std::atomic<bool> any{false};
};

// Never torn down: references may be dropped while the process ends.
Graveyard& graveyard() {
  static auto& instance = *new Graveyard;
  return instance;
}

}  // namespace

void bury(PyObject* object) {
  Graveyard& yard = graveyard();
  std::lock_guard<std::mutex> lock(yard.mutex);
  yard.buried.push_back(object);
  yard.any.store(true, std::memory_order_release);
}

void release_buried() {
  Graveyard& yard = graveyard();
  if (!yard.any.load(std::memory_order_acquire)) return;
  std::vector<PyObject*> released;
  {
    std::lock_guard<std::mutex> lock(yard.mutex);
    released.swap(yard.buried);
    yard.any.store(false, std::memory_order_relaxed);
  }
  for (PyObject* object : released) Py_DECREF(object);
}

HeldBytes hold_bytes(const py::handle& object) {
  // A memoryview holds the buffer, whatever kind of object it is of.
  py::object view = py::reinterpret_steal<py::object>(PyMemoryView_FromObject(object.ptr()));
  if (!view) throw py::error_already_set();
  const Py_buffer* described = PyMemoryView_GET_BUFFER(view.ptr());
  if (PyBuffer_IsContiguous(described, 'C') == 0)
    throw py::buffer_error("a C-contiguous buffer is needed");
  HeldBytes held;
  held.span = {described->buf, static_cast<std::size_t>(described->len)};
  held.keep = std::make_shared<const Buriable>(std::move(view));
  return held;
}

fabric::Payload hold_payload(const py::handle& object) {
  if (object.is_none()) return {};
  if (!py::isinstance<py::tuple>(object)) {
    HeldBytes held = hold_bytes(object);
    return {held.span, std::move(held.keep)};
  }
  constexpr std::size_t alignment = 64;
  // Not constant: transports register what they send, which not all can do with read-only pages.
  static std::array<std::uint8_t, alignment> gap{};
  auto holders = std::make_shared<std::vector<std::shared_ptr<const void>>>();
  fabric::Payload payload;
  std::size_t end = 0;
  for (const py::handle& buffer : py::reinterpret_borrow<py::tuple>(object)) {
    HeldBytes held = hold_bytes(buffer);
    const std::size_t missing = (alignment - end % alignment) % alignment;
    payload.append({gap.data(), missing});
    payload.append(held.span);
    end += missing + held.span.size;
    holders->push_back(std::move(held.keep));
  }
  payload.keep = std::move(holders);
  return payload;
}

}  // namespace pshpc::bindings
