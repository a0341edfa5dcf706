#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// A new unresolved proxy of a type in `Types`; nothing, with a TypeError set, if the factory is
/// not callable.
Ref make_proxy(PyTypeObject* type, PyObject* factory);

/// Makes the types, once; 0, or -1 with an exception set.
int make_types();

}  // namespace pshpc::proxy
