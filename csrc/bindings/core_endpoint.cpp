// The calling side of RPC, as Python sees it.

#include <sched.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "base/fork_guard.h"
#include "bindings/completions.h"
#include "bindings/core_rpc.h"
#include "bindings/graveyard.h"
#include "rpc/probe.h"

namespace pshpc::bindings {
namespace {

using objects::Instance;
using rpc::Call;
using rpc::Target;

// How often a thread that waits looks whether the user pressed Ctrl-C.
constexpr Nanoseconds kSignalPeriod = 200 * kMillisecond;

// One call whose end is told to a queue, or waited for.
class AsyncCall final : public Call {
 public:
  AsyncCall() : Call(Call::Payload::pooled) {}

  void notify(std::shared_ptr<Completions> queue, Buriable token) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!ended_) {
        told_.emplace_back(std::move(queue), std::move(token));
        return;
      }
    }
    queue->push(std::move(token));
  }

 private:
  void on_complete() override {
    std::vector<std::pair<std::shared_ptr<Completions>, Buriable>> told;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
      told.swap(told_);
    }
    for (auto& [queue, token] : told) queue->push(std::move(token));
  }

  std::mutex mutex_;
  bool ended_ = false;
  std::vector<std::pair<std::shared_ptr<Completions>, Buriable>> told_;
};

void check_owned(std::uint32_t birth) {
  if (birth != fork_generation())
    raise({Code::forked,
           "the engine was opened before this process was forked; open a new one here, or use the "
           "'spawn' start method"});
}

[[noreturn]] void raise_call_error(const Status& status, ConstSpan body, const std::string& peer) {
  if (status.code() == Code::raised) {
    const py::object revive = py::module_::import("proxystore_hpc.rpc.raising").attr("revive");
    const py::object error = revive(to_bytes(body), peer);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    throw py::error_already_set();
  }
  const bool closed = status.code() == Code::closed;
  const py::object make = py::module_::import("proxystore_hpc.exceptions").attr("from_code");
  const py::object error = make(closed ? "engine_closed" : code_name(status.code()),
                                status.message(), py::arg("peer") = peer);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

// To a caller it is all the same whether the peer ended before or after the link to it.
[[noreturn]] void raise_unreachable(const Status& status, const std::string& peer) {
  const bool gone = status.code() == Code::owner_gone;
  raise_call_error(gone ? Status(Code::peer_lost, status.message()) : status, {}, peer);
}

void check_call(const Call& call, const objects::Link& link) {
  release_buried();
  if (!call.status().ok())
    raise_call_error(call.status(), call.reply(), link.address().short_name());
}

py::tuple to_result(Call& call, const objects::Link& link) {
  check_call(call, link);
  return py::make_tuple(to_bytes(call.reply()), to_lease(call.take_payload()));
}

// The way to a peer that is open now.
struct Way {
  std::shared_ptr<objects::Link> link;
  std::shared_ptr<fabric::Channel> channel;
  fabric::DoorHandle door;

  bool usable() const { return channel && channel->alive(); }
};

class PyPendingCall {
 public:
  PyPendingCall(std::unique_ptr<AsyncCall> call, std::shared_ptr<const Way> way)
      : call_(std::move(call)), way_(std::move(way)) {}
  PyPendingCall(PyPendingCall&&) = default;
  ~PyPendingCall() {
    if (birth_ != fork_generation()) {  // the parent's
      [[maybe_unused]] const AsyncCall* kept = call_.release();
    } else if (call_ && !call_->done()) {
      fabric::Operation::abandon(std::move(call_));
    }
  }

  bool done() const { return call_->done(); }
  AsyncCall& call() { return *call_; }

  bool wait(double timeout) {
    if (call_->done()) return true;
    check_owned(birth_);
    const Deadline deadline = to_deadline(timeout);
    while (!deadline.passed()) {
      {
        const py::gil_scoped_release release;
        const Deadline slice = Deadline::after(std::min(deadline.remaining(), kSignalPeriod));
        [[maybe_unused]] const Status waited =
            way_->door->wait(*call_, slice, [this] { return !way_->link->alive(); });
      }
      if (call_->done()) return true;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!way_->link->alive()) way_->link->messenger().close(way_->channel);
    }
    return call_->done();
  }
  py::tuple result() {
    // The queue may have told of it a moment before it is marked as done.
    if (!call_->done()) check_owned(birth_);
    while (!call_->done()) ::sched_yield();
    return to_result(*call_, *way_->link);
  }
  bool cancel() {
    check_owned(birth_);
    const py::gil_scoped_release release;
    return way_->link->messenger().cancel(*call_);
  }

 private:
  std::unique_ptr<AsyncCall> call_;
  std::shared_ptr<const Way> way_;
  std::uint32_t birth_ = fork_generation();
};

