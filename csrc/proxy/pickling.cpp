#include "proxy/pickling.h"

#include <string_view>

#include "proxy/names.h"
#include "proxy/type.h"

namespace pshpc::proxy {

namespace {

PyObject* unpickle_function = nullptr;

/// Two processes with the same token give equal strings equal hashes. 31 bits, so that it takes
/// five bytes of a pickle.
Py_hash_t hash_seed_token() {
  static const Py_hash_t token = [] {
    Ref text = Ref::steal(PyUnicode_FromString("proxystore_hpc.proxy"));
    return text ? PyObject_Hash(text.get()) & 0x7fffffff : 0;
  }();
  return token;
}

// Classes that travel by name alone, in a fifth of the time and bytes of a reference that pickle
// makes. A closed list, so that an unpickler that restricts what may be imported still does.
PyTypeObject* const kNamedClasses[] = {
    &PyList_Type,      &PyDict_Type,    &PyTuple_Type,     &PyUnicode_Type,
    &PyBytes_Type,     &PyLong_Type,    &PyFloat_Type,     &PySet_Type,
    &PyByteArray_Type, &PyComplex_Type, &PyFrozenSet_Type,
};
constexpr char kArrayClass[] = "numpy.ndarray";

/// Whether pickle can refer to the class at all: not to a local one, nor to what the interpreter
/// keeps to itself (the class of functions).
bool can_travel(PyTypeObject* type) {
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    PyObject* path = reinterpret_cast<PyHeapTypeObject*>(type)->ht_qualname;
    const char* text = PyUnicode_AsUTF8(path);
    if (text == nullptr) PyErr_Clear();
    return text != nullptr && std::string_view(text).find("<locals>") == std::string_view::npos;
  }
  if (std::string_view(type->tp_name).find('.') != std::string_view::npos) return true;
  PyObject* found = PyDict_GetItemString(PyEval_GetBuiltins(), type->tp_name);
  return found == reinterpret_cast<PyObject*>(type);
}

/// What stands in a pickle for a default class: the name of a common one, any other as it is.
/// Nothing without an exception: the proxy travels without it.
Ref encode_class(PyObject* cls) {
  if (!PyType_Check(cls)) return Ref::share(cls);
  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  bool named = !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) &&
               std::string_view(type->tp_name) == kArrayClass;
  for (PyTypeObject* candidate : kNamedClasses) named = named || type == candidate;
  if (named) return Ref::steal(PyUnicode_InternFromString(type->tp_name));
  return can_travel(type) ? Ref::share(cls) : Ref();
}

/// Nothing without an exception: the class is not to be had here.
Ref decode_class(PyObject* cls) {
  if (!PyUnicode_Check(cls)) return Ref::share(cls);
  for (PyTypeObject* candidate : kNamedClasses) {
    if (PyUnicode_CompareWithASCIIString(cls, candidate->tp_name) == 0) {
      return Ref::share(reinterpret_cast<PyObject*>(candidate));
    }
  }
  if (PyUnicode_CompareWithASCIIString(cls, kArrayClass) != 0) {
    PyErr_Format(PyExc_ValueError, "the pickled default class %R of a proxy is unknown", cls);
    return Ref();
  }
  Ref numpy = Ref::steal(PyImport_ImportModule("numpy"));
  Ref array = Ref::steal(numpy ? PyObject_GetAttrString(numpy.get(), "ndarray") : nullptr);
  if (!array && PyErr_ExceptionMatches(PyExc_ImportError)) PyErr_Clear();
  return array;
}

constexpr char kUnhashableText[] = "unhashable type: '";
constexpr std::string_view kUnhashable = kUnhashableText;

const char* class_name(PyObject* cls) {
  return cls != nullptr && PyType_Check(cls) ? reinterpret_cast<PyTypeObject*>(cls)->tp_name
                                             : "object";
}

/// What hash() of an instance of the class usually raises; the class may be null.
Ref unhashable(PyObject* cls) {
  Ref message = Ref::steal(PyUnicode_FromFormat("%s%s'", kUnhashableText, class_name(cls)));
  if (!message) return Ref();
  return Ref::steal(PyObject_CallOneArg(PyExc_TypeError, message.get()));
}

/// Whether the exception is what `unhashable` makes, so that it need not travel.
bool is_usual(PyObject* error, PyObject* cls) {
  if (!Py_IS_TYPE(error, reinterpret_cast<PyTypeObject*>(PyExc_TypeError))) return false;
  PyObject* args = reinterpret_cast<PyBaseExceptionObject*>(error)->args;
  if (PyTuple_GET_SIZE(args) != 1 || !PyUnicode_Check(PyTuple_GET_ITEM(args, 0))) return false;
  Py_ssize_t length = 0;
  const char* text = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(args, 0), &length);
  if (text == nullptr) {
    PyErr_Clear();
    return false;
  }
  const std::string_view message(text, length);
  const std::string_view name(class_name(cls));
  return message.size() == kUnhashable.size() + name.size() + 1 &&
         message.substr(0, kUnhashable.size()) == kUnhashable &&
         message.substr(kUnhashable.size(), name.size()) == name && message.back() == '\'';
}

