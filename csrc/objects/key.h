#pragma once
// Names of objects and owners. What a key holds is described in docs/protocol.md;
// proxystore_hpc/key.py reads the same bytes.

#include <cstdint>
#include <string>

#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"

namespace pshpc::objects {

// Random for every start of a process, so that a new process on an old address is told apart.
using OwnerId = Tag;

std::string to_hex(ConstSpan bytes);

// Where an owner can be asked: its node socket follows from uid and id.
struct OwnerAddress {
  OwnerId owner{};
  std::uint32_t uid = 0;
  std::string host;  // empty: reachable on its node only
  std::uint16_t port = 0;
  Bytes fingerprint;  // of a TLS certificate; empty or 16 bytes

  std::string node_socket() const;
  std::string short_name() const;  // the first 8 hex digits of the id
  Bytes encode() const;
  static Expected<OwnerAddress> parse(ConstSpan bytes);
};

struct Key {
  enum Flags : std::uint8_t { kDeferred = 1, kLive = 2 };

  std::uint8_t flags = 0;
  std::uint16_t segment = 0;  // with `offset`: where the block is; unknown for deferred keys
  std::uint64_t object_id = 0;
  std::uint64_t generation = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  // of the payload
  Tag capability{};
  OwnerAddress owner;

  bool deferred() const { return flags & kDeferred; }
  std::string describe() const;  // "object 7 of owner 12ab34cd"
  Bytes encode() const;
  static Expected<Key> parse(ConstSpan bytes);
};

}  // namespace pshpc::objects
