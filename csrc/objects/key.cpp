#include "objects/key.h"

#include "base/wire.h"

namespace pshpc::objects {
namespace {

constexpr std::uint8_t kKeyVersion = 2;
constexpr std::uint8_t kFirstVersion = 1;
// Of offsets and lengths: no address space is larger, and sums of them do not overflow.
constexpr int kAddressBits = 48;

Status invalid() {
  return {Code::invalid,
          "these bytes are no key of proxystore_hpc, or one that was cut short or garbled"};
}

Status outdated() {
  return {Code::invalid,
          "this key is of version 1, which an older proxystore_hpc made; this one reads version 2: "
          "install the same version on both sides, and make the key anew"};
}

}  // namespace

std::string Key::describe() const {
  return "object " + std::to_string(object_id) + " of owner " + owner.short_name();
}

Bytes Key::encode() const {
  WireWriter out;
  out.put(kKeyVersion)
      .put(flags)
      .put(segment)
      .put(object_id)
      .put(generation)
      .put(offset)
      .put(length);
  out.put_tag(capability);
  owner.encode(out);
  out.put(static_cast<std::uint16_t>(outside.size())).put_raw(outside);
  return out.take();
}

Expected<Key> Key::parse(ConstSpan bytes) {
  WireReader in(bytes);
  const auto version = in.get<std::uint8_t>();
  if (version != kKeyVersion) return version == kFirstVersion ? outdated() : invalid();
  Key key;
  key.flags = in.get<std::uint8_t>();
  key.segment = in.get<std::uint16_t>();
  key.object_id = in.get<std::uint64_t>();
  key.generation = in.get<std::uint64_t>();
  key.offset = in.get<std::uint64_t>();
  key.length = in.get<std::uint64_t>();
  key.capability = in.get_tag();
  key.owner = OwnerAddress::decode(in);
  key.outside = in.get_raw(in.get<std::uint16_t>()).copy();
  if (!in.at_end() || key.flags > (kDeferred | kLive | kRaised) ||
      key.outside.size() > kMaxOutside || (key.offset >> kAddressBits) != 0 ||
      (key.length >> kAddressBits) != 0)
    return invalid();
  return key;
}

}  // namespace pshpc::objects