// Calls one after another with several in flight, each answer taken with the start of a later call.
class PyCallStream {
 public:
  PyCallStream(std::shared_ptr<const Way> way, const Target& target, std::size_t window,
               Nanoseconds timeout)
      : way_(std::move(way)), target_(target), window_(window), timeout_(timeout) {}
  PyCallStream(const PyCallStream&) = delete;
  PyCallStream& operator=(const PyCallStream&) = delete;
  ~PyCallStream() { cancel(); }

  // The answer to the oldest call, once the window is full; else None.
  py::object step(const py::object& body, const py::object& payload) {
    check_owned(birth_);
    py::object answer = py::none();
    if (flying_.size() >= window_) answer = finish();
    const BufferView described(body, BufferView::Access::read);
    fabric::Payload held = hold_payload(payload);
    Flying& flying = flying_.emplace_back();
    const py::gil_scoped_release release;
    way_->link->messenger().start(way_->channel, target_, described.span(), std::move(held),
                                  Deadline::at_time(flying.began + timeout_), true,
                                  flying.call.get());
    return answer;
  }
  // None when there is no more.
  py::object finish() {
    check_owned(birth_);
    if (flying_.empty()) return py::none();
    Flying& oldest = flying_.front();
    while (!oldest.call->done()) {
      {
        const py::gil_scoped_release release;
        [[maybe_unused]] const Status waited = way_->door->wait(
            *oldest.call, Deadline::after(kSignalPeriod), [this] { return !way_->link->alive(); });
      }
      if (oldest.call->done()) break;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!way_->link->alive()) way_->link->messenger().close(way_->channel);
    }
    const Flying done = std::move(oldest);
    flying_.pop_front();
    check_call(*done.call, *way_->link);
    return py::make_tuple(to_bytes(done.call->reply()), to_lease(done.call->take_payload()),
                          now() - done.began);
  }
  void cancel() {
    for (Flying& flying : flying_) {
      if (birth_ != fork_generation()) {  // the parent's
        [[maybe_unused]] const AsyncCall* kept = flying.call.release();
        continue;
      }
      if (!flying.call->done()) way_->link->messenger().cancel(*flying.call);
      if (!flying.call->done()) fabric::Operation::abandon(std::move(flying.call));
    }
    flying_.clear();
  }

 private:
  struct Flying {
    std::unique_ptr<AsyncCall> call = std::make_unique<AsyncCall>();
    Nanoseconds began = now();
  };

  std::shared_ptr<const Way> way_;
  const Target target_;
  const std::size_t window_;
  const Nanoseconds timeout_;
  const std::uint32_t birth_ = fork_generation();
  std::deque<Flying> flying_;
};

class PyEndpoint {
 public:
  PyEndpoint(py::object instance, std::shared_ptr<objects::Link> link)
      : instance_(std::move(instance)),
        name_(link->address().short_name()),
        way_(std::make_shared<Way>(way_over(std::move(link)))) {}

  const objects::Link& link() const { return *way_->link; }
  std::string lanes() const { return way_->channel ? way_->channel->describe() : "node socket"; }

  py::tuple call(std::uint64_t method, std::uint16_t provider, const py::object& body,
                 const py::object& payload, double timeout) {
    const Deadline deadline = to_deadline(timeout);
    const BufferView described(body, BufferView::Access::read);
    fabric::Payload held = hold_payload(payload);
    const auto way = current(deadline);
    if (!way->usable()) return call_by_socket({method, provider}, described, held, deadline);
    auto call = std::make_unique<AsyncCall>();
    {
      const py::gil_scoped_release release;
      way->link->messenger().start(way->channel, {method, provider}, described.span(),
                                   std::move(held), deadline, false, call.get());
      wait_for(*way, *call, std::min(deadline.remaining(), kSignalPeriod));
    }
    bool interrupted = false;
    while (!call->done() && !interrupted && !deadline.passed()) {
      interrupted = PyErr_CheckSignals() != 0;
      if (interrupted) break;
      const py::gil_scoped_release release;
      wait_for(*way, *call, std::min(deadline.remaining(), kSignalPeriod));
    }
    const bool given_up = !call->done() && way->link->messenger().cancel(*call);
    if (interrupted || given_up || !call->done()) {
      // Its answer may be arriving: then it ends by itself.
      if (!call->done()) fabric::Operation::abandon(std::move(call));
      if (interrupted) throw py::error_already_set();
      py::dict details;
      details["timeout"] = timeout;
      raise({Code::timed_out, name_ + " did not answer within the time allowed"}, details);
    }
    return to_result(*call, *way->link);
  }

