#include "proxy/attributes.h"

#include <cstring>

#include "proxy/names.h"

namespace pshpc::proxy {

namespace {

/// Whether a Python subclass defines the name, or redefines what it would inherit from Proxy.
bool defined_by_subclass(PyTypeObject* type, PyObject* name) {
  PyObject* found = _PyType_Lookup(type, name);
  return found != nullptr && found != _PyType_Lookup(types.proxy, name);
}

PyObject* forward(PyObject* self, PyObject* name) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  // Past PyObject_GetAttr, which the interpreter has just been through for the proxy.
  getattrofunc get = Py_TYPE(target.get())->tp_getattro;
  return get ? get(target.get(), name) : PyObject_GetAttr(target.get(), name);
}

/// numpy keeps alive what it reads through a buffer or gets of `__array__`, but of this the proxy
/// only, which may let go of its target. So it is not there where numpy would find nothing better:
/// for dates, and for types of elements that are not numpy's own.
PyObject* get_array_interface(PyObject* self, PyObject* name) {
  Ref interface = Ref::steal(forward(self, name));
  if (!interface || !PyDict_Check(interface.get())) return interface.release();
  PyObject* const type = PyDict_GetItemString(interface.get(), "typestr");
  const char* const text = type && PyUnicode_Check(type) ? PyUnicode_AsUTF8(type) : nullptr;
  if (text == nullptr || text[0] == '\0' || std::strchr("mMV", text[1]) == nullptr ||
      text[1] == '\0') {
    PyErr_Clear();
    return interface.release();
  }
  PyErr_SetObject(PyExc_AttributeError, name);
  return nullptr;
}

/// An attribute of the target with one of the many `__names__` that CPython and numpy ask for, or
/// one of the proxy itself.
PyObject* get_special(PyObject* self, PyObject* name) {
  if (name == names.class_) return class_of(self).release();
  if (name == names.array_interface) return get_array_interface(self, name);
  if (is_proxy_state(name) || holds(names.own, name)) return PyObject_GenericGetAttr(self, name);
  return forward(self, name);
}

/// From the `__dict__` that a subclass without `__slots__` gives its instances. Null without an
/// exception: it is not there.
PyObject* get_from_instance_dict(PyObject* self, PyObject* name) {
  if (Py_TYPE(self)->tp_dictoffset == 0) return nullptr;
  Ref dict = Ref::steal(PyObject_GenericGetDict(self, nullptr));
  if (!dict) return nullptr;
  return Ref::share(PyDict_GetItemWithError(dict.get(), name)).release();
}

PyObject* get_in_subclass(PyObject* self, PyObject* name) {
  if (!holds(names.always_forwarded, name)) {
    PyObject* found = defined_by_subclass(Py_TYPE(self), name) ? PyObject_GenericGetAttr(self, name)
                                                               : get_from_instance_dict(self, name);
    if (found != nullptr) return found;
    if (PyErr_Occurred()) {
      // As with Proxy.__getattr__ in Python: a slot that is not set is looked for in the target.
      if (!PyErr_ExceptionMatches(PyExc_AttributeError) || is_proxy_state(name)) return nullptr;
      PyErr_Clear();
    }
  }
  if (is_special(name)) return get_special(self, name);
  if (defined_by_subclass(Py_TYPE(self), names.getattr)) {
    PyErr_SetObject(PyExc_AttributeError, name);  // CPython calls the subclass' __getattr__ next
    return nullptr;
  }
  return forward(self, name);
}

/// Whether to set the attribute on the proxy. Otherwise on its target.
bool is_set_on_proxy(PyObject* self, PyObject* name) {
  if (is_proxy_state(name)) return true;
  return !as_proxy(self)->plain && !holds(names.always_forwarded, name) &&
         defined_by_subclass(Py_TYPE(self), name);
}

int assign(PyObject* self, PyObject* name, PyObject* value) {
  if (!PyUnicode_Check(name)) {
    PyErr_Format(PyExc_TypeError, "attribute name must be string, not '%.200s'",
                 Py_TYPE(name)->tp_name);
    return -1;
  }
  if (is_set_on_proxy(self, name)) return PyObject_GenericSetAttr(self, name, value);
  if (name == names.orig_class) {
    // Proxy[T](factory) sets this on what it made, ignoring a refusal; setting it on the target
    // would resolve every such proxy at once.
    PyErr_SetObject(PyExc_AttributeError, name);
    return -1;
  }
  Ref target = target_of(self);
  return target ? PyObject_SetAttr(target.get(), name, value) : -1;
}

}  // namespace

Ref class_of(PyObject* self) {
  ProxyObject* proxy = as_proxy(self);
  if (proxy->target == nullptr && proxy->default_class != nullptr) {
    return Ref::share(proxy->default_class);
  }
  return Ref::steal(forward(self, names.class_));
}

PyObject* get_attribute(PyObject* self, PyObject* name) {
  if (__builtin_expect(!as_proxy(self)->plain, false)) return get_in_subclass(self, name);
  if (__builtin_expect(is_special(name), false)) return get_special(self, name);
  return forward(self, name);
}

PyObject* get_missing_attribute(PyObject* self, PyObject* name) {
  if (PyUnicode_Check(name) && !is_proxy_state(name)) return forward(self, name);
  PyErr_SetObject(PyExc_AttributeError, name);
  return nullptr;
}

PyObject* set_attribute(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) {
    PyErr_Format(PyExc_TypeError, "__setattr__ takes a name and a value, not %zd arguments", count);
    return nullptr;
  }
  if (assign(self, args[0], args[1]) < 0) return nullptr;
  Py_RETURN_NONE;
}

PyObject* delete_attribute(PyObject* self, PyObject* name) {
  if (assign(self, name, nullptr) < 0) return nullptr;
  Py_RETURN_NONE;
}

PyObject* init_subclass(PyObject* cls, PyObject* args, PyObject* kwargs) {
  Ref next = Ref::steal(PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(&PySuper_Type),
                                                     types.proxy, cls, nullptr));
  if (!next) return nullptr;
  Ref method = Ref::steal(PyObject_GetAttrString(next.get(), "__init_subclass__"));
  if (!method) return nullptr;
  Ref done = Ref::steal(PyObject_Call(method.get(), args, kwargs));
  if (!done) return nullptr;

  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  Ref getattribute = Ref::steal(PyUnicode_InternFromString("__getattribute__"));
  if (!getattribute) return nullptr;
  if (!defined_by_subclass(type, names.getattr) && !defined_by_subclass(type, getattribute.get())) {
    type->tp_getattro = get_attribute;
  }
  return done.release();
}

}  // namespace pshpc::proxy
