#pragma once
// Procedures that every process serves: is it there, how fast, what does it offer.

#include <memory>

#include "rpc/messenger.h"

namespace pshpc::rpc {

inline constexpr const char* kPing = "pshpc.ping";    // nothing -> nothing
inline constexpr const char* kEcho = "pshpc.echo";    // body and payload -> the same
inline constexpr const char* kNames = "pshpc.names";  // -> count, then a name and a provider each

Status serve_diagnostics(const std::shared_ptr<Messenger>& messenger);

}  // namespace pshpc::rpc
