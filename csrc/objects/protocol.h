#pragma once
// The messages between the processes of a job (docs/protocol.md). The same requests travel over
// sockets of ours and over a door's messages.

#include <cstdint>
#include <string>
#include <vector>

#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "base/wire.h"
#include "objects/key.h"

namespace pshpc::objects {

inline constexpr std::uint32_t kProtocolVersion = 1;

enum class Kind : std::uint16_t {
  challenge = 1,  // the server's first word; answers nothing
  hello,
  reply,
  locate,     // object -> key
  exists,     // objects -> codes
  evict,      // objects -> codes
  segment,    // object, segment -> descriptor
  region,     // object, region, door -> handle
  reserve,    // length -> object, block
  deliver,    // object, offset, bytes
  publish,    // object, policy -> key
  abort,      // object
  fetch,      // object, range -> bytes
  wait,       // object -> key, once it is published
  pin_table,  // another table of the reader's
};

// What one socket frame carries at most of fetched or delivered bytes.
inline constexpr std::uint64_t kChunk = 1u << 20;
// Objects in one exists or evict request.
inline constexpr std::size_t kMaxBatch = 10'000;

struct ObjectRef {
  std::uint64_t object_id = 0;
  Tag capability{};

  void encode(WireWriter& out) const { out.put(object_id).put_tag(capability); }
  static ObjectRef decode(WireReader& in) {
    ObjectRef ref;
    ref.object_id = in.get<std::uint64_t>();
    ref.capability = in.get_tag();
    return ref;
  }
};

inline ObjectRef ref_of(const Key& key) { return {key.object_id, key.capability}; }

// How to reach a peer through one door.
struct DoorOffer {
  std::string door;
  Bytes address;
  std::uint64_t token = 0;  // what the other side shall put into its messages
};

struct Challenge {
  OwnerId owner{};
  Tag nonce{};

  Bytes encode() const;
  static Expected<Challenge> parse(ConstSpan body);
};

struct Hello {
  enum class Proof : std::uint8_t { none, secret, capability };

  OwnerId client{};
  Proof proof_kind = Proof::none;
  std::uint64_t object_id = 0;  // whose capability the proof shows
  Tag proof{};
  std::uint8_t has_pin_table = 0;
  std::vector<DoorOffer> offers;

  Bytes encode() const;
  static Expected<Hello> parse(ConstSpan body);
};

struct Welcome {
  std::string store;   // its name
  std::string config;  // JSON, for processes that have no such store yet
  std::uint8_t trusted = 0;
  Tag proof{};  // that the server knows the same key
  std::vector<DoorOffer> offers;

  Bytes encode() const;
  static Expected<Welcome> parse(ConstSpan body);
};

// Shows that one knows `key` without sending it.
Tag prove(const Tag& key, const Tag& nonce, const OwnerId& client, const char* role);

struct FetchReply {
  std::uint64_t generation = 0;
  std::uint64_t sequence = 0;
  std::uint64_t total = 0;        // the payload's length
  std::uint64_t live_offset = 0;  // 0: nothing of it is live

  static FetchReply decode(WireReader& in) {
    FetchReply reply;
    reply.generation = in.get<std::uint64_t>();
    reply.sequence = in.get<std::uint64_t>();
    reply.total = in.get<std::uint64_t>();
    reply.live_offset = in.get<std::uint64_t>();
    return reply;
  }
};

// What a code in the answer to a batch means, for people.
const char* explain_code(Code code);

// A reply's body: the status, then what the request is answered with.
Bytes encode_reply(const Status& status, ConstSpan body);
// The status of the other side, or Code::protocol; `body` is what follows.
Status decode_reply(ConstSpan reply, ConstSpan* body);

}  // namespace pshpc::objects
