#include "fabric/ucx/inspect.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <sstream>

#include <ucp/api/ucp.h>

#include "fabric/ucx/context.h"

namespace pshpc::fabric::ucx {
Version version() {
  Version v;
  ucp_get_version(&v.major, &v.minor, &v.release);
  return v;
}

std::string version_text() { return ucp_get_version_string(); }

std::string headers_version() {
  return std::to_string(UCP_API_MAJOR) + "." + std::to_string(UCP_API_MINOR);
}

std::string library_path() {
  Dl_info info{};
  // The address of a function may be that of a stub in this library.
  void* symbol = ::dlsym(RTLD_DEFAULT, "ucp_get_version_string");
  if (symbol == nullptr) symbol = reinterpret_cast<void*>(&ucp_get_version_string);
  return ::dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

Inventory parse_inventory(const std::string& printed) {
  // "component 1  :  tcp", "md 1  :  component 1  tcp", "resource 1  :  md 1  dev 1 ... tcp/lo".
  Inventory inventory;
  std::map<std::string, std::string> domains;
  std::istringstream lines(printed);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream stream(line);
    std::vector<std::string> words;
    for (std::string word; stream >> word;)
      if (word != "#" && word != ":") words.push_back(word);
    if (words.size() < 3) continue;
    const std::string& last = words.back();
    if (words[0] == "component") inventory.components.push_back(last);
    if (words[0] == "md") domains[words[1]] = last;
    const std::size_t slash = last.find('/');
    if (words[0] != "resource" || words.size() < 5 || words[2] != "md" ||
        slash == std::string::npos)
      continue;
    inventory.transports.push_back(
        {last.substr(0, slash), last.substr(slash + 1), domains[words[3]]});
  }
  return inventory;
}

Expected<Inventory> full_inventory() {
  Options options;
  options.tls = "all";
  options.net_devices = "all";
  auto context = Context::create(options);
  if (!context) return context.status();
  return parse_inventory(context.value()->describe());
}

bool Inventory::has_verbs() const {
  return std::find(components.begin(), components.end(), "ib") != components.end();
}

}  // namespace pshpc::fabric::ucx
