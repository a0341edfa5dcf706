#include "proxy/buffer.h"

namespace pshpc::proxy {

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  view->obj = nullptr;
  Ref target = target_of(self);
  return target ? PyObject_GetBuffer(target.get(), view, flags) : -1;
}

}  // namespace pshpc::proxy
