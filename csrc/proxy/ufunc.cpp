#include "proxy/ufunc.h"

#include <string_view>
#include <vector>

namespace pshpc::proxy {

namespace {

PyObject* power(PyObject* base, PyObject* exponent) {
  return PyNumber_Power(base, exponent, Py_None);
}

template <int operation>
PyObject* compare(PyObject* left, PyObject* right) {
  return PyObject_RichCompare(left, right, operation);
}

struct Operator {
  std::string_view ufunc;
  binaryfunc apply;
};

constexpr Operator kOperators[] = {
    {"add", PyNumber_Add},
    {"subtract", PyNumber_Subtract},
    {"multiply", PyNumber_Multiply},
    {"matmul", PyNumber_MatrixMultiply},
    {"divide", PyNumber_TrueDivide},
    {"true_divide", PyNumber_TrueDivide},
    {"floor_divide", PyNumber_FloorDivide},
    {"remainder", PyNumber_Remainder},
    {"divmod", PyNumber_Divmod},
    {"power", power},
    {"left_shift", PyNumber_Lshift},
    {"right_shift", PyNumber_Rshift},
    {"bitwise_and", PyNumber_And},
    {"bitwise_xor", PyNumber_Xor},
    {"bitwise_or", PyNumber_Or},
    {"less", compare<Py_LT>},
    {"less_equal", compare<Py_LE>},
    {"equal", compare<Py_EQ>},
    {"not_equal", compare<Py_NE>},
    {"greater", compare<Py_GT>},
    {"greater_equal", compare<Py_GE>},
};

/// The proxies of a tuple such as `out=` replaced by their targets; anything else, unwrapped.
Ref unwrap_value(PyObject* value) {
  if (!PyTuple_CheckExact(value)) return unwrap(value);
  Ref tuple = Ref::steal(PyTuple_New(PyTuple_GET_SIZE(value)));
  for (Py_ssize_t i = 0; tuple && i < PyTuple_GET_SIZE(value); ++i) {
    Ref item = unwrap(PyTuple_GET_ITEM(value, i));
    if (!item) return Ref();
    PyTuple_SET_ITEM(tuple.get(), i, item.release());
  }
  return tuple;
}

/// 1 or 0; -1 with an exception set.
int is_array(PyObject* object) {
  Ref numpy = Ref::steal(PyImport_ImportModule("numpy"));
  Ref array = Ref::steal(numpy ? PyObject_GetAttrString(numpy.get(), "ndarray") : nullptr);
  return array ? PyObject_IsInstance(object, array.get()) : -1;
}

/// The Python operator behind a ufunc. Null without an exception: there is none.
const Operator* find_operator(PyObject* ufunc) {
  Ref name = Ref::steal(PyObject_GetAttrString(ufunc, "__name__"));
  const char* text = name ? PyUnicode_AsUTF8(name.get()) : nullptr;
  for (const Operator& candidate : kOperators) {
    if (text != nullptr && candidate.ufunc == text) return &candidate;
  }
  return nullptr;
}

/// `array + proxy` arrives as the ufunc, because numpy does not defer to a type that has
/// `__array_ufunc__`; but it may have to defer to the target (a sparse matrix). So the operator
/// is tried again with the target. Nothing without an exception: this is no such call.
Ref retry_operator(PyObject* ufunc, const std::vector<Ref>& values) {
  int found = is_array(values[0].get());
  if (found == 0) found = is_array(values[1].get());
  if (found <= 0) return Ref();
  const Operator* match = find_operator(ufunc);
  return match != nullptr ? Ref::steal(match->apply(values[0].get(), values[1].get())) : Ref();
}

}  // namespace

PyObject* array_ufunc(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  if (count < 2 || !PyUnicode_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "__array_ufunc__ takes a ufunc, a method name and its inputs");
    return nullptr;
  }
  PyObject* ufunc = args[0];
  const Py_ssize_t inputs = count - 2;
  const Py_ssize_t total = inputs + (keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0);
  std::vector<Ref> values;
  values.reserve(total);
  for (Py_ssize_t i = 0; i < total; ++i) {
    values.push_back(unwrap_value(args[2 + i]));
    if (!values.back()) return nullptr;
  }
  if (total == 2 && inputs == 2 && PyUnicode_CompareWithASCIIString(args[1], "__call__") == 0) {
    Ref result = retry_operator(ufunc, values);
    if (result || PyErr_Occurred()) return result.release();
  }
  Ref method = Ref::steal(PyObject_GetAttr(ufunc, args[1]));
  if (!method) return nullptr;
  std::vector<PyObject*> borrowed;
  borrowed.reserve(values.size());
  for (const Ref& value : values) borrowed.push_back(value.get());
  return PyObject_Vectorcall(method.get(), borrowed.data(), inputs, keywords);
}

}  // namespace pshpc::proxy