/// What stands in a pickle for a default hash: `()` for the usual TypeError, `(hash, token)` for a
/// number, any other exception as it is.
Ref encode_hash(PyObject* hash, PyObject* cls) {
  if (PyLong_Check(hash)) {
    return Ref::steal(Py_BuildValue("(On)", hash, static_cast<Py_ssize_t>(hash_seed_token())));
  }
  if (cls != nullptr && is_usual(hash, cls)) {
    return Ref::steal(PyTuple_New(0));
  }
  return Ref::share(hash);
}

/// The default hash that a pickle stands for; nothing without an exception: none, since strings
/// hash differently here and the hash may depend on one.
Ref decode_hash(PyObject* hash, PyObject* cls) {
  if (!PyTuple_Check(hash)) return Ref::share(hash);
  if (PyTuple_GET_SIZE(hash) == 0) return unhashable(cls);
  if (PyTuple_GET_SIZE(hash) != 2) {
    PyErr_SetString(PyExc_ValueError, "the pickled default hash of a proxy is malformed");
    return Ref();
  }
  Py_ssize_t token = PyLong_AsSsize_t(PyTuple_GET_ITEM(hash, 1));
  if (token != hash_seed_token()) return Ref();
  return Ref::share(PyTuple_GET_ITEM(hash, 0));
}

PyObject* unpickle(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 3) {
    PyErr_Format(PyExc_TypeError,
                 "unpickle takes a factory, a default class and a default hash, not %zd arguments",
                 count);
    return nullptr;
  }
  Ref object = make_proxy(types.proxy, args[0]);
  if (!object) return nullptr;
  ProxyObject* proxy = as_proxy(object.get());
  PyObject* cls = count > 1 ? args[1] : Py_None;
  PyObject* hash = count > 2 ? args[2] : Py_None;
  if (cls != Py_None) {
    proxy->default_class = decode_class(cls).release();
    if (PyErr_Occurred()) return nullptr;
  }
  if (hash != Py_None) {
    proxy->default_hash = decode_hash(hash, proxy->default_class).release();
    if (PyErr_Occurred()) return nullptr;
  }
  settle_type(proxy);
  return object.release();
}

PyMethodDef kUnpickle = {"unpickle",
                         reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(unpickle)),
                         METH_FASTCALL,
                         "unpickle(factory, default_class=None, default_hash=None, /)\n--\n\n"
                         "The unresolved proxy that a pickle stands for."};

}  // namespace

PyObject* reduce(PyObject* self, PyObject*) {
  ProxyObject* proxy = as_proxy(self);
  if (proxy->factory == nullptr) {
    PyErr_SetString(PyExc_AttributeError,
                    "Proxy is not initialized: __proxy_factory__ is missing.");
    return nullptr;
  }
  Ref cls = proxy->default_class != nullptr ? encode_class(proxy->default_class) : Ref();
  if (PyErr_Occurred()) return nullptr;
  Ref hash;
  if (proxy->default_hash != nullptr) {
    hash = encode_hash(proxy->default_hash, cls ? proxy->default_class : nullptr);
    if (!hash) return nullptr;
  }
  PyObject* args[] = {proxy->factory, cls ? cls.get() : Py_None, hash.get()};
  const Py_ssize_t count = hash ? 3 : cls ? 2 : 1;

  Ref method = Ref::share(_PyType_Lookup(Py_TYPE(proxy->factory), names.reduce_proxy));
  if (method) return PyObject_Vectorcall(method.get(), args, count, nullptr);
  Ref tuple = Ref::steal(PyTuple_New(count));
  for (Py_ssize_t i = 0; tuple && i < count; ++i) {
    PyTuple_SET_ITEM(tuple.get(), i, Ref::share(args[i]).release());
  }
  return tuple ? PyTuple_Pack(2, unpickle_function, tuple.get()) : nullptr;
}

PyObject* reduce_ex(PyObject* self, PyObject*) {
  if (as_proxy(self)->plain) return reduce(self, nullptr);
  return PyObject_CallMethodNoArgs(self, names.reduce);
}

PyObject* make_unpickle() {
  if (unpickle_function == nullptr) {
    // Pickled by reference as <module>.<name>, so the module is the public one, and short.
    Ref module = Ref::steal(PyUnicode_InternFromString("proxystore_hpc.proxy"));
    if (!module) return nullptr;
    unpickle_function = PyCFunction_NewEx(&kUnpickle, nullptr, module.get());
  }
  return Ref::share(unpickle_function).release();
}

}  // namespace pshpc::proxy
