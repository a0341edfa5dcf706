#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// `__reduce__()`: `(unpickle, (factory, *defaults))`, never the target; `defaults` is
/// `(default_class, default_hash)` without what is not known at its end. A class of factories that
/// has a method `__reduce_proxy__(*defaults)` decides on the whole tuple: it can name one function
/// that makes factory and proxy, where the other form names two, half of the time and bytes of
/// pickling a small factory.
PyObject* reduce(PyObject* self, PyObject*);

/// `__reduce_ex__(protocol)`: the same for every protocol, by way of a subclass' `__reduce__`.
PyObject* reduce_ex(PyObject* self, PyObject* protocol);

/// The function `proxystore_hpc.proxy.unpickle`, a new reference; null with an exception set. Part
/// of the pickle format: what it accepts may be extended, never narrowed.
PyObject* make_unpickle();

}  // namespace pshpc::proxy
