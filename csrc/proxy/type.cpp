#include "proxy/type.h"

#include <structmember.h>

#include <cstddef>
#include <vector>

#include "proxy/attributes.h"
#include "proxy/errors.h"
#include "proxy/methods.h"
#include "proxy/names.h"
#include "proxy/resolve.h"
#include "proxy/slots.h"

namespace pshpc::proxy {

Types types;

namespace {

// Pattern matching came with 3.10 as type flags, and so did these names.
constexpr unsigned long kPatternFlags = Py_TPFLAGS_SEQUENCE | Py_TPFLAGS_MAPPING;

constexpr char kDocumentation[] =
    "Proxy(factory, *, cache_defaults=False, target=None)\n--\n\n"
    "Stands for the object that `factory()` returns, and calls it when the object is first used.\n"
    "\n"
    "A pickle, or copy, of a proxy holds the factory and never the object. Threads that use an\n"
    "unresolved proxy at once call its factory once.\n"
    "\n"
    "Args:\n"
    "    factory: Called without arguments; returns the object.\n"
    "    cache_defaults: Remember class and hash of `target`, so that `isinstance` and `hash` do\n"
    "        not resolve. They travel with the proxy.\n"
    "    target: The object, if it is at hand. `None` means that it is not.\n"
    "\n"
    "Raises:\n"
    "    TypeError: `factory` cannot be called.\n"
    "    ProxyResolveError: On first use, if the factory failed; `cause` has its exception.\n";

PyObject* allocate(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  as_proxy(self)->vectorcall = call_target;
  as_proxy(self)->plain = is_plain_type(type);
  return self;
}

int set_factory(ProxyObject* proxy, PyObject* factory) {
  if (!PyCallable_Check(factory)) {
    PyErr_SetString(PyExc_TypeError, "Factory must be callable.");
    return -1;
  }
  Py_XSETREF(proxy->factory, Ref::share(factory).release());
  return 0;
}

int cache_defaults(ProxyObject* proxy, PyObject* target) {
  proxy->default_class = PyObject_GetAttr(target, names.class_);
  if (proxy->default_class == nullptr) return -1;
  Py_hash_t hash = PyObject_Hash(target);
  if (hash != -1) {
    proxy->default_hash = PyLong_FromSsize_t(hash);
  } else if (PyErr_ExceptionMatches(PyExc_TypeError)) {
    Ref unhashable = take_exception();
    PyException_SetTraceback(unhashable.get(), Py_None);
    proxy->default_hash = unhashable.release();
  }
  return proxy->default_hash != nullptr ? 0 : -1;
}

int initialize(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"factory", "cache_defaults", "target", nullptr};
  PyObject* factory = nullptr;
  PyObject* target = Py_None;
  int caching = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$pO:Proxy", const_cast<char**>(keywords),
                                   &factory, &caching, &target)) {
    return -1;
  }
  ProxyObject* proxy = as_proxy(self);
  if (set_factory(proxy, factory) < 0) return -1;
  Py_CLEAR(proxy->default_class);
  Py_CLEAR(proxy->default_hash);
  if (target == Py_None) {
    settle_type(proxy);
    return 0;
  }
  set_target(proxy, target);
  return caching ? cache_defaults(proxy, target) : 0;
}

/// `Proxy(...)` itself, past the argument tuple that type.__call__ makes.
PyObject* construct(PyObject* cls, PyObject* const* args, size_t flagged_count,
                    PyObject* keywords) {
  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  const Py_ssize_t count = PyVectorcall_NARGS(flagged_count);
  if (count == 1 && keywords == nullptr) return make_proxy(type, args[0]).release();

  Ref self = Ref::steal(allocate(type, nullptr, nullptr));
  if (!self) return nullptr;
  Ref positional = Ref::steal(PyTuple_New(count));
  if (!positional) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyTuple_SET_ITEM(positional.get(), i, Ref::share(args[i]).release());
  }
  Ref named;
  if (keywords != nullptr) {
    named = Ref::steal(PyDict_New());
    if (!named) return nullptr;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keywords); ++i) {
      if (PyDict_SetItem(named.get(), PyTuple_GET_ITEM(keywords, i), args[count + i]) < 0) {
        return nullptr;
      }
    }
  }
  return initialize(self.get(), positional.get(), named.get()) < 0 ? nullptr : self.release();
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  ProxyObject* proxy = as_proxy(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(proxy->factory);
  Py_VISIT(proxy->target);
  Py_VISIT(proxy->default_class);
  Py_VISIT(proxy->default_hash);
  return 0;
}

