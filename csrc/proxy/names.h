#pragma once

#include <Python.h>

namespace pshpc::proxy {

/// Interned attribute names and sets of them, made once when the module is imported.
struct Names {
  PyObject* class_;
  PyObject* proxy_wrapped;
  PyObject* getattr;
  PyObject* array_interface;
  PyObject* orig_class;
  PyObject* reduce;
  PyObject* reduce_proxy;
  /// Answered by the proxy itself, never by its target.
  PyObject* own;
  /// Answered by the target even where a class body put an attribute of this name into a subclass.
  PyObject* always_forwarded;
};
extern Names names;

/// 0, or -1 with an exception set.
int make_names();

/// `__anything`; only such names can be the proxy's own.
inline bool is_special(PyObject* name) {
  if (!PyUnicode_IS_COMPACT_ASCII(name) || PyUnicode_GET_LENGTH(name) < 4) return false;
  const Py_UCS1* text = PyUnicode_1BYTE_DATA(name);
  return text[0] == '_' && text[1] == '_';
}

/// `__proxy_anything`: the state of the proxy.
bool is_proxy_state(PyObject* name);

/// Whether the set holds the name; an exception is impossible for two strings.
inline bool holds(PyObject* set, PyObject* name) { return PySet_Contains(set, name) == 1; }

}  // namespace pshpc::proxy
