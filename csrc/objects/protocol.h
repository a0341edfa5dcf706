#pragma once
// What processes ask each other about objects (docs/protocol.md).

#include <cstdint>

#include "base/status.h"
#include "base/wire.h"
#include "objects/key.h"
#include "rpc/messenger.h"

namespace pshpc::objects {

// The requests of the store's own control plane, as methods of the RPC layer.
enum class Kind : std::uint16_t {
  locate = 1,  // object -> key
  exists,      // objects -> codes
  evict,       // objects -> codes
  segment,     // object, segment -> descriptor
  region,      // object, region, door -> handle
  reserve,     // length -> object, block
  deliver,     // object, offset, bytes
  publish,     // object, policy -> key
  abort,       // object
  fetch,       // object, range -> bytes
  wait,        // object -> key, once it is published
  pin_table,   // another table of the reader's
  hold,        // references -> codes
  release,     // references -> codes
  extend,      // time to live, objects -> codes
  validate,    // objects, generations -> codes
  store,       // policy, bytes -> key
};
inline constexpr Kind kLastKind = Kind::store;

inline rpc::Target target_of(Kind kind) { return {static_cast<rpc::MethodId>(kind), 0}; }
const char* kind_name(Kind kind);

// What one socket frame carries at most of fetched or delivered bytes.
inline constexpr std::uint64_t kChunk = 1u << 20;
// Up to this size an object is stored by one request instead of three, for two more copies of it.
inline constexpr std::uint64_t kStoredAtOnce = 4096;
// Objects in one request that names several.
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

// A block for an object: a new one, or, as for Into, one that is known.
struct ReserveOrder {
  std::uint64_t length = 0;
  ObjectRef object;
  std::uint64_t claim = 0;

  void encode(WireWriter& out) const {
    out.put(length);
    object.encode(out);
    out.put(claim);
  }
  static ReserveOrder decode(WireReader& in) {
    ReserveOrder order;
    order.length = in.get<std::uint64_t>();
    order.object = ObjectRef::decode(in);
    order.claim = in.get<std::uint64_t>();
    return order;
  }
};

inline ObjectRef ref_of(const Key& key) { return {key.object_id, key.capability}; }

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

}  // namespace pshpc::objects
