#include "bindings/core.h"
#include "memory/limits.h"

namespace pshpc::bindings {

void bind_memory(py::module_& module) {
  module.def(
      "memory_limits",
      [] {
        const auto limits = memory::read_memory_limits();
        py::dict facts;
        facts["machine_total"] = limits.machine_total;
        facts["machine_available"] = limits.machine_available;
        facts["cgroup_limit"] = limits.cgroup_limit;
        facts["cgroup_available"] = limits.cgroup_available;
        facts["cgroup_path"] = limits.cgroup_path;
        facts["memlock_limit"] = limits.memlock_limit;
        facts["available"] = limits.available();
        return facts;
      },
      "How much memory this process may take, in bytes; a limit of 0 means there is none.");
  module.def(
      "default_capacity",
      [](unsigned processes_on_node) { return memory::default_capacity(processes_on_node); },
      py::arg("processes_on_node") = 1,
      "A quarter of the machine's (or cgroup's) memory, shared by the processes on a node.");
}

}  // namespace pshpc::bindings