  std::unique_ptr<PyPendingCall> start(std::uint64_t method, std::uint16_t provider,
                                       const py::object& body, const py::object& payload,
                                       double timeout) {
    const Deadline deadline = to_deadline(timeout);
    const BufferView described(body, BufferView::Access::read);
    fabric::Payload held = hold_payload(payload);
    release_buried();
    auto way = current(deadline);
    if (!way->usable()) no_messages();
    auto call = std::make_unique<AsyncCall>();
    {
      const py::gil_scoped_release release;
      way->link->messenger().start(way->channel, {method, provider}, described.span(),
                                   std::move(held), deadline, true, call.get());
    }
    return std::make_unique<PyPendingCall>(std::move(call), std::move(way));
  }

  std::unique_ptr<PyCallStream> stream(std::uint64_t method, std::uint16_t provider,
                                       std::size_t window, double timeout) {
    const Deadline deadline = to_deadline(timeout);
    auto way = current(deadline);
    if (!way->usable()) no_messages();
    const Nanoseconds time =
        deadline.at() == Deadline::never().at() ? 1'000'000'000 * kSecond : deadline.remaining();
    return std::make_unique<PyCallStream>(std::move(way), Target{method, provider}, window, time);
  }

  std::pair<std::vector<Nanoseconds>, Nanoseconds> probe(std::uint64_t calls, std::size_t window,
                                                         std::size_t size, double timeout) {
    auto measured = [&] {
      const py::gil_scoped_release release;
      return rpc::probe(*way_->link->wire(), {calls, window, size}, to_deadline(timeout));
    }();
    if (!measured.ok()) raise_call_error(measured.status(), {}, name_);
    return {std::move(measured->latencies), measured->total};
  }

  void notify(std::uint64_t method, std::uint16_t provider, const py::object& body,
              const py::object& payload, double timeout) {
    const Deadline deadline = to_deadline(timeout);
    const BufferView described(body, BufferView::Access::read);
    fabric::Payload held = hold_payload(payload);
    release_buried();
    const auto way = current(deadline);
    if (!way->usable()) no_messages();
    const Status sent = [&] {
      const py::gil_scoped_release release;
      return way->link->messenger().notify(way->channel, {method, provider}, described.span(),
                                           std::move(held), deadline);
    }();
    if (!sent.ok()) raise_call_error(sent, {}, name_);
  }

 private:
  static Way way_over(std::shared_ptr<objects::Link> link) {
    Way way;
    way.channel = link->wire()->best_channel(&way.door);
    way.link = std::move(link);
    return way;
  }

  // With a new link if the one at hand is worn or its peer gone.
  std::shared_ptr<const Way> current(Deadline deadline) {
    check_owned(birth_);
    if (way_->usable()) return way_;
    if (way_->link->alive() && !way_->link->worn() && !way_->channel) return way_;
    const Status open = state_of(instance_);
    if (!open.ok()) raise_call_error(open, {}, name_);
    Instance& instance = instance_of(instance_);
    auto opened = [&] {
      const py::gil_scoped_release release;
      return instance.reader().live_link(way_->link->address(), deadline);
    }();
    if (!opened.ok()) raise_unreachable(opened.status(), name_);
    way_ = std::make_shared<Way>(way_over(std::move(opened).value()));
    return way_;
  }

  // Until it is done, the peer dies, or the time is up.
  static void wait_for(const Way& way, const Call& call, Nanoseconds time) {
    const Status waited =
        way.door->wait(call, Deadline::after(time), [&way] { return !way.link->alive(); });
    // The channel has not noticed yet that nobody is there any more.
    if (waited.code() == Code::peer_lost && !call.done()) way.link->messenger().close(way.channel);
  }

  py::tuple call_by_socket(const Target& target, const BufferView& body,
                           const fabric::Payload& payload, Deadline deadline) {
    if (payload.size() > 0) no_messages();
    Bytes raised;
    auto answer = [&] {
      const py::gil_scoped_release release;
      return way_->link->wire()->ask_socket(target, body.span(), deadline, {}, &raised);
    }();
    if (!answer.ok()) raise_call_error(answer.status(), raised, name_);
    return py::make_tuple(to_bytes(answer->body), py::none());
  }

  [[noreturn]] void no_messages() const {
    if (way_->link->channel("mpi")) {
      py::dict mpi;
      mpi["door"] = "mpi";
      raise({Code::unavailable,
             "here or there MPI may not be called by a thread of this library, so that only short "
             "calls reach " +
                 name_ + ": start MPI with MPI_THREAD_MULTIPLE"},
            mpi);
    }
    const auto& theirs = way_->link->welcome().offers;
    std::string opened;
    for (const auto& door : instance_of(instance_).exposure().doors())
      opened += (opened.empty() ? "" : ", ") + door->name();
    py::dict details;
    details["door"] = "ucx";
    raise({Code::unavailable,
           "no door that carries messages leads to " + name_ +
               " (here: " + (opened.empty() ? "none" : opened) + "; in common: " +
               (theirs.empty() ? "none" : std::to_string(theirs.size()) + ", lost") +
               "); make both engines with the same transport, off the node with UCX, see "
               "'proxystore-hpc info'"},
          details);
  }

