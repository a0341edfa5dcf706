#include "proxy/resolve.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "proxy/errors.h"
#include "proxy/names.h"

namespace pshpc::proxy {

namespace {

// Python runs signal handlers only when asked to, so that a waiting main thread looks this often.
constexpr std::chrono::milliseconds kSignalInterval{100};

/// One call of a factory that other threads wait for; exists only while somebody does.
struct Resolution {
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;  // guarded by the mutex, the rest by the GIL
  Ref cause;           // why it failed, if it did
};

// Both are guarded by the GIL.
std::unordered_map<ProxyObject*, std::shared_ptr<Resolution>> awaited;
std::unordered_map<unsigned long, ProxyObject*> waits_for;

// A forked child has none of the threads that were resolving or waiting in its parent.
std::atomic<unsigned> fork_generation{0};
unsigned tables_generation = 0;

void forget_parent() {
  if (tables_generation == fork_generation) return;
  tables_generation = fork_generation;
  // Leaked: a condition variable that the parent's threads wait on cannot be destroyed.
  // NOLINTBEGIN(clang-analyzer-cplusplus.NewDeleteLeaks)
  [[maybe_unused]] const auto* kept =
      std::make_unique<decltype(awaited)>(std::move(awaited)).release();
  awaited.clear();
  // NOLINTEND(clang-analyzer-cplusplus.NewDeleteLeaks)
  waits_for.clear();
}

bool would_never_end(ProxyObject* proxy, unsigned long thread) {
  for (;;) {
    auto waiting = waits_for.find(proxy->resolver);
    if (waiting == waits_for.end()) return false;
    proxy = waiting->second;
    if (proxy->resolver == thread) return true;
  }
}

/// Waits until the thread inside the factory has left it; nothing, with an exception set, if a
/// signal handler raised.
std::shared_ptr<Resolution> await_resolution(ProxyObject* proxy, unsigned long thread) {
  auto& entry = awaited[proxy];
  if (!entry) entry = std::make_shared<Resolution>();
  std::shared_ptr<Resolution> resolution = entry;

  waits_for[thread] = proxy;
  bool interrupted = false;
  for (bool ended = false; !ended && !interrupted;) {
    Py_BEGIN_ALLOW_THREADS;
    {
      std::unique_lock lock(resolution->mutex);
      ended =
          resolution->changed.wait_for(lock, kSignalInterval, [&] { return resolution->ended; });
    }
    Py_END_ALLOW_THREADS;
    interrupted = !ended && PyErr_CheckSignals() < 0;
  }
  waits_for.erase(thread);
  if (interrupted) return nullptr;
  return resolution;
}

void end_resolution(ProxyObject* proxy, PyObject* cause) {
  proxy->resolver = 0;
  auto node = awaited.extract(proxy);
  if (node.empty()) return;
  Resolution& resolution = *node.mapped();
  resolution.cause = Ref::share(cause);
  {
    std::lock_guard lock(resolution.mutex);
    resolution.ended = true;
  }
  resolution.changed.notify_all();
}

Ref call_factory(ProxyObject* proxy, unsigned long thread) {
  proxy->resolver = thread;
  proxy->resolver_generation = fork_generation;
  Ref factory = Ref::share(proxy->factory);
  Ref target = Ref::steal(PyObject_CallNoArgs(factory.get()));
  if (target) {
    set_target(proxy, target.get());
    end_resolution(proxy, nullptr);
    return target;
  }
  if (!PyErr_ExceptionMatches(PyExc_Exception)) {
    // KeyboardInterrupt and its like are this thread's alone; the others try for themselves.
    end_resolution(proxy, nullptr);
    return Ref();
  }
  Ref cause = take_exception();
  end_resolution(proxy, cause.get());
  raise_factory_error(proxy, cause.get());
  return Ref();
}

}  // namespace

Ref resolve(ProxyObject* proxy) {
  if (proxy->target != nullptr) return Ref::share(proxy->target);

  Ref alive = Ref::share(as_object(proxy));
  forget_parent();
  const unsigned long thread = PyThread_get_thread_ident();
  while (proxy->target == nullptr) {
    if (proxy->factory == nullptr) {
      raise_resolve_error("Proxy is not initialized: __proxy_factory__ is missing.",
                          PyExc_AttributeError);
      return Ref();
    }
    if (proxy->resolver == 0 || proxy->resolver_generation != fork_generation) {
      return call_factory(proxy, thread);
    }
    if (proxy->resolver == thread) {
      raise_resolve_error(
          "the factory of this proxy uses the proxy itself, which it has yet to resolve: "
          "let the factory use the object, not its proxy",
          PyExc_RecursionError);
      return Ref();
    }
    if (would_never_end(proxy, thread)) {
      raise_resolve_error(
          "the factories of two proxies wait for each other: each uses the other's proxy, and "
          "different threads are resolving them",
          PyExc_RuntimeError);
      return Ref();
    }
    std::shared_ptr<Resolution> resolution = await_resolution(proxy, thread);
    if (!resolution) return Ref();
    if (resolution->cause) {
      raise_factory_error(proxy, resolution->cause.get());
      return Ref();
    }
  }
  return Ref::share(proxy->target);
}

Ref wrapped(PyObject* object) {
  ProxyObject* proxy = as_proxy(object);
  if (!proxy->plain) {
    PyObject* found = _PyType_Lookup(Py_TYPE(object), names.proxy_wrapped);
    if (found != _PyType_Lookup(types.proxy, names.proxy_wrapped)) {
      return Ref::steal(PyObject_GetAttr(object, names.proxy_wrapped));
    }
  }
  return resolve(proxy);
}

int prepare_resolve() {
  if (pthread_atfork(nullptr, nullptr, [] { ++fork_generation; }) != 0) {
    PyErr_NoMemory();
    return -1;
  }
  return 0;
}

}  // namespace pshpc::proxy
