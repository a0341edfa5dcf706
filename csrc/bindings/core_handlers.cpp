// The serving side of RPC, as Python sees it: calls wait in a pool until a Python thread takes
// them.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>

#include "bindings/core_rpc.h"
#include "bindings/graveyard.h"

namespace pshpc::bindings {
namespace {

// A thread that has just handled a call likely gets another: so long it looks for it by itself,
// which saves a thread switch.
constexpr Nanoseconds kDrive = 100 * kMicrosecond;
// Calls taken at once.
constexpr std::size_t kMaxBatch = 64;

class PyHandler;

struct Incoming {
  std::shared_ptr<PyHandler> handler;
  std::uint16_t provider = 0;
  bool one_way = false;
  Bytes body;
  rpc::Delivery payload;
  std::shared_ptr<const rpc::Address> caller;
  Nanoseconds arrived = 0;
  Deadline deadline = Deadline::never();
  std::shared_ptr<rpc::Responder> responder;
};

// Any thread.
class Pool {
 public:
  Pool(fabric::DoorHandle door) : door_(std::move(door)) {}

  // False once closed.
  bool push(std::unique_ptr<Incoming> call) {
    fabric::Operation* driver;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return false;
      queue_.push_back(std::move(call));
      driver = std::exchange(driver_, nullptr);
      if (driver == nullptr && waiting_ > 0) changed_.notify_one();
    }
    if (driver != nullptr) driver->complete({});
    return true;
  }

  // Empty when the time is up; false once closed.
  bool take(Deadline deadline, std::vector<std::unique_ptr<Incoming>>& batch) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    if (queue_.empty() && !closed_ && door_ && driver_ == nullptr) drive(lock, deadline);
    while (queue_.empty() && !closed_ && !deadline.passed())
      changed_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
    const std::size_t share = std::max<std::size_t>(1, queue_.size() / waiting_);
    --waiting_;
    while (!queue_.empty() && batch.size() < std::min(share, kMaxBatch)) {
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    return !closed_ || !batch.empty();
  }

  void close() {
    std::deque<std::unique_ptr<Incoming>> dropped;
    fabric::Operation* driver;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      dropped.swap(queue_);
      driver = std::exchange(driver_, nullptr);
      changed_.notify_all();
    }
    if (driver != nullptr) driver->complete({});
    for (const auto& call : dropped)
      call->responder->reply({Code::closed, "the engine there is shutting down"});
  }

  std::size_t queued() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return queue_.size();
  }
  std::size_t waiting() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return waiting_;
  }

 private:
  // Progresses the door for a moment, until a call comes.
  void drive(std::unique_lock<std::mutex>& lock, Deadline deadline) {
    fabric::Operation come;
    driver_ = &come;
    lock.unlock();
    const Nanoseconds time = std::min(deadline.remaining(), kDrive);
    [[maybe_unused]] const Status waited = door_->wait(come, Deadline::after(time), {});
    lock.lock();
    if (driver_ == &come) {
      driver_ = nullptr;
      return;
    }
    // Somebody has it in hand: it is to be whole before it goes.
    lock.unlock();
    while (!come.done()) ::sched_yield();
    lock.lock();
  }

  const fabric::DoorHandle door_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  std::size_t waiting_ = 0;
  fabric::Operation* driver_ = nullptr;  // of the thread that drives
  std::deque<std::unique_ptr<Incoming>> queue_;
};

class PyHandler final : public rpc::Handler, public std::enable_shared_from_this<PyHandler> {
 public:
  PyHandler(Buriable object, std::shared_ptr<Pool> pool)
      : object_(std::move(object)), pool_(std::move(pool)) {}

  void handle(rpc::Request& request) override {
    auto call = std::make_unique<Incoming>();
    call->handler = shared_from_this();
    call->provider = request.provider;
    call->one_way = request.one_way;
    call->body = request.body.copy();
    call->payload = std::move(request.payload);
    call->caller = request.caller.address;
    call->arrived = now();
    call->deadline = rpc::from_budget(request.budget_us, call->arrived);
    call->responder = request.defer();
    const auto responder = call->responder;
    if (!pool_->push(std::move(call)))
      responder->reply({Code::closed, "the engine there is shutting down"});
  }
  py::object object() const { return object_.get(); }

 private:
  Buriable object_;
  const std::shared_ptr<Pool> pool_;
};

class PyIncoming {
 public:
  explicit PyIncoming(std::unique_ptr<Incoming> call) : call_(std::move(call)) {}

