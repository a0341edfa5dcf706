#pragma once
// Where a process of ours can be asked.

#include <cstdint>
#include <string>

#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "base/wire.h"

namespace pshpc::rpc {

// Random for every start of a process, so that a new process on an old address is told apart.
using EngineId = Tag;

std::string to_hex(ConstSpan bytes);

struct Address {
  static constexpr std::size_t kMaxHost = 255;

  EngineId id{};  // all zero: whoever answers at host and port
  std::uint32_t uid = 0;
  std::string host;  // empty: reachable on its node only
  std::uint16_t port = 0;

  std::string node_socket() const;  // follows from uid and id
  std::string short_name() const;   // the first 8 hex digits of the id, or host:port
  bool anyone() const { return id == EngineId{}; }

  Bytes encode() const;
  static Expected<Address> parse(ConstSpan bytes);
  void encode(WireWriter& out) const;
  // Check the reader afterwards.
  static Address decode(WireReader& in);

  // "pshpc://host:port/ID?uid=1000", "pshpc:///ID?uid=1000" for one on its node only; and, to be
  // parsed, "host:port", "pshpc://host:port" for whoever answers there, "[::1]:7777".
  std::string to_text() const;
  static Expected<Address> from_text(const std::string& text);
};

}  // namespace pshpc::rpc
