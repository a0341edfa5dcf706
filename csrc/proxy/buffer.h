#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// bf_getbuffer: the target's buffer. The view belongs to the target, so a proxy needs no release
/// function and the view outlives it.
int get_buffer(PyObject* self, Py_buffer* view, int flags);

}  // namespace pshpc::proxy