  const Incoming& call() const { return *call_; }
  py::object payload() {
    if (!lease_) lease_ = to_lease(std::move(call_->payload));
    return *lease_;
  }
  double remaining() const {
    const Nanoseconds at = call_->deadline.at();
    if (at == Deadline::never().at()) return std::numeric_limits<double>::infinity();
    return static_cast<double>(at - now()) / static_cast<double>(kSecond);
  }
  double waited() const {
    return static_cast<double>(taken_ - call_->arrived) / static_cast<double>(kSecond);
  }
  void reply(const py::object& body, const py::object& payload) {
    const BufferView described(body, BufferView::Access::read);
    fabric::Payload held = hold_payload(payload);
    answer({}, described.span(), std::move(held));
  }
  void raised(const py::object& body) {
    const BufferView described(body, BufferView::Access::read);
    answer({Code::raised, ""}, described.span(), {});
  }
  void fail(const std::string& code, const std::string& message) {
    for (int number = 1; number <= static_cast<int>(kLastCode); ++number)
      if (code == code_name(static_cast<Code>(number)))
        return answer({static_cast<Code>(number), message}, {}, {});
    raise({Code::invalid, "there is no status '" + code + "'"});
  }

 private:
  void answer(const Status& status, ConstSpan body, fabric::Payload held) {
    {
      const py::gil_scoped_release release;
      call_->responder->reply(status, body, std::move(held), {});
    }
    release_buried();
  }

  std::unique_ptr<Incoming> call_;
  const Nanoseconds taken_ = now();
  std::optional<py::object> lease_;
};

py::object take(const std::shared_ptr<Pool>& pool, double timeout) {
  std::vector<std::unique_ptr<Incoming>> batch;
  bool open;
  {
    const py::gil_scoped_release release;
    open = pool->take(to_deadline(timeout), batch);
  }
  release_buried();
  if (!open) return py::none();
  py::list calls;
  for (auto& call : batch) calls.append(py::cast(std::make_unique<PyIncoming>(std::move(call))));
  return std::move(calls);
}

}  // namespace

void serve_python(objects::Instance& instance, const std::string& name, std::uint16_t provider,
                  py::object what, const py::object& pool) {
  auto handler =
      std::make_shared<PyHandler>(Buriable(std::move(what)), py::cast<std::shared_ptr<Pool>>(pool));
  check(
      instance.messenger()->add_handler(name, rpc::method_id(name), provider, std::move(handler)));
}

void bind_handlers(py::module_& module) {
  py::class_<Pool, std::shared_ptr<Pool>>(module, "HandlerPool",
                                          "Incoming calls, worked off by Python threads.")
      .def(py::init([](const py::object& instance) {
             const auto doors = instance_of(instance).exposure().doors();
             return std::make_shared<Pool>(doors.empty() ? nullptr : doors.front());
           }),
           py::arg("instance"))
      .def("take", &take, py::arg("timeout"))
      .def_property_readonly("queued", &Pool::queued)
      .def_property_readonly("waiting", &Pool::waiting)
      .def("close", [](Pool& self) {
        const py::gil_scoped_release release;
        self.close();
      });

  py::class_<PyIncoming>(module, "IncomingCall", "One call to be handled, and its answer.")
      .def_property_readonly("handler",
                             [](const PyIncoming& self) { return self.call().handler->object(); })
      .def_property_readonly("provider",
                             [](const PyIncoming& self) { return self.call().provider; })
      .def_property_readonly("one_way", [](const PyIncoming& self) { return self.call().one_way; })
      .def_property_readonly("body",
                             [](const PyIncoming& self) { return to_bytes(self.call().body); })
      .def_property_readonly("payload", &PyIncoming::payload)
      .def_property_readonly("caller",
                             [](const PyIncoming& self) { return self.call().caller->to_text(); })
      .def_property_readonly("remaining", &PyIncoming::remaining)
      .def_property_readonly(
          "cancelled", [](const PyIncoming& self) { return self.call().responder->cancelled(); })
      .def_property_readonly("waited", &PyIncoming::waited)
      .def("reply", &PyIncoming::reply, py::arg("body"), py::arg("payload") = py::none())
      .def("raised", &PyIncoming::raised, py::arg("body"))
      .def("fail", &PyIncoming::fail, py::arg("code"), py::arg("message"));
}

}  // namespace pshpc::bindings
