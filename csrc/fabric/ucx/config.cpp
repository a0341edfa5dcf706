#include "fabric/ucx/config.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <system_error>

#include "base/log.h"
#include "fabric/ucx/errors.h"
#include "fabric/ucx/inspect.h"

namespace pshpc::fabric::ucx {
namespace {

// A prefix of our own: our tuning never touches the UCX of an MPI in the same process.
constexpr const char* kPrefix = "PSHPC";

bool in_environment(const std::string& name) { return std::getenv(name.c_str()) != nullptr; }

std::string seconds(Nanoseconds t) { return std::to_string(static_cast<double>(t) / 1e9) + "s"; }

// ",mlx5_0:1,...": every port of every device that verbs know.
std::string rdma_devices() {
  namespace fs = std::filesystem;
  std::string list;
  std::error_code none;
  for (const auto& device : fs::directory_iterator("/sys/class/infiniband", none))
    for (const auto& port : fs::directory_iterator(device.path() / "ports", none))
      list += "," + device.path().filename().string() + ":" + port.path().filename().string();
  return list;
}

bool uses_loopback_only(const Options& options) {
  return options.net_devices.empty() && options.interface.empty() &&
         !in_environment("UCX_NET_DEVICES");
}

// Older versions warn of settings for transports that are not in use.
bool may_use(const Options& options, std::initializer_list<const char*> transports) {
  if (options.tls.empty() || options.tls == "all") return true;
  return std::any_of(transports.begin(), transports.end(), [&options](const char* transport) {
    return ("," + options.tls + ",").find("," + std::string(transport) + ",") != std::string::npos;
  });
}

Settings wanted(const Options& options) {
  Settings settings;
  if (!options.tls.empty()) settings.emplace_back("TLS", options.tls);
  if (!options.net_devices.empty())
    settings.emplace_back("NET_DEVICES", options.net_devices);
  else if (!options.interface.empty())
    settings.emplace_back("NET_DEVICES", options.interface + rdma_devices());
  else if (uses_loopback_only(options))
    settings.emplace_back("NET_DEVICES", "lo");
  if (options.error_handling) {
    // Without these two, endpoints that notice dead peers lose shared memory and CMA. "MM" covers
    // posix and sysv, by a name that all versions know.
    if (may_use(options, {"posix", "sysv", "mm", "shm", "sm"}))
      settings.emplace_back("MM_ERROR_HANDLING", "y");
    // The two are equal in UCX's eyes; posix was 5 to 15 % faster for large messages.
    if (may_use(options, {"mm", "shm", "sm"}) && version().at_least(1, 15))
      settings.emplace_back("SYSV_BW", "10000MBs");
    if (may_use(options, {"cma", "shm", "sm"}) && version().at_least(1, 15))
      settings.emplace_back("CMA_MEMORY_INVALIDATE", "y");
    settings.emplace_back("KEEPALIVE_INTERVAL", seconds(options.keepalive));
  }
  // Packets of 8 KiB cost more than the bytes in them. Always, since both ends must agree.
  if (may_use(options, {"tcp"})) {
    // 1.13 takes names of transport settings without the transport.
    const std::string transport = version().at_least(1, 15) ? "TCP_" : "";
    settings.emplace_back(transport + "TX_SEG_SIZE", "512K");
    settings.emplace_back(transport + "RX_SEG_SIZE", "512K");
  }
  // Without RDMA a large message goes fastest in pieces that both sides copy at the same time:
  // process_vm_readv spends as long on finding the pages as on copying them.
  if (rdma_devices().empty() || uses_loopback_only(options))
    settings.emplace_back("RNDV_SCHEME", "am");
  settings.insert(settings.end(), options.tuning.begin(), options.tuning.end());
  return settings;
}

// PSHPC_UCX_TCP_TX_SEG_SIZE=512K: UCX itself honours a foreign prefix only for the settings of its
// upper layer, not for those of transports.
Settings from_environment() {
  const std::string prefix = std::string(kPrefix) + "_UCX_";
  Settings settings;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    const std::size_t equals = text.find('=');
    if (text.compare(0, prefix.size(), prefix) == 0 && equals != std::string::npos)
      settings.emplace_back(text.substr(prefix.size(), equals - prefix.size()),
                            text.substr(equals + 1));
  }
  return settings;
}

}  // namespace

Settings effective_settings(const Options& options) {
  Settings settings = wanted(options);
  for (auto& users : from_environment()) {
    const auto same = std::find_if(settings.begin(), settings.end(),
                                   [&](const auto& ours) { return ours.first == users.first; });
    if (same != settings.end())
      same->second = users.second;
    else
      settings.push_back(std::move(users));
  }
  return settings;
}

Expected<Config> make_config(const Options& options) {
  ucp_config_t* raw = nullptr;
  const ucs_status_t status = ucp_config_read(kPrefix, nullptr, &raw);
  if (status != UCS_OK) return to_status(status, "reading the configuration of UCX");
  Config config(raw);
  for (const auto& [key, value] : effective_settings(options)) {
    const ucs_status_t refused = ucp_config_modify(config.get(), key.c_str(), value.c_str());
    if (refused == UCS_OK) continue;
    // A setting that this version does not know is a lost optimisation, a transport list is not.
    if (key == "TLS" || key == "NET_DEVICES")
      return to_status(refused, "setting " + key + "=" + value + " for UCX");
    log_debug("UCX refused " + key + "=" + value + ": " + ucs_status_string(refused));
  }
  return config;
}

}  // namespace pshpc::fabric::ucx
