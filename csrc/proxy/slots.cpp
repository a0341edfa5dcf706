#include "proxy/slots.h"

#include "proxy/buffer.h"
#include "proxy/names.h"
#include "proxy/object.h"

namespace pshpc::proxy {

namespace {

template <unaryfunc operation>
PyObject* unary(PyObject* self) {
  Ref target = target_of(self);
  return target ? operation(target.get()) : nullptr;
}

template <lenfunc operation>
Py_ssize_t measure(PyObject* self) {
  Ref target = target_of(self);
  return target ? operation(target.get()) : -1;
}

/// Either operand may be the proxy: CPython calls this for reflected operations too.
template <binaryfunc operation>
PyObject* binary(PyObject* left, PyObject* right) {
  Ref a = unwrap(left);
  if (!a) return nullptr;
  Ref b = unwrap(right);
  return b ? operation(a.get(), b.get()) : nullptr;
}

template <ternaryfunc operation>
PyObject* ternary(PyObject* left, PyObject* right, PyObject* third) {
  Ref a = unwrap(left);
  if (!a) return nullptr;
  Ref b = unwrap(right);
  if (!b) return nullptr;
  Ref c = unwrap(third);
  return c ? operation(a.get(), b.get(), c.get()) : nullptr;
}

/// `p += x` leaves p a proxy, of the result.
PyObject* keep_result(PyObject* self, Ref result) {
  if (!result) return nullptr;
  if (as_proxy(self)->plain) {
    set_target(as_proxy(self), result.get());
  } else if (PyObject_SetAttr(self, names.proxy_wrapped, result.get()) < 0) {
    return nullptr;
  }
  return Ref::share(self).release();
}

template <binaryfunc operation>
PyObject* in_place(PyObject* self, PyObject* other) {
  return keep_result(self, Ref::steal(binary<operation>(self, other)));
}

PyObject* in_place_power(PyObject* self, PyObject* other, PyObject* modulus) {
  return keep_result(self, Ref::steal(ternary<PyNumber_InPlacePower>(self, other, modulus)));
}

PyObject* as_index(PyObject* self) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  PyNumberMethods* number = Py_TYPE(target.get())->tp_as_number;
  // As in ProxyStore an integer without __index__ will do, but nothing that int() would round.
  if (number != nullptr && !number->nb_index && number->nb_int && !number->nb_float) {
    return PyNumber_Long(target.get());
  }
  return PyNumber_Index(target.get());
}

int as_bool(PyObject* self) {
  Ref target = target_of(self);
  return target ? PyObject_IsTrue(target.get()) : -1;
}

int contains(PyObject* self, PyObject* value) {
  Ref target = target_of(self);
  return target ? PySequence_Contains(target.get(), value) : -1;
}

PyObject* get_item(PyObject* self, PyObject* key) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  // Past PyObject_GetItem, which the interpreter has just been through for the proxy.
  PyMappingMethods* mapping = Py_TYPE(target.get())->tp_as_mapping;
  if (mapping != nullptr && mapping->mp_subscript) {
    return mapping->mp_subscript(target.get(), key);
  }
  return PyObject_GetItem(target.get(), key);
}

int set_item(PyObject* self, PyObject* key, PyObject* value) {
  Ref target = target_of(self);
  if (!target) return -1;
  return value != nullptr ? PyObject_SetItem(target.get(), key, value)
                          : PyObject_DelItem(target.get(), key);
}

// PySequence_GetItem has already added the length to a negative index: what is still negative is
// out of range, and the target's own slot must see it so.
PyObject* get_item_at(PyObject* self, Py_ssize_t index) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  PySequenceMethods* sequence = Py_TYPE(target.get())->tp_as_sequence;
  if (sequence != nullptr && sequence->sq_item) return sequence->sq_item(target.get(), index);
  Ref key = Ref::steal(PyLong_FromSsize_t(index));
  return key ? PyObject_GetItem(target.get(), key.get()) : nullptr;
}

