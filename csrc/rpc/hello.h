#pragma once
// How two processes meet (docs/protocol.md): over a socket of ours they show that they know the
// same key, then tell each other how to be reached through their doors.

#include <cstdint>
#include <string>
#include <vector>

#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "base/wire.h"
#include "rpc/address.h"

namespace pshpc::rpc {

inline constexpr std::uint32_t kProtocolVersion = 6;

// Frames on our sockets.
enum class FrameKind : std::uint16_t {
  challenge = 1,  // the server's first word; answers nothing
  hello,
  request,  // a RequestHead, then its body
  reply,    // a ReplyHead, then its body and its payload
};

// How to reach a peer through one door.
struct DoorOffer {
  std::string door;
  Bytes address;
  std::uint64_t token = 0;    // what the other side shall put into its messages
  std::uint8_t attached = 0;  // descriptors that travel with it
};

struct Challenge {
  EngineId id{};
  Tag nonce{};

  Bytes encode() const;
  static Expected<Challenge> parse(ConstSpan body);
};

struct Hello {
  enum class Proof : std::uint8_t { none, secret, ticket };

  Address client;
  Proof proof_kind = Proof::none;
  std::uint64_t ticket = 0;  // which one the proof shows
  Tag proof{};
  std::uint8_t attached = 0;  // descriptors for the other side's Gate; those of offers follow
  std::vector<DoorOffer> offers;

  Bytes encode() const;
  static Expected<Hello> parse(ConstSpan body);
};

struct Welcome {
  std::string name;    // of the store or engine
  std::string config;  // JSON, for processes that have no such store yet
  std::uint8_t trusted = 0;
  Tag proof{};  // that the server knows the same key
  std::vector<DoorOffer> offers;

  Bytes encode() const;
  static Expected<Welcome> parse(ConstSpan body);
};

// Shows that one knows `key` without sending it.
Tag prove(const Tag& key, const Tag& nonce, const EngineId& client, const char* role);

Status garbled(const char* what);

}  // namespace pshpc::rpc
