#include "proxy/names.h"

#include <cstring>
#include <string_view>

#include "proxy/ref.h"

namespace pshpc::proxy {

Names names;

namespace {

// __deepcopy__ and __copy__ are on this list to be missing: the target's would resolve the proxy
// and give a copy of the target. Without them, both copy functions go by __reduce_ex__.
// So is __array_struct__: by it numpy makes an array without the unit of dates. It has other ways.
constexpr const char* kOwn[] = {
    "__class__",    "__init__",    "__repr__",      "__hash__",         "__sizeof__",
    "__getattr__",  "__setattr__", "__delattr__",   "__copy__",         "__getattribute__",
    "__deepcopy__", "__reduce__",  "__reduce_ex__", "__array_struct__",
};

constexpr const char* kAlwaysForwarded[] = {
    "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__",
};

template <std::size_t size>
PyObject* make_set(const char* const (&texts)[size]) {
  Ref set = Ref::steal(PySet_New(nullptr));
  if (!set) return nullptr;
  for (const char* text : texts) {
    Ref name = Ref::steal(PyUnicode_InternFromString(text));
    if (!name || PySet_Add(set.get(), name.get()) < 0) return nullptr;
  }
  return set.release();
}

}  // namespace

int make_names() {
  names.class_ = PyUnicode_InternFromString("__class__");
  names.proxy_wrapped = PyUnicode_InternFromString("__proxy_wrapped__");
  names.getattr = PyUnicode_InternFromString("__getattr__");
  names.array_interface = PyUnicode_InternFromString("__array_interface__");
  names.orig_class = PyUnicode_InternFromString("__orig_class__");
  names.reduce = PyUnicode_InternFromString("__reduce__");
  names.reduce_proxy = PyUnicode_InternFromString("__reduce_proxy__");
  names.own = make_set(kOwn);
  names.always_forwarded = make_set(kAlwaysForwarded);
  return PyErr_Occurred() ? -1 : 0;
}

bool is_proxy_state(PyObject* name) {
  constexpr std::string_view prefix = "__proxy_";
  return PyUnicode_IS_COMPACT_ASCII(name) &&
         PyUnicode_GET_LENGTH(name) >= static_cast<Py_ssize_t>(prefix.size()) &&
         std::memcmp(PyUnicode_1BYTE_DATA(name), prefix.data(), prefix.size()) == 0;
}

}  // namespace pshpc::proxy
