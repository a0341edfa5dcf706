#pragma once
// Names of objects. What a key holds is described in docs/protocol.md;
// proxystore_hpc/key.py reads the same bytes.

#include <cstdint>
#include <string>

#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "rpc/address.h"

namespace pshpc::objects {

using OwnerId = rpc::EngineId;
using OwnerAddress = rpc::Address;

struct Key {
  enum Flags : std::uint8_t { kDeferred = 1, kLive = 2, kRaised = 4 };
  static constexpr std::size_t kMaxOutside = 1024;

  std::uint8_t flags = 0;
  std::uint16_t segment = 0;  // with `offset`: where the block is; unknown for deferred keys
  std::uint64_t object_id = 0;
  std::uint64_t generation = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  // of the payload
  Tag capability{};
  OwnerAddress owner;
  Bytes outside;  // where the owner is reached by TCP; read by Python only

  bool deferred() const { return flags & kDeferred; }
  std::string describe() const;  // "object 7 of owner 12ab34cd"
  Bytes encode() const;
  static Expected<Key> parse(ConstSpan bytes);
};

}  // namespace pshpc::objects
