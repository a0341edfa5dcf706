#pragma once
// What the user chooses about the door, and the UCX configuration that follows from it.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ucp/api/ucp.h>

#include "base/clock.h"
#include "base/status.h"

namespace pshpc::fabric::ucx {

struct Options {
  std::string name = "ucx";
  // UCX's list of transports ("posix,cma,self"); empty leaves the choice to UCX.
  std::string tls;
  // The network interface that TCP may use, beside whatever RDMA devices there are ("eth0"). Empty:
  // loopback only, since whoever reaches a TCP port of UCX can read and write this process' memory.
  // Shared memory needs no interface.
  std::string interface;
  // UCX's own list of network devices ("mlx5_0:1,eth0"; "all"), in place of the above.
  std::string net_devices;
  // Notice dead peers. Off only where it costs a zero-copy lane and another wire tells of deaths.
  bool error_handling = true;
  // How often an idle peer is asked whether it lives.
  Nanoseconds keepalive = 500 * kMillisecond;
  // Further settings of UCX without their prefix: {"TCP_TX_SEG_SIZE", "512K"}.
  std::vector<std::pair<std::string, std::string>> tuning;
  // Longer message headers travel in a message of their own; 0: as long as UCX allows.
  std::size_t max_inline_header = 0;
};

struct ConfigRelease {
  void operator()(ucp_config_t* config) const { ucp_config_release(config); }
};
using Config = std::unique_ptr<ucp_config_t, ConfigRelease>;

using Settings = std::vector<std::pair<std::string, std::string>>;

// What is set: PSHPC_UCX_<KEY> in the environment always wins;
// UCX_TLS and UCX_NET_DEVICES win over our defaults but not over the user's options.
Settings effective_settings(const Options& options);

Expected<Config> make_config(const Options& options);

}  // namespace pshpc::fabric::ucx
