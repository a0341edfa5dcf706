#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// tp_getattro. Straight to the target but for the few names that are the proxy's own, and for what
/// a Python subclass defines.
PyObject* get_attribute(PyObject* self, PyObject* name);

/// `__getattr__`: what a subclass that overrides it falls back on.
PyObject* get_missing_attribute(PyObject* self, PyObject* name);

/// `__setattr__(name, value)` and `__delattr__(name)`.
PyObject* set_attribute(PyObject* self, PyObject* const* args, Py_ssize_t count);
PyObject* delete_attribute(PyObject* self, PyObject* name);

/// `__class__`: the target's, or the cached one while unresolved.
Ref class_of(PyObject* self);

/// `__init_subclass__`: lets subclasses that do not override attribute access have `get_attribute`
/// as their slot, in place of CPython's dispatcher through `__getattribute__` and `__getattr__`.
PyObject* init_subclass(PyObject* cls, PyObject* args, PyObject* kwargs);

}  // namespace pshpc::proxy
