#pragma once
// How fast a peer answers, without Python on either side.

#include <cstdint>
#include <vector>

#include "rpc/link.h"

namespace pshpc::rpc {

struct ProbeOptions {
  std::uint64_t calls = 1000;
  std::size_t window = 1;  // calls in flight
  std::size_t size = 0;    // bytes sent and echoed; 0: a null call
};

struct ProbeResult {
  std::vector<Nanoseconds> latencies;  // of each call; only with a window of 1
  Nanoseconds total = 0;
};

// Calls the peer's ping or echo over and over. Blocks; any thread.
Expected<ProbeResult> probe(Link& link, const ProbeOptions& options, Deadline deadline);

}  // namespace pshpc::rpc