int set_item_at(PyObject* self, Py_ssize_t index, PyObject* value) {
  Ref target = target_of(self);
  if (!target) return -1;
  PySequenceMethods* sequence = Py_TYPE(target.get())->tp_as_sequence;
  if (sequence != nullptr && sequence->sq_ass_item) {
    return sequence->sq_ass_item(target.get(), index, value);
  }
  Ref key = Ref::steal(PyLong_FromSsize_t(index));
  if (!key) return -1;
  return value != nullptr ? PyObject_SetItem(target.get(), key.get(), value)
                          : PyObject_DelItem(target.get(), key.get());
}

PyObject* compare(PyObject* self, PyObject* other, int operation) {
  Ref a = target_of(self);
  if (!a) return nullptr;
  Ref b = unwrap(other);
  return b ? PyObject_RichCompare(a.get(), b.get(), operation) : nullptr;
}

Py_hash_t hash(PyObject* self) {
  ProxyObject* proxy = as_proxy(self);
  PyObject* cached = proxy->target == nullptr ? proxy->default_hash : nullptr;
  if (cached == nullptr) {
    Ref target = target_of(self);
    return target ? PyObject_Hash(target.get()) : -1;
  }
  if (PyExceptionInstance_Check(cached)) {
    // One instance is raised again and again: without this it would collect, and keep alive, the
    // frames of every time.
    PyException_SetTraceback(cached, Py_None);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(cached)), cached);
    return -1;
  }
  Py_ssize_t value = PyLong_AsSsize_t(cached);
  if (value != -1) return value;
  if (!PyErr_Occurred()) return -2;
  if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
  PyErr_Clear();
  return PyObject_Hash(cached);
}

PyObject* next(PyObject* self) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  if (!PyIter_Check(target.get())) {
    PyErr_Format(PyExc_TypeError, "'%.200s' object is not an iterator",
                 Py_TYPE(target.get())->tp_name);
    return nullptr;
  }
  return Py_TYPE(target.get())->tp_iternext(target.get());
}

template <unaryfunc PyAsyncMethods::* slot>
PyObject* asynchronous(PyObject* self, const char* message) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  PyAsyncMethods* methods = Py_TYPE(target.get())->tp_as_async;
  if (methods != nullptr && methods->*slot) return (methods->*slot)(target.get());
  PyErr_Format(PyExc_TypeError, message, Py_TYPE(target.get())->tp_name);
  return nullptr;
}

PyObject* async_iterator(PyObject* self) {
  return asynchronous<&PyAsyncMethods::am_aiter>(
      self, "'async for' requires an object with __aiter__ method, got %.100s");
}

PyObject* async_next(PyObject* self) {
  return asynchronous<&PyAsyncMethods::am_anext>(
      self, "'async for' requires an iterator with __anext__ method, got %.100s");
}

PyObject* await_target(PyObject* self) {
  Ref target = target_of(self);
  if (!target) return nullptr;
  if (PyGen_CheckExact(target.get())) {
    // A coroutine made by types.coroutine is awaitable without a slot that says so; only an `await`
    // accepts it.
    Ref module = Ref::steal(PyImport_ImportModule("proxystore_hpc.proxy._awaiting"));
    if (!module) return nullptr;
    Ref coroutine = Ref::steal(PyObject_CallMethod(module.get(), "awaited", "O", target.get()));
    return coroutine ? Py_TYPE(coroutine.get())->tp_as_async->am_await(coroutine.get()) : nullptr;
  }
  return asynchronous<&PyAsyncMethods::am_await>(
      self, "object %.100s can't be used in 'await' expression");
}

template <typename Function>
constexpr PyType_Slot slot(int id, Function* function) {
  return {id, reinterpret_cast<void*>(function)};
}

}  // namespace

PyObject* call_target(PyObject* self, PyObject* const* args, size_t flagged_count,
                      PyObject* keywords) {
  Ref target = target_of(self);
  return target ? PyObject_Vectorcall(target.get(), args, flagged_count, keywords) : nullptr;
}

