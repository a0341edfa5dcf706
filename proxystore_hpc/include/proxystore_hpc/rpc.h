// Handlers of remote procedure calls in C++ (C++11 or newer), for extension modules.
//
//   #include <proxystore_hpc/rpc.h>          // folder: python -c "import proxystore_hpc as p;
//                                            //                    print(p.get_include())"
//   PyObject* make_norm() {
//     return proxystore_hpc::make_handler([](proxystore_hpc::Call& call) {
//       double sum = 0;
//       const auto* values = static_cast<const double*>(call.data());
//       for (std::size_t i = 0; i < call.size() / sizeof(double); ++i)
//         sum += values[i] * values[i];
//       call.reply(&sum, sizeof sum);
//     });
//   }
//
// In Python: engine.register("norm", module.make_norm(), codec="raw").
//
// A handler runs on the engine's progress thread, or on a thread that waits for an answer of its
// own, without the GIL. It must neither block nor touch Python objects, and may run on several
// threads at once. What it throws is answered as an error.
//
// Only the C structs below cross the border between the modules, so that they may be built by
// different compilers.

#ifndef PROXYSTORE_HPC_RPC_H
#define PROXYSTORE_HPC_RPC_H

#include <stddef.h>
#include <stdint.h>

#define PROXYSTORE_HPC_RPC_ABI 1
#define PROXYSTORE_HPC_RPC_CAPSULE "proxystore_hpc.rpc.Handler"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pshpc_call pshpc_call;
typedef struct pshpc_deferred pshpc_deferred;

typedef struct pshpc_call_functions {
  const void* (*body)(const pshpc_call*, size_t* size);
  void* (*payload)(const pshpc_call*, size_t* size);
  uint16_t (*provider)(const pshpc_call*);
  // Seconds that the caller still waits; infinity: for ever.
  double (*remaining)(const pshpc_call*);
  // Each answers once; bytes are copied before they return.
  void (*reply)(pshpc_call*, const void* body, size_t size);
  void (*fail)(pshpc_call*, const char* message);
  // To answer later, from any thread: exactly one of the two below must follow.
  pshpc_deferred* (*defer)(pshpc_call*);
  void (*reply_later)(pshpc_deferred*, const void* body, size_t size);
  void (*fail_later)(pshpc_deferred*, const char* message);
} pshpc_call_functions;

// What the capsule points to.
typedef struct pshpc_handler {
  uint32_t abi;  // PROXYSTORE_HPC_RPC_ABI
  void* self;
  void (*handle)(void* self, const pshpc_call_functions*, pshpc_call*);
  void (*destroy)(
      struct pshpc_handler*);  // by the last who holds it, on any thread, without the GIL
} pshpc_handler;

#ifdef __cplusplus
}

#include <Python.h>

#include <exception>
#include <utility>

namespace proxystore_hpc {

// One request, for the duration of the handler.
class Call {
 public:
  Call(const pshpc_call_functions* functions, pshpc_call* call)
      : functions_(functions), call_(call) {}

  // What a caller with codec="raw" sent, wherever it came.
  const void* data() const { return payload_size() > 0 ? payload() : body(); }
  size_t size() const { return payload_size() > 0 ? payload_size() : body_size(); }

  // The message as it came: small data as the body, large data as the payload; with pickled
  // arguments, both.
  const void* body() const { return functions_->body(call_, &ignored_); }
  size_t body_size() const { return functions_->body(call_, &ignored_), ignored_; }
  void* payload() const { return functions_->payload(call_, &ignored_); }
  size_t payload_size() const { return functions_->payload(call_, &ignored_), ignored_; }
  uint16_t provider() const { return functions_->provider(call_); }
  double remaining() const { return functions_->remaining(call_); }

  void reply(const void* bytes = nullptr, size_t size = 0) {
    functions_->reply(call_, bytes, size);
    answered_ = true;
  }
  void fail(const char* message) {
    functions_->fail(call_, message);
    answered_ = true;
  }
  bool answered() const { return answered_; }

  // Answers later. Answer exactly once.
  class Later {
   public:
    Later(const pshpc_call_functions* functions, pshpc_deferred* deferred)
        : functions_(functions), deferred_(deferred) {}
    void reply(const void* bytes = nullptr, size_t size = 0) {
      functions_->reply_later(deferred_, bytes, size);
    }
    void fail(const char* message) { functions_->fail_later(deferred_, message); }

   private:
    const pshpc_call_functions* functions_;
    pshpc_deferred* deferred_;
  };
  Later defer() {
    answered_ = true;
    return Later(functions_, functions_->defer(call_));
  }

 private:
  const pshpc_call_functions* functions_;
  pshpc_call* call_;
  mutable size_t ignored_ = 0;
  bool answered_ = false;
};

namespace detail {

template <class Function>
struct Held {
  pshpc_handler handler;
  Function function;

  static void handle(void* self, const pshpc_call_functions* functions, pshpc_call* raw) {
    Call call(functions, raw);
    try {
      static_cast<Held*>(self)->function(call);
      if (!call.answered()) call.reply();
    } catch (const std::exception& error) {
      if (!call.answered()) call.fail(error.what());
    } catch (...) {
      if (!call.answered()) call.fail("the handler threw something that is no std::exception");
    }
  }
  static void destroy(pshpc_handler* handler) { delete static_cast<Held*>(handler->self); }
};

inline void destroy_capsule(PyObject* capsule) {
  void* held = PyCapsule_GetPointer(capsule, PROXYSTORE_HPC_RPC_CAPSULE);
  if (held == nullptr) return PyErr_Clear();
  pshpc_handler* handler = static_cast<pshpc_handler*>(held);
  handler->destroy(handler);
}

}  // namespace detail

// A new reference to a capsule with a handler, or null with an exception set. `function` is called
// with a Call&. Needs the GIL.
template <class Function>
PyObject* make_handler(Function function) {
  typedef detail::Held<Function> Held;
  Held* held = new Held{{PROXYSTORE_HPC_RPC_ABI, nullptr, &Held::handle, &Held::destroy},
                        std::move(function)};
  held->handler.self = held;
  PyObject* capsule =
      PyCapsule_New(&held->handler, PROXYSTORE_HPC_RPC_CAPSULE, &detail::destroy_capsule);
  if (capsule == nullptr) delete held;
  return capsule;
}

}  // namespace proxystore_hpc
#endif

#endif
