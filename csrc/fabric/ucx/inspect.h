#pragma once
// Facts about the UCX that this process has loaded, for people: which, from where, with what.

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "fabric/ucx/config.h"

namespace pshpc::fabric::ucx {

struct Version {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;

  bool at_least(unsigned want_major, unsigned want_minor) const {
    return major > want_major || (major == want_major && minor >= want_minor);
  }
};

Version version();
std::string version_text();
// The file that libucp was loaded from.
std::string library_path();
// What this library was compiled against.
std::string headers_version();

struct Transport {
  std::string name;    // "tcp"
  std::string device;  // "eth0"
  std::string domain;  // UCX's memory domain: "tcp", "mlx5_0"
};

struct Inventory {
  // What was found and could be loaded ("tcp", "cma", "ib"), with or without a device.
  std::vector<std::string> components;
  std::vector<Transport> transports;

  // InfiniBand and RoCE can be used if there is such a device.
  bool has_verbs() const;
};

// Of a context that `printed` describes.
Inventory parse_inventory(const std::string& printed);
// Of all there is, whatever the user restricts the door to.
Expected<Inventory> full_inventory();

}  // namespace pshpc::fabric::ucx
