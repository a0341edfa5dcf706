#include "fabric/ucx/lanes.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <sstream>

namespace pshpc::fabric::ucx {
namespace {

bool starts_with(const std::string& text, const char* prefix) {
  return text.compare(0, std::strlen(prefix), prefix) == 0;
}

bool has_role(const Lane& lane, const char* role) {
  return std::any_of(lane.roles.begin(), lane.roles.end(),
                     [role](const std::string& has) { return has == role; });
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
}

// "1:posix/memory.0": index, transport, device, path.
bool parse_resource(const std::string& text, Lane* lane) {
  const std::size_t colon = text.find(':');
  const std::size_t slash = text.find('/', colon);
  const std::size_t dot = text.rfind('.');
  if (colon == std::string::npos || slash == std::string::npos) return false;
  lane->transport = text.substr(colon + 1, slash - colon - 1);
  const bool has_path = dot != std::string::npos && dot > slash && is_number(text.substr(dot + 1));
  lane->device = text.substr(slash + 1, has_path ? dot - slash - 1 : std::string::npos);
  return !lane->transport.empty();
}

// By hardware or kernel, memory that was only registered. Not tcp, whose reads are answered by the
// peer, nor posix and sysv, which map only what UCX itself allocated.
constexpr std::array<const char*, 6> kCards = {"rc_", "dc_", "ud_", "gga_", "srd", "ugni_"};
constexpr std::array<const char*, 3> kKernels = {"cma", "knem", "xpmem"};
constexpr std::array<const char*, 2> kQueues = {"posix", "sysv"};

template <std::size_t N>
bool is_one_of(const Lane& lane, const std::array<const char*, N>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&lane](const char* name) { return starts_with(lane.transport, name); });
}

template <class Test>
bool any_used(const std::vector<Lane>& lanes, Test test) {
  return std::any_of(lanes.begin(), lanes.end(),
                     [&test](const Lane& lane) { return !lane.roles.empty() && test(lane); });
}

}  // namespace

std::vector<Lane> parse_lanes(const std::string& printed) {
  std::vector<Lane> lanes;
  std::istringstream lines(printed);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find("lane[");
    if (at == std::string::npos) continue;
    std::istringstream words(line.substr(at));
    Lane lane;
    std::string word;
    words >> word;  // lane[0]:
    if (!(words >> word) || !parse_resource(word, &lane)) continue;
    while (words >> word && word != "->") {
    }
    words >> word;  // md[1]/posix/sysdev[255]
    while (words >> word) {
      if (word == "seg") {
        words >> word;
        continue;
      }
      // "rma_bw#0" is the first lane of that role.
      lane.roles.push_back(word.substr(0, word.find('#')));
    }
    lanes.push_back(std::move(lane));
  }
  return lanes;
}

bool reads_one_sided(const std::vector<Lane>& lanes, bool bandwidth_lanes_count) {
  return any_used(lanes, [bandwidth_lanes_count](const Lane& lane) {
    const bool reads = has_role(lane, "rma") || (bandwidth_lanes_count && has_role(lane, "rma_bw"));
    // Datagrams without connection carry no reads.
    const bool can = is_one_of(lane, kCards) && !starts_with(lane.transport, "ud_");
    return reads && (can || is_one_of(lane, kKernels));
  });
}

bool reads_by_kernel(const std::vector<Lane>& lanes) {
  return any_used(lanes, [](const Lane& lane) { return is_one_of(lane, kKernels); });
}

bool uses_rdma(const std::vector<Lane>& lanes) {
  return any_used(lanes, [](const Lane& lane) { return is_one_of(lane, kCards); });
}

bool shares_memory(const std::vector<Lane>& lanes) {
  return any_used(lanes, [](const Lane& lane) {
    return is_one_of(lane, kQueues) || is_one_of(lane, kKernels);
  });
}

std::string describe(const std::vector<Lane>& lanes) {
  std::string text;
  for (const Lane& lane : lanes) {
    if (lane.roles.empty()) continue;
    text += (text.empty() ? "" : " ") + lane.transport + "/" + lane.device + "(";
    for (std::size_t i = 0; i < lane.roles.size(); ++i) text += (i ? "," : "") + lane.roles[i];
    text += ")";
  }
  return text;
}

}  // namespace pshpc::fabric::ucx
