#include "proxy/errors.h"

namespace pshpc::proxy {

Ref take_exception() {
#if PY_VERSION_HEX >= 0x030C0000
  return Ref::steal(PyErr_GetRaisedException());
#else
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return Ref::steal(value);
#endif
}

void raise_resolve_error(PyObject* message, PyObject* cause) {
  // Imported here and not with the module: only a failure needs it.
  Ref exceptions = Ref::steal(PyImport_ImportModule("proxystore_hpc.exceptions"));
  if (!exceptions) return;
  Ref type = Ref::steal(PyObject_GetAttrString(exceptions.get(), "ProxyResolveError"));
  if (!type) return;
  Ref error = Ref::steal(PyObject_CallFunctionObjArgs(type.get(), message, cause, nullptr));
  if (!error) return;
  PyException_SetCause(error.get(), Ref::share(cause).release());
  PyException_SetContext(error.get(), Ref::share(cause).release());
  PyErr_SetObject(type.get(), error.get());
}

void raise_factory_error(ProxyObject* proxy, PyObject* cause) {
  Ref reason = Ref::steal(PyObject_Str(cause));
  if (!reason) {
    PyErr_Clear();
    reason = Ref::steal(PyUnicode_FromString("(without a printable message)"));
  }
  Ref message = Ref::steal(
      PyUnicode_FromFormat("cannot resolve the proxy: its factory (%s) raised %s: %U",
                           proxy->factory != nullptr ? Py_TYPE(proxy->factory)->tp_name : "none",
                           Py_TYPE(cause)->tp_name, reason.get()));
  if (message) raise_resolve_error(message.get(), cause);
}

void raise_resolve_error(const char* message, PyObject* cause_type) {
  Ref text = Ref::steal(PyUnicode_FromString(message));
  if (!text) return;
  Ref cause = Ref::steal(PyObject_CallOneArg(cause_type, text.get()));
  if (cause) raise_resolve_error(text.get(), cause.get());
}

}  // namespace pshpc::proxy
