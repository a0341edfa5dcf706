#include <cstring>
#include <memory>
#include <optional>

#include "bindings/completions.h"
#include "bindings/core.h"
#include "bindings/core_lease.h"
#include "bindings/core_rpc.h"
#include "bindings/graveyard.h"
#include "objects/bulk_prepared.h"
#include "objects/instance.h"

namespace pshpc::bindings {
namespace {

using objects::Bulk;
using objects::BulkOrder;
using objects::Direction;

// Seconds that the end of a handle waits for transfers.
constexpr double kLastTransfers = 1.0;

[[noreturn]] void raise_bulk(const Status& status, const std::string& peer = "") {
  std::string code = code_name(status.code());
  if (status.code() == Code::evicted || status.code() == Code::not_found) code = "bulk_closed";
  if (status.code() == Code::closed) code = "engine_closed";
  if (status.code() == Code::owner_gone) code = "peer_lost";
  py::dict details;
  if (!peer.empty()) details["peer"] = peer;
  const py::object make = py::module_::import("proxystore_hpc.exceptions").attr("from_code");
  const py::object error = make(code, status.message(), **details);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

std::string mode_name(std::uint8_t mode) {
  std::string name;
  if (mode & objects::kBulkRead) name += "r";
  if (mode & objects::kBulkWrite) name += "w";
  return name;
}

std::uint8_t to_mode(const std::string& name) {
  if (name == "r") return objects::kBulkRead;
  if (name == "w") return objects::kBulkWrite;
  if (name == "rw") return objects::kBulkRead | objects::kBulkWrite;
  raise({Code::invalid, "mode is 'r', 'w' or 'rw', not '" + name + "'"});
}

struct Buffers {
  std::vector<Span> spans;
  std::shared_ptr<std::vector<std::shared_ptr<const void>>> keep =
      std::make_shared<std::vector<std::shared_ptr<const void>>>();
};

Buffers hold_all(const py::list& objects, bool writable) {
  Buffers all;
  for (const py::handle& object : objects) {
    const HeldBytes held = hold_bytes(object);
    const py::object view = static_cast<const Buriable*>(held.keep.get())->get();
    if (writable && PyMemoryView_GET_BUFFER(view.ptr())->readonly != 0)
      raise({Code::invalid, "a buffer that is to be written is read-only"});
    all.spans.emplace_back(const_cast<std::uint8_t*>(held.span.data), held.span.size);
    all.keep->push_back(held.keep);
  }
  return all;
}

// What is exposed, its buffers, and the instance that exposes it.
class PyBulkMemory {
 public:
  PyBulkMemory(py::object instance, const py::list& buffers, const std::string& mode)
      : instance_(std::move(instance)) {
    const std::uint8_t bits = to_mode(mode);
    buffers_ = hold_all(buffers, (bits & objects::kBulkWrite) != 0);
    objects::BulkTable& table = instance_of(instance_).bulks();
    auto exposed = [&] {
      const py::gil_scoped_release release;
      return table.expose(buffers_.spans, bits);
    }();
    if (!exposed.ok()) raise_bulk(exposed.status());
    memory_ = std::move(exposed).value();
  }
  ~PyBulkMemory() {
    // A peer that still uses the memory keeps it, until the process ends.
    if (!memory_ || end(kLastTransfers).ok()) {
      let_go();
      return;
    }
    [[maybe_unused]] const auto* kept = memory_.release();
    buffers_.keep->push_back(buffers_.keep);
  }

  const Bulk& bulk() const { return memory_->bulk(); }
  void close(double timeout) {
    const Status ended = end(timeout);
    if (!ended.ok()) raise_bulk(ended);
    let_go();
  }

 private:
  void let_go() {
    buffers_ = {};
    release_buried();
  }
  Status end(double timeout) {
    const py::gil_scoped_release release;
    return memory_->close(to_deadline(timeout));
  }

  py::object instance_;
  Buffers buffers_;
  std::unique_ptr<objects::BulkMemory> memory_;
};

// An order, and the lease that its bytes arrive in unless the caller gave memory for them.
struct Prepared {
  BulkOrder order;
  std::optional<objects::Lease> arrives;
};

Prepared prepare(const py::object& instance, const Bulk& bulk, bool push, std::uint64_t offset,
                 std::optional<std::uint64_t> length, const py::object& buffers, double timeout) {
  release_buried();
  Prepared prepared;
  BulkOrder& order = prepared.order;
  order.bulk = bulk;
  order.direction = push ? Direction::push : Direction::pull;
  order.offset = offset;
  order.deadline = to_deadline(timeout);
  objects::Instance& used = instance_of(instance);
  if (buffers.is_none()) {
    const std::uint64_t rest = offset <= bulk.length ? bulk.length - offset : 0;
    const std::uint64_t size = length.value_or(rest);
    if (const auto part = bulk.select(offset, size); !part.ok()) raise_bulk(part.status());
    auto taken = [&] {
      const py::gil_scoped_release release;
      return used.pool().take(size);
    }();
    auto buffer = std::make_shared<memory::Pool::Buffer>(check(std::move(taken)));
    prepared.arrives.emplace();
    prepared.arrives->memory = buffer->span();
    prepared.arrives->writable = true;
    prepared.arrives->holder = buffer;
    order.local = {buffer->span()};
    order.keep = std::move(buffer);
    return prepared;
  }
  Buffers held = hold_all(py::cast<py::list>(buffers), !push);
  std::uint64_t size = 0;
  for (const Span& span : held.spans) size += span.size;
  if (length && *length != size)
    raise({Code::invalid, "the buffers have " + std::to_string(size) +
                              " bytes, not length=" + std::to_string(*length)});
  order.local = std::move(held.spans);
  order.keep = std::move(held.keep);
  return prepared;
}

using Moved = std::pair<const char*, py::object>;

Moved moved(const char* door, std::optional<objects::Lease> arrived) {
  if (!arrived) return {door, py::none()};
  arrived->door = door;
  return {door, py::cast(PyLease(std::move(*arrived)))};
}

Moved move(const py::object& instance, const Bulk& bulk, bool push, std::uint64_t offset,
           std::optional<std::uint64_t> length, const py::object& buffers, double timeout) {
  Prepared prepared = prepare(instance, bulk, push, offset, length, buffers, timeout);
  objects::BulkClient& client = instance_of(instance).bulk_client();
  auto way = [&] {
    const py::gil_scoped_release release;
    return client.move(prepared.order);
  }();
  if (!way.ok()) raise_bulk(way.status(), bulk.owner.short_name());
  return moved(way.value(), std::move(prepared.arrives));
}

class PyBulkTransfer {
 public:
  PyBulkTransfer(const py::object& instance, const Bulk& bulk, bool push, std::uint64_t offset,
                 std::optional<std::uint64_t> length, const py::object& buffers, double timeout)
      : peer_(bulk.owner.short_name()) {
    Prepared prepared = prepare(instance, bulk, push, offset, length, buffers, timeout);
    arrives_ = std::move(prepared.arrives);
    // The instance outlives the transfer, even if this does not.
    struct Kept {
      Buriable instance;
      std::shared_ptr<const void> memory;
    };
    auto kept = std::make_shared<Kept>();
    kept->instance = Buriable(instance);
    kept->memory = std::move(prepared.order.keep);
    prepared.order.keep = std::move(kept);
    objects::BulkClient& client = instance_of(instance).bulk_client();
    const py::gil_scoped_release release;
    transfer_ = client.submit(std::move(prepared.order));
  }

  bool done() const { return transfer_->done(); }
  bool wait(double timeout) const {
    if (transfer_->done()) return true;
    const py::gil_scoped_release release;
    return transfer_->wait(to_deadline(timeout));
  }
  Moved result() {
    auto way = transfer_->outcome();
    if (!way.ok()) raise_bulk(way.status(), peer_);
    return moved(way.value(), arrives_);
  }
  bool cancel() const {
    const py::gil_scoped_release release;
    transfer_->cancel();
    return transfer_->done();
  }
  void notify(std::shared_ptr<Completions> queue, py::object token) const {
    auto buried = std::make_shared<Buriable>(std::move(token));
    transfer_->when_done([queue = std::move(queue), buried] { queue->push(std::move(*buried)); });
  }

 private:
  const std::string peer_;
  std::optional<objects::Lease> arrives_;
  std::shared_ptr<objects::BulkTransfer> transfer_;
};

// Keeps its buffers, whose memory must not move.
class PyPreparedTransfer {
 public:
  PyPreparedTransfer(py::object instance, const Bulk& bulk, bool push, std::uint64_t offset,
                     const py::object& buffers)
      : instance_(std::move(instance)), peer_(bulk.owner.short_name()) {
    Prepared prepared = prepare(instance_, bulk, push, offset, std::nullopt, buffers, 0);
    std::uint64_t size = 0;
    for (const Span& span : prepared.order.local) size += span.size;
    if (const auto part = bulk.select(offset, size); !part.ok()) raise_bulk(part.status());
    transfer_ = std::make_unique<objects::PreparedTransfer>(
        instance_of(instance_).shared_bulk_client(), std::move(prepared.order));
  }

  const char* run(double timeout) const {
    instance_of(instance_);
    auto way = [&] {
      const py::gil_scoped_release release;
      return transfer_->run(to_deadline(timeout));
    }();
    if (!way.ok()) raise_bulk(way.status(), peer_);
    return way.value();
  }

 private:
  const py::object instance_;
  const std::string peer_;
  std::unique_ptr<objects::PreparedTransfer> transfer_;
};

Bulk parse(const py::bytes& packed) {
  const std::string raw = packed;
  return check(Bulk::parse(ConstSpan(raw)));
}

}  // namespace

void bind_bulk(py::module_& module) {
  py::class_<Bulk>(module, "BulkHandle", "Names memory that is exposed for one-sided transfers.")
      .def(py::init(&parse), py::arg("packed"))
      .def("pack", [](const Bulk& self) { return to_bytes(self.encode()); })
      .def_property_readonly("nbytes", [](const Bulk& self) { return self.length; })
      .def_property_readonly("segments", &Bulk::segments)
      .def_property_readonly("mode", [](const Bulk& self) { return mode_name(self.mode); })
      .def_property_readonly("owner_id", [](const Bulk& self) { return self.owner.short_name(); })
      .def_property_readonly("off_node", [](const Bulk& self) { return !self.owner.host.empty(); })
      .def(
          "select",
          [](const Bulk& self, std::uint64_t offset, std::uint64_t length) {
            return check(self.select(offset, length));
          },
          py::arg("offset"), py::arg("length"))
      .def("__repr__", &Bulk::describe);

  py::class_<PyBulkMemory>(module, "BulkMemory", "Keeps memory exposed until it is closed.")
      .def(py::init<py::object, const py::list&, const std::string&>(), py::arg("instance"),
           py::arg("buffers"), py::arg("mode"))
      .def_property_readonly("handle", &PyBulkMemory::bulk, py::return_value_policy::copy)
      .def("close", &PyBulkMemory::close, py::arg("timeout") = 5.0);

  py::class_<PyBulkTransfer>(module, "BulkTransfer", "A transfer under way.")
      .def(py::init<const py::object&, const Bulk&, bool, std::uint64_t,
                    std::optional<std::uint64_t>, const py::object&, double>(),
           py::arg("instance"), py::arg("handle"), py::arg("push"), py::arg("offset"),
           py::arg("length"), py::arg("buffers"), py::arg("timeout"))
      .def("done", &PyBulkTransfer::done)
      .def("wait", &PyBulkTransfer::wait, py::arg("timeout"))
      .def("result", &PyBulkTransfer::result)
      .def("cancel", &PyBulkTransfer::cancel)
      .def("notify", &PyBulkTransfer::notify, py::arg("queue"), py::arg("token"));

  py::class_<PyPreparedTransfer>(module, "PreparedTransfer", "A transfer that can be repeated.")
      .def(py::init<py::object, const Bulk&, bool, std::uint64_t, const py::object&>(),
           py::arg("instance"), py::arg("handle"), py::arg("push"), py::arg("offset"),
           py::arg("buffers"))
      .def("run", &PyPreparedTransfer::run, py::arg("timeout"));

  module.def("move_bulk", &move, py::arg("instance"), py::arg("handle"), py::arg("push"),
             py::arg("offset"), py::arg("length"), py::arg("buffers"), py::arg("timeout"),
             "Pulls or pushes, and waits for it.");
}

}  // namespace pshpc::bindings
