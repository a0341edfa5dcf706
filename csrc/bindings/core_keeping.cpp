#include <memory>
#include <utility>
#include <vector>

#include "bindings/core.h"
#include "bindings/core_keeping.h"

namespace pshpc::bindings {

objects::Estate estate_of(const py::dict& left) {
  objects::Estate estate;
  const auto take = [&left](const char* name) { return py::cast<int>(left[name]); };
  estate.config = py::cast<std::string>(left["config"]);
  const std::string outside = py::cast<std::string>(left["outside"]);
  estate.outside = ConstSpan(outside).copy();
  estate.table = Fd(take("table"));
  estate.claims = Fd(take("claims"));
  for (const py::handle& fd : py::cast<py::list>(left["listeners"]))
    estate.listeners.emplace_back(py::cast<int>(fd));
  for (const py::handle& item : py::cast<py::list>(left["segments"])) {
    const auto [id, fd] = py::cast<std::pair<std::uint32_t, int>>(item);
    estate.segments.push_back({id, Fd(fd)});
  }
  for (const py::handle& fd : py::cast<py::list>(left["pin_tables"]))
    estate.pin_tables.emplace_back(py::cast<int>(fd));
  // The descriptors are ours by now, whatever comes of it.
  const std::string identity = py::cast<std::string>(left["identity"]);
  estate.identity = check(objects::Identity::parse(ConstSpan(identity)));
  return estate;
}

std::shared_ptr<objects::Handover> handover_over(int connection) {
  return std::make_shared<objects::Handover>(Fd(connection));
}

}  // namespace pshpc::bindings
