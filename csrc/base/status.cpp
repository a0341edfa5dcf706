#include "base/status.h"

#include <cerrno>
#include <cstring>

namespace pshpc {

const char* code_name(Code code) {
  switch (code) {
    case Code::ok: return "ok";
    case Code::invalid: return "invalid";
    case Code::not_found: return "not_found";
    case Code::evicted: return "evicted";
    case Code::owner_gone: return "owner_gone";
    case Code::peer_lost: return "peer_lost";
    case Code::timed_out: return "timed_out";
    case Code::full: return "full";
    case Code::closed: return "closed";
    case Code::denied: return "denied";
    case Code::protocol: return "protocol";
    case Code::unavailable: return "unavailable";
    case Code::changed: return "changed";
    case Code::pinned: return "pinned";
    case Code::forked: return "forked";
    case Code::no_method: return "no_method";
    case Code::no_provider: return "no_provider";
    case Code::cancelled: return "cancelled";
    case Code::replaced: return "replaced";
    case Code::raised: return "raised";
    case Code::failed: return "failed";
    case Code::system: return "system";
    case Code::unreached: return "unreached";
    case Code::borrowed: return "borrowed";
    case Code::moved: return "moved";
  }
  return "unknown";
}

Status system_error(const std::string& attempted, int error_number) {
  return {Code::system, attempted + ": " + std::strerror(error_number)};
}

Status system_error(const std::string& attempted) { return system_error(attempted, errno); }

}  // namespace pshpc
