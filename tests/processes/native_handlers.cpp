// Handlers of tests/processes/test_rpc_native.py.

#include <proxystore_hpc/rpc.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using proxystore_hpc::Call;
using proxystore_hpc::make_handler;

// Handlers that are alive, by their captures.
std::atomic<int> alive{0};

struct Counted {
  Counted() { ++alive; }
  Counted(const Counted&) { ++alive; }
  ~Counted() { --alive; }
};

PyObject* make_null(PyObject*, PyObject*) {
  const Counted counted;
  return make_handler([counted](Call&) {});
}

PyObject* make_sum(PyObject*, PyObject*) {
  return make_handler([](Call& call) {
    // Bytes below 4096 come in the body, others as the payload.
    const bool large = call.payload_size() > 0;
    const void* data = large ? call.payload() : call.body();
    const std::size_t count = (large ? call.payload_size() : call.body_size()) / sizeof(double);
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += static_cast<const double*>(data)[i];
    call.reply(&sum, sizeof sum);
  });
}

PyObject* make_zeros(PyObject*, PyObject*) {
  return make_handler([](Call& call) {
    std::size_t size = 0;
    if (call.body_size() != sizeof size) return call.fail("a size of 8 bytes is needed");
    size = *static_cast<const std::size_t*>(call.body());
    const std::string zeros(size, '\0');
    call.reply(zeros.data(), zeros.size());
  });
}

PyObject* make_about(PyObject*, PyObject*) {
  return make_handler([](Call& call) {
    const std::string about =
        std::to_string(call.provider()) + " " + std::to_string(call.remaining());
    call.reply(about.data(), about.size());
  });
}

PyObject* make_throw(PyObject*, PyObject*) {
  return make_handler([](Call& call) {
    if (call.body_size() == 0) throw 7;
    throw std::runtime_error(std::string(static_cast<const char*>(call.body()), call.body_size()));
  });
}

PyObject* make_later(PyObject*, PyObject*) {
  return make_handler([](Call& call) {
    const std::string body(static_cast<const char*>(call.body()), call.body_size());
    Call::Later later = call.defer();
    std::thread([later, body]() mutable {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (body == "fail") return later.fail("it was asked to");
      later.reply(body.data(), body.size());
    }).detach();
  });
}

PyObject* count_alive(PyObject*, PyObject*) { return PyLong_FromLong(alive); }

PyMethodDef methods[] = {
    {"make_null", make_null, METH_NOARGS, nullptr},
    {"make_sum", make_sum, METH_NOARGS, nullptr},
    {"make_zeros", make_zeros, METH_NOARGS, nullptr},
    {"make_about", make_about, METH_NOARGS, nullptr},
    {"make_throw", make_throw, METH_NOARGS, nullptr},
    {"make_later", make_later, METH_NOARGS, nullptr},
    {"count_alive", count_alive, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      "native_handlers",
                      nullptr,
                      -1,
                      methods,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_native_handlers() { return PyModule_Create(&module); }