  const py::object instance_;  // keeps it open
  const std::uint32_t birth_ = fork_generation();
  const std::string name_;
  std::shared_ptr<const Way> way_;
};

}  // namespace

py::object open_endpoint(const py::object& instance, const std::string& text, double timeout) {
  const auto address = check(rpc::Address::from_text(text));
  Instance& opened = instance_of(instance);
  auto link = [&] {
    const py::gil_scoped_release release;
    return opened.reader().live_link(address, to_deadline(timeout));
  }();
  if (!link.ok()) raise_unreachable(link.status(), address.short_name());
  return py::cast(std::make_unique<PyEndpoint>(instance, std::move(link).value()));
}

py::object start_wait(const py::object& instance, const py::bytes& packed, double timeout) {
  Instance& opened = instance_of(instance);
  const objects::Key key = to_key(packed);
  if (key.owner.id == opened.owner()->self().id) return py::none();
  const Deadline deadline = to_deadline(timeout);
  auto link = [&] {
    const py::gil_scoped_release release;
    return opened.reader().link(key.owner, &key, deadline);
  }();
  auto way = std::make_shared<Way>();
  way->link = check(std::move(link));
  way->channel = way->link->wire()->best_channel(&way->door);
  if (!way->usable()) return py::none();
  WireWriter request;
  objects::ref_of(key).encode(request);
  request.put(deadline.remaining());
  auto call = std::make_unique<AsyncCall>();
  {
    const py::gil_scoped_release release;
    way->link->messenger().start(way->channel, objects::target_of(objects::Kind::wait),
                                 request.bytes(), {}, deadline, true, call.get());
  }
  return py::cast(std::make_unique<PyPendingCall>(std::move(call), std::move(way)));
}

void bind_endpoint(py::module_& module) {
  module.def("method_id", &rpc::method_id, py::arg("name"),
             "The 64-bit hash that travels in place of a procedure's name.");

  py::class_<PyPendingCall>(module, "PendingCall", "A call in flight, or its answer.")
      .def("done", &PyPendingCall::done)
      .def("wait", &PyPendingCall::wait, py::arg("timeout"))
      .def("result", &PyPendingCall::result)
      .def("cancel", &PyPendingCall::cancel)
      .def(
          "notify",
          [](PyPendingCall& self, std::shared_ptr<Completions> queue, py::object token) {
            self.call().notify(std::move(queue), Buriable(std::move(token)));
          },
          py::arg("queue"), py::arg("token"));

  py::class_<PyCallStream>(module, "CallStream", "Calls with several in flight, in order.")
      .def("step", &PyCallStream::step, py::arg("body"), py::arg("payload"))
      .def("finish", &PyCallStream::finish)
      .def("cancel", &PyCallStream::cancel);

  py::class_<PyEndpoint>(module, "Endpoint", "A peer that can be called.")
      .def_property_readonly("address",
                             [](const PyEndpoint& self) { return self.link().address().to_text(); })
      .def_property_readonly(
          "owner_id", [](const PyEndpoint& self) { return self.link().address().short_name(); })
      .def_property_readonly("name",
                             [](const PyEndpoint& self) { return self.link().welcome().name; })
      .def_property_readonly("on_node",
                             [](const PyEndpoint& self) { return self.link().on_node(); })
      .def_property_readonly("alive", [](const PyEndpoint& self) { return self.link().alive(); })
      .def_property_readonly("lanes", &PyEndpoint::lanes)
      .def("stream", &PyEndpoint::stream, py::arg("method"), py::arg("provider"), py::arg("window"),
           py::arg("timeout"))
      .def("call", &PyEndpoint::call, py::arg("method"), py::arg("provider"), py::arg("body"),
           py::arg("payload"), py::arg("timeout"))
      .def("start", &PyEndpoint::start, py::arg("method"), py::arg("provider"), py::arg("body"),
           py::arg("payload"), py::arg("timeout"))
      .def(
          "probe", &PyEndpoint::probe, py::arg("calls"), py::arg("window") = 1, py::arg("size") = 0,
          py::arg("timeout") = 60.0,
          "Null calls, or echoes of `size` bytes, without Python: nanoseconds of each, and of all.")
      .def("notify", &PyEndpoint::notify, py::arg("method"), py::arg("provider"), py::arg("body"),
           py::arg("payload"), py::arg("timeout"));
}

}  // namespace pshpc::bindings
