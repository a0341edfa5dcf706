#include "proxy/methods.h"

#include <vector>

#include "proxy/attributes.h"
#include "proxy/object.h"
#include "proxy/pickling.h"
#include "proxy/ufunc.h"

namespace pshpc::proxy {

namespace {

constexpr char kEnter[] = "__enter__";
constexpr char kExit[] = "__exit__";
constexpr char kAsyncEnter[] = "__aenter__";
constexpr char kAsyncExit[] = "__aexit__";
constexpr char kBuiltins[] = "builtins";
constexpr char kMath[] = "math";
constexpr char kRound[] = "round";
constexpr char kTrunc[] = "trunc";
constexpr char kFloor[] = "floor";
constexpr char kCeil[] = "ceil";

/// Calls the target's method of this name.
template <const char* name>
PyObject* call_method(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  Ref method = Ref::steal(PyObject_GetAttrString(target.get(), name));
  return method ? PyObject_Vectorcall(method.get(), args, count, keywords) : nullptr;
}

/// Calls a function of the standard library with the target before the other arguments.
template <const char* module_name, const char* name>
PyObject* call_function(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  Ref module = Ref::steal(PyImport_ImportModule(module_name));
  if (!module) return nullptr;
  Ref function = Ref::steal(PyObject_GetAttrString(module.get(), name));
  if (!function) return nullptr;
  std::vector<PyObject*> all{target.get()};
  all.insert(all.end(), args, args + count);
  return PyObject_Vectorcall(function.get(), all.data(), all.size(), nullptr);
}

template <PyTypeObject* type>
PyObject* convert(PyObject* self, PyObject*) {
  Ref target = target_of(self);
  return target ? PyObject_CallOneArg(reinterpret_cast<PyObject*>(type), target.get()) : nullptr;
}

PyObject* directory(PyObject* self, PyObject*) {
  Ref target = target_of(self);
  return target ? PyObject_Dir(target.get()) : nullptr;
}

PyObject* format(PyObject* self, PyObject* specification) {
  Ref target = target_of(self);
  return target ? PyObject_Format(target.get(), specification) : nullptr;
}

PyObject* length_hint(PyObject* self, PyObject*) {
  Ref target = target_of(self);
  Py_ssize_t hint = target ? PyObject_LengthHint(target.get(), 0) : -1;
  return hint >= 0 ? PyLong_FromSsize_t(hint) : nullptr;
}

// Not PyOS_FSPath: os.fspath() names the proxy in its error where the target is no path.
PyObject* file_system_path(PyObject* self, PyObject*) {
  Ref target = target_of(self);
  if (!target || PyUnicode_Check(target.get()) || PyBytes_Check(target.get())) {
    return target.release();
  }
  Ref method = Ref::steal(PyObject_GetAttrString(target.get(), "__fspath__"));
  if (method) return PyObject_CallNoArgs(method.get());
  if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return nullptr;
  PyErr_Clear();
  return target.release();
}

/// `isinstance(x, p)` and `issubclass(x, p)` where the target is a class.
template <int (*check)(PyObject*, PyObject*)>
PyObject* check_class(PyObject* self, PyObject* object) {
  Ref target = target_of(self);
  int answer = target ? check(object, target.get()) : -1;
  return answer >= 0 ? PyBool_FromLong(answer) : nullptr;
}

template <typename Function>
PyCFunction method(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

constexpr int kFastKeywords = METH_FASTCALL | METH_KEYWORDS;

}  // namespace

PyMethodDef kMethods[] = {
    {"__dir__", directory, METH_NOARGS, nullptr},
    {"__bytes__", convert<&PyBytes_Type>, METH_NOARGS, nullptr},
    {"__complex__", convert<&PyComplex_Type>, METH_NOARGS, nullptr},
    {"__reversed__", convert<&PyReversed_Type>, METH_NOARGS, nullptr},
    {"__format__", format, METH_O, nullptr},
    {"__fspath__", file_system_path, METH_NOARGS, nullptr},
    {"__length_hint__", length_hint, METH_NOARGS, nullptr},
    {"__round__", method(call_function<kBuiltins, kRound>), METH_FASTCALL, nullptr},
    {"__trunc__", method(call_function<kMath, kTrunc>), METH_FASTCALL, nullptr},
    {"__floor__", method(call_function<kMath, kFloor>), METH_FASTCALL, nullptr},
    {"__ceil__", method(call_function<kMath, kCeil>), METH_FASTCALL, nullptr},
    {"__enter__", method(call_method<kEnter>), kFastKeywords, nullptr},
    {"__exit__", method(call_method<kExit>), kFastKeywords, nullptr},
    {"__aenter__", method(call_method<kAsyncEnter>), kFastKeywords, nullptr},
    {"__aexit__", method(call_method<kAsyncExit>), kFastKeywords, nullptr},
    {"__instancecheck__", check_class<PyObject_IsInstance>, METH_O, nullptr},
    {"__subclasscheck__", check_class<PyObject_IsSubclass>, METH_O, nullptr},
    {"__array_ufunc__", method(array_ufunc), kFastKeywords, nullptr},
    {"__getattr__", get_missing_attribute, METH_O, nullptr},
    {"__setattr__", method(set_attribute), METH_FASTCALL, nullptr},
    {"__delattr__", delete_attribute, METH_O, nullptr},
    {"__reduce__", reduce, METH_NOARGS, nullptr},
    {"__reduce_ex__", reduce_ex, METH_O, nullptr},
    {"__init_subclass__", method(init_subclass), METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     nullptr},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace pshpc::proxy
