#include <Python.h>

#include "proxy/names.h"
#include "proxy/object.h"
#include "proxy/pickling.h"
#include "proxy/resolve.h"
#include "proxy/type.h"

namespace {

using pshpc::proxy::Ref;

// The types and names live in globals, so that no operation has to look for them: one interpreter
// a process, as with numpy.
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "proxystore_hpc._proxy",
    "The lazy object proxy, as a C type.",
    -1,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

int prepare() {
  static bool done = false;
  if (done) return 0;
  if (pshpc::proxy::make_names() < 0 || pshpc::proxy::make_types() < 0 ||
      pshpc::proxy::prepare_resolve() < 0) {
    return -1;
  }
  done = true;
  return 0;
}

}  // namespace

PyMODINIT_FUNC PyInit__proxy() {
  if (prepare() < 0) return nullptr;
  Ref module = Ref::steal(PyModule_Create(&definition));
  if (!module || PyModule_AddType(module.get(), pshpc::proxy::types.proxy) < 0) return nullptr;
  Ref unpickle = Ref::steal(pshpc::proxy::make_unpickle());
  if (!unpickle || PyObject_SetAttrString(module.get(), "unpickle", unpickle.get()) < 0) {
    return nullptr;
  }
  return module.release();
}