void append_forwarding_slots(std::vector<PyType_Slot>& slots) {
  slots.insert(slots.end(),
               {
                   slot(Py_tp_call, PyVectorcall_Call),
                   slot(Py_tp_str, unary<PyObject_Str>),
                   slot(Py_tp_hash, hash),
                   slot(Py_tp_richcompare, compare),
                   slot(Py_tp_iter, unary<PyObject_GetIter>),
                   slot(Py_tp_iternext, next),
                   slot(Py_bf_getbuffer, get_buffer),

                   slot(Py_am_await, await_target),
                   slot(Py_am_aiter, async_iterator),
                   slot(Py_am_anext, async_next),

                   slot(Py_mp_length, measure<PyObject_Size>),
                   slot(Py_mp_subscript, get_item),
                   slot(Py_mp_ass_subscript, set_item),
                   slot(Py_sq_length, measure<PyObject_Size>),
                   slot(Py_sq_item, get_item_at),
                   slot(Py_sq_ass_item, set_item_at),
                   slot(Py_sq_contains, contains),

                   slot(Py_nb_bool, as_bool),
                   slot(Py_nb_int, unary<PyNumber_Long>),
                   slot(Py_nb_float, unary<PyNumber_Float>),
                   slot(Py_nb_index, as_index),
                   slot(Py_nb_negative, unary<PyNumber_Negative>),
                   slot(Py_nb_positive, unary<PyNumber_Positive>),
                   slot(Py_nb_absolute, unary<PyNumber_Absolute>),
                   slot(Py_nb_invert, unary<PyNumber_Invert>),

                   slot(Py_nb_add, binary<PyNumber_Add>),
                   slot(Py_nb_subtract, binary<PyNumber_Subtract>),
                   slot(Py_nb_multiply, binary<PyNumber_Multiply>),
                   slot(Py_nb_matrix_multiply, binary<PyNumber_MatrixMultiply>),
                   slot(Py_nb_true_divide, binary<PyNumber_TrueDivide>),
                   slot(Py_nb_floor_divide, binary<PyNumber_FloorDivide>),
                   slot(Py_nb_remainder, binary<PyNumber_Remainder>),
                   slot(Py_nb_divmod, binary<PyNumber_Divmod>),
                   slot(Py_nb_power, ternary<PyNumber_Power>),
                   slot(Py_nb_lshift, binary<PyNumber_Lshift>),
                   slot(Py_nb_rshift, binary<PyNumber_Rshift>),
                   slot(Py_nb_and, binary<PyNumber_And>),
                   slot(Py_nb_xor, binary<PyNumber_Xor>),
                   slot(Py_nb_or, binary<PyNumber_Or>),

                   slot(Py_nb_inplace_add, in_place<PyNumber_InPlaceAdd>),
                   slot(Py_nb_inplace_subtract, in_place<PyNumber_InPlaceSubtract>),
                   slot(Py_nb_inplace_multiply, in_place<PyNumber_InPlaceMultiply>),
                   slot(Py_nb_inplace_matrix_multiply, in_place<PyNumber_InPlaceMatrixMultiply>),
                   slot(Py_nb_inplace_true_divide, in_place<PyNumber_InPlaceTrueDivide>),
                   slot(Py_nb_inplace_floor_divide, in_place<PyNumber_InPlaceFloorDivide>),
                   slot(Py_nb_inplace_remainder, in_place<PyNumber_InPlaceRemainder>),
                   slot(Py_nb_inplace_power, in_place_power),
                   slot(Py_nb_inplace_lshift, in_place<PyNumber_InPlaceLshift>),
                   slot(Py_nb_inplace_rshift, in_place<PyNumber_InPlaceRshift>),
                   slot(Py_nb_inplace_and, in_place<PyNumber_InPlaceAnd>),
                   slot(Py_nb_inplace_xor, in_place<PyNumber_InPlaceXor>),
                   slot(Py_nb_inplace_or, in_place<PyNumber_InPlaceOr>),
               });
}

}  // namespace pshpc::proxy
