#pragma once

#include <Python.h>

#include <vector>

namespace pshpc::proxy {

/// Appends the slots of the type that pass an operation on to the target: numbers, containers,
/// comparison, iteration, calls, awaiting, buffers.
void append_forwarding_slots(std::vector<PyType_Slot>& slots);

/// The vectorcall entry of every proxy: calls the target.
PyObject* call_target(PyObject* self, PyObject* const* args, size_t flagged_count,
                      PyObject* keywords);

}  // namespace pshpc::proxy
