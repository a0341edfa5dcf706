#pragma once
// Which transports an endpoint really got, read from what UCX prints about it: the query for them
// is younger than the API we build on and does not tell what a lane is used for.

#include <string>
#include <vector>

namespace pshpc::fabric::ucx {

struct Lane {
  std::string transport;           // "cma"
  std::string device;              // "memory"
  std::vector<std::string> roles;  // "am", "rma_bw", "keepalive", ...
};

std::vector<Lane> parse_lanes(const std::string& printed);

// Some lane reads a peer's registered memory without the peer's CPU. UCX reads over the others too,
// but by asking the peer to copy. Before UCX 1.16 reads never took the lanes made for bandwidth.
bool reads_one_sided(const std::vector<Lane>& lanes, bool bandwidth_lanes_count);

// The reads are done by the kernel of this node, page by page.
bool reads_by_kernel(const std::vector<Lane>& lanes);

// A network card reads or writes memory by itself.
bool uses_rdma(const std::vector<Lane>& lanes);

// Two processes of one node, by shared memory.
bool shares_memory(const std::vector<Lane>& lanes);

// "posix/memory(am) cma/memory(rma_bw)".
std::string describe(const std::vector<Lane>& lanes);

}  // namespace pshpc::fabric::ucx