int clear(PyObject* self) {
  ProxyObject* proxy = as_proxy(self);
  Py_CLEAR(proxy->factory);
  Py_CLEAR(proxy->target);
  Py_CLEAR(proxy->default_class);
  Py_CLEAR(proxy->default_hash);
  return 0;
}

void deallocate(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  // A long chain of proxies of proxies must not overflow the C stack.
  Py_TRASHCAN_BEGIN(self, deallocate);
  if (as_proxy(self)->weak_references != nullptr) PyObject_ClearWeakRefs(self);
  clear(self);
  type->tp_free(self);
  Py_DECREF(type);
  Py_TRASHCAN_END;
}

PyObject* describe(ProxyObject* proxy, PyObject* type_name) {
  PyObject* factory = proxy->factory != nullptr ? proxy->factory : Py_None;
  if (proxy->target == nullptr) {
    return PyUnicode_FromFormat("<%U at %p with factory %R>", type_name, proxy, factory);
  }
  Ref target = Ref::share(proxy->target);
  return PyUnicode_FromFormat("<%U at %p wrapping %R at %p with factory %R>", type_name, proxy,
                              target.get(), target.get(), factory);
}

/// Does not resolve.
PyObject* represent(PyObject* self) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(self));
  Ref type_name = Ref::steal(PyObject_GetAttrString(type, "__name__"));
  if (!type_name) return nullptr;
  int nested = Py_ReprEnter(self);
  if (nested < 0) return nullptr;
  if (nested > 0) return PyUnicode_FromFormat("<%U at %p ...>", type_name.get(), self);
  PyObject* text = describe(as_proxy(self), type_name.get());
  Py_ReprLeave(self);
  return text;
}

/// A field that can be set and deleted, and that raises AttributeError while it is empty.
template <PyObject* ProxyObject::* field>
PyObject* get_field(PyObject* self, void* name) {
  PyObject* value = as_proxy(self)->*field;
  if (value == nullptr) PyErr_SetString(PyExc_AttributeError, static_cast<const char*>(name));
  return Ref::share(value).release();
}

/// A field that reads as None while it is empty.
template <PyObject* ProxyObject::* field>
PyObject* get_optional_field(PyObject* self, void*) {
  PyObject* value = as_proxy(self)->*field;
  return Ref::share(value != nullptr ? value : Py_None).release();
}

template <PyObject* ProxyObject::* field, bool none_is_empty>
int set_field(PyObject* self, PyObject* value, void* name) {
  PyObject*& place = as_proxy(self)->*field;
  if (value == nullptr && place == nullptr) {
    PyErr_SetString(PyExc_AttributeError, static_cast<const char*>(name));
    return -1;
  }
  Py_XSETREF(place, Ref::share(none_is_empty && value == Py_None ? nullptr : value).release());
  settle_type(as_proxy(self));
  return 0;
}

PyObject* get_class(PyObject* self, void*) { return class_of(self).release(); }

int set_class(PyObject* self, PyObject* value, void*) {
  Ref target = target_of(self);
  return target ? PyObject_SetAttr(target.get(), names.class_, value) : -1;
}

PyObject* get_wrapped(PyObject* self, void*) { return resolve(as_proxy(self)).release(); }

PyObject* get_resolved(PyObject* self, void*) {
  return PyBool_FromLong(as_proxy(self)->target != nullptr);
}

template <PyObject* ProxyObject::* field>
constexpr PyGetSetDef optional_field(const char* name, const char* documentation) {
  return {name, get_optional_field<field>, set_field<field, true>, documentation,
          const_cast<char*>(name)};
}

template <PyObject* ProxyObject::* field>
constexpr PyGetSetDef plain_field(const char* name, const char* documentation) {
  return {name, get_field<field>, set_field<field, false>, documentation, const_cast<char*>(name)};
}

