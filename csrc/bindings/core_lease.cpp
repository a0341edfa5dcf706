#include "bindings/core_lease.h"

#include <cstring>

namespace pshpc::bindings {
namespace {

py::buffer_info describe(Span memory, bool readonly) {
  static std::uint8_t nothing = 0;  // an empty buffer still wants an address
  return py::buffer_info(memory.data != nullptr ? memory.data : &nothing, 1, "B", 1,
                         {static_cast<py::ssize_t>(memory.size)}, {py::ssize_t{1}}, readonly);
}

}  // namespace

PyBlock::~PyBlock() {
  if (!published_)
    owner_->abort(reservation_.object_id);
  else if (pinned_)
    owner_->unpin(reservation_.block);
}

Expected<objects::Key> PyBlock::publish(ConstSpan prefix, const objects::Policy& policy) {
  if (published_) return Status(Code::invalid, "the block is published already");
  if (prefix.size > payload().size)
    return Status(Code::invalid, "the prefix is longer than the block");
  copy_bytes(payload().data, prefix);
  auto key = owner_->publish(reservation_.object_id, policy, true);
  published_ = pinned_ = key.ok();
  return key;
}

void bind_lease(py::module_& module) {
  py::class_<PyLease>(module, "Lease", py::buffer_protocol(),
                      "Bytes of an object, valid while any buffer of it is held.")
      .def_buffer(
          [](PyLease& self) { return describe(self.lease().memory, !self.lease().writable); })
      .def_property_readonly(
          "door", [](const PyLease& self) { return self.lease().door; },
          "The door that the bytes came through.")
      .def_property_readonly("writable", [](const PyLease& self) { return self.lease().writable; })
      .def_property_readonly(
          "generation", [](const PyLease& self) { return self.lease().generation; },
          "Of a whole object: what `Instance.validate` compares.")
      .def("__len__", [](const PyLease& self) { return self.lease().memory.size; });

  py::class_<PyBlock>(module, "Block", py::buffer_protocol(),
                      "A block of the arena that is written in place, then published.")
      .def_buffer([](PyBlock& self) { return describe(self.payload(), self.published()); })
      .def(
          "publish",
          [](PyBlock& self, const py::object& prefix, std::int64_t ttl_ns, std::uint32_t flags) {
            const BufferView view(prefix, BufferView::Access::read);
            return to_bytes(check(self.publish(view.span(), {ttl_ns, flags})).encode());
          },
          py::arg("prefix"), py::arg("ttl_ns") = 0, py::arg("flags") = 0,
          "Writes what precedes the data and makes the object visible; returns its key.")
      .def_property_readonly("published", &PyBlock::published)
      .def("__len__", [](const PyBlock& self) { return self.payload().size; });
}

}  // namespace pshpc::bindings
