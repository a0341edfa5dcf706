#pragma once

#include <Python.h>

#include "proxy/ref.h"

namespace pshpc::proxy {

/// A lazy proxy. Everything in it is guarded by the GIL.
struct ProxyObject {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* factory;        // null before __init__ and after deletion
  PyObject* target;         // null until resolved
  PyObject* default_class;  // null: not known without resolving
  PyObject* default_hash;   // null, an int, or the exception that hash() raises
  PyObject* weak_references;
  unsigned long resolver;        // the thread that is inside the factory, 0: none
  unsigned resolver_generation;  // of which process, see fork_generation in resolve.cpp
  bool plain;  // not an instance of a Python subclass, which may override anything
};

/// `sequence` and `mapping` add to `proxy` the type flag that makes `case [..]` and `case {..}`
/// match: CPython looks at nothing else, and only at the type.
struct Types {
  PyTypeObject* proxy;
  PyTypeObject* sequence;
  PyTypeObject* mapping;
};
extern Types types;

inline ProxyObject* as_proxy(PyObject* object) { return reinterpret_cast<ProxyObject*>(object); }
inline PyObject* as_object(ProxyObject* proxy) { return reinterpret_cast<PyObject*>(proxy); }

inline bool is_plain_type(PyTypeObject* type) {
  return type == types.proxy || type == types.sequence || type == types.mapping;
}

inline bool is_proxy(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return false;
  return is_plain_type(type) || PyType_IsSubtype(type, types.proxy);
}

/// What the proxy stands for, by way of a subclass' own `__proxy_wrapped__` if it has one.
/// Resolves if need be; nothing, with an exception set, if that fails.
Ref wrapped(PyObject* proxy);

inline Ref target_of(PyObject* object) {
  ProxyObject* proxy = as_proxy(object);
  if (__builtin_expect(proxy->plain && proxy->target != nullptr, true)) {
    return Ref::share(proxy->target);
  }
  return wrapped(object);
}

/// The target of a proxy, any other object itself.
inline Ref unwrap(PyObject* object) {
  return is_proxy(object) ? target_of(object) : Ref::share(object);
}

/// Gives the proxy a target; null makes it unresolved.
void set_target(ProxyObject* proxy, PyObject* target);

/// Chooses among `Types` by what is known of the target; a Python subclass keeps its type.
void settle_type(ProxyObject* proxy);

}  // namespace pshpc::proxy