PyGetSetDef kProperties[] = {
    plain_field<&ProxyObject::factory>("__proxy_factory__", "Returns the target when called."),
    plain_field<&ProxyObject::target>("__proxy_target__", "The target, once resolved."),
    optional_field<&ProxyObject::default_class>("__proxy_default_class__",
                                                "Class of the target while unresolved, or None."),
    optional_field<&ProxyObject::default_hash>(
        "__proxy_default_hash__",
        "Hash of the target while unresolved, or the exception that hash() raises, or None."),
    {"__proxy_wrapped__", get_wrapped, set_field<&ProxyObject::target, false>,
     "The target, resolved by reading it.", const_cast<char*>("__proxy_target__")},
    {"__proxy_resolved__", get_resolved, nullptr, "Whether the target is known.", nullptr},
    {"__class__", get_class, set_class, "The class of the target.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef kMembers[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(ProxyObject, vectorcall), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ProxyObject, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

template <typename Pointer>
PyType_Slot slot(int id, Pointer* pointer) {
  return {id, reinterpret_cast<void*>(pointer)};
}

PyTypeObject* make_type(unsigned long flags, std::vector<PyType_Slot> slots, PyObject* bases) {
  slots.insert(slots.end(), {slot(Py_tp_dealloc, deallocate),
                             slot(Py_tp_traverse, traverse),
                             slot(Py_tp_clear, clear),
                             {0, nullptr}});
  PyType_Spec spec = {"proxystore_hpc.proxy.Proxy", sizeof(ProxyObject), 0,
                      static_cast<unsigned>(Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                            Py_TPFLAGS_HAVE_VECTORCALL | flags),
                      slots.data()};
  return reinterpret_cast<PyTypeObject*>(PyType_FromSpecWithBases(&spec, bases));
}

/// A C slot for setting attributes would make CPython refuse `object.__setattr__(proxy, ...)`,
/// which is how subclasses set their own state; a method in its place is as good and does not.
int use_methods_to_set_attributes(PyObject* type) {
  for (const char* name : {"__setattr__", "__delattr__"}) {
    Ref method = Ref::steal(PyObject_GetAttrString(type, name));
    if (!method || PyObject_SetAttrString(type, name, method.get()) < 0) return -1;
  }
  return 0;
}

}  // namespace

void set_target(ProxyObject* proxy, PyObject* target) {
  Py_XSETREF(proxy->target, Ref::share(target).release());
  settle_type(proxy);
}

void settle_type(ProxyObject* proxy) {
  if (!proxy->plain) return;
  PyTypeObject* type = types.proxy;
  const PyTypeObject* known = nullptr;
  if (proxy->target != nullptr) {
    known = Py_TYPE(proxy->target);
  } else if (proxy->default_class != nullptr && PyType_Check(proxy->default_class)) {
    known = reinterpret_cast<PyTypeObject*>(proxy->default_class);
  }
  const unsigned long pattern = known != nullptr ? known->tp_flags & kPatternFlags : 0;
  if (pattern == Py_TPFLAGS_SEQUENCE) type = types.sequence;
  if (pattern == Py_TPFLAGS_MAPPING) type = types.mapping;
  PyTypeObject* old = Py_TYPE(proxy);
  if (type == old) return;
  Py_INCREF(type);
  Py_SET_TYPE(as_object(proxy), type);
  Py_DECREF(old);
}

Ref make_proxy(PyTypeObject* type, PyObject* factory) {
  Ref self = Ref::steal(allocate(type, nullptr, nullptr));
  if (!self || set_factory(as_proxy(self.get()), factory) < 0) return Ref();
  return self;
}

int make_types() {
  std::vector<PyType_Slot> slots = {
      slot(Py_tp_doc, const_cast<char*>(kDocumentation)),
      slot(Py_tp_new, allocate),
      slot(Py_tp_init, initialize),
      slot(Py_tp_repr, represent),
      slot(Py_tp_getattro, get_attribute),
      slot(Py_tp_methods, kMethods),
      slot(Py_tp_getset, kProperties),
      slot(Py_tp_members, kMembers),
  };
  append_forwarding_slots(slots);
  types.proxy = make_type(Py_TPFLAGS_BASETYPE, std::move(slots), nullptr);
  if (types.proxy == nullptr) return -1;
  auto* base = reinterpret_cast<PyObject*>(types.proxy);
  if (use_methods_to_set_attributes(base) < 0) return -1;

  Ref bases = Ref::steal(PyTuple_Pack(1, base));
  if (!bases) return -1;
  types.sequence = make_type(Py_TPFLAGS_SEQUENCE, {}, bases.get());
  types.mapping = make_type(Py_TPFLAGS_MAPPING, {}, bases.get());
  if (types.sequence == nullptr || types.mapping == nullptr) return -1;
  for (PyTypeObject* type : {types.proxy, types.sequence, types.mapping}) {
    type->tp_vectorcall = construct;
  }
  return 0;
}

}  // namespace pshpc::proxy
