#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// `__array_ufunc__(ufunc, method, *inputs, **kwargs)`: numpy hands over every ufunc that has a
/// proxy among its inputs or outputs. Runs it on the targets, which is the only way for
/// `np.add(a, b, out=proxy)` to work.
PyObject* array_ufunc(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords);

}  // namespace pshpc::proxy
