#include "objects/key.h"

#include "base/wire.h"

namespace pshpc::objects {
namespace {

constexpr std::uint8_t kKeyVersion = 1;
constexpr std::size_t kMaxHost = 255;
// Of offsets and lengths: no address space is larger, and sums of them do not overflow.
constexpr int kAddressBits = 48;

void encode_owner(WireWriter& out, const OwnerAddress& owner) {
  out.put_tag(owner.owner).put(owner.uid).put(owner.port);
  out.put(static_cast<std::uint8_t>(owner.host.size())).put_raw(ConstSpan(owner.host));
  out.put(static_cast<std::uint8_t>(owner.fingerprint.size())).put_raw(owner.fingerprint);
}

Status invalid(const char* what) {
  return {Code::invalid, std::string("these bytes are no ") + what +
                             " of proxystore_hpc, or one that was cut short or garbled"};
}

OwnerAddress decode_owner(WireReader& in) {
  OwnerAddress owner;
  owner.owner = in.get_tag();
  owner.uid = in.get<std::uint32_t>();
  owner.port = in.get<std::uint16_t>();
  const ConstSpan host = in.get_raw(in.get<std::uint8_t>());
  owner.host.assign(reinterpret_cast<const char*>(host.data), host.size);
  owner.fingerprint = in.get_raw(in.get<std::uint8_t>()).copy();
  return owner;
}

}  // namespace

std::string to_hex(ConstSpan bytes) {
  static const char* digits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < bytes.size; ++i) {
    text += digits[bytes.data[i] >> 4];
    text += digits[bytes.data[i] & 15];
  }
  return text;
}

std::string OwnerAddress::node_socket() const {
  return "proxystore-hpc/" + std::to_string(uid) + "/" + to_hex({owner.data(), owner.size()});
}

std::string OwnerAddress::short_name() const { return to_hex({owner.data(), 4}); }

Bytes OwnerAddress::encode() const {
  WireWriter out;
  encode_owner(out, *this);
  return out.take();
}

Expected<OwnerAddress> OwnerAddress::parse(ConstSpan bytes) {
  WireReader in(bytes);
  OwnerAddress owner = decode_owner(in);
  if (!in.at_end() || (!owner.fingerprint.empty() && owner.fingerprint.size() != 16))
    return invalid("owner address");
  return owner;
}

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
  encode_owner(out, owner);
  return out.take();
}

Expected<Key> Key::parse(ConstSpan bytes) {
  WireReader in(bytes);
  if (in.get<std::uint8_t>() != kKeyVersion) return invalid("key");
  Key key;
  key.flags = in.get<std::uint8_t>();
  key.segment = in.get<std::uint16_t>();
  key.object_id = in.get<std::uint64_t>();
  key.generation = in.get<std::uint64_t>();
  key.offset = in.get<std::uint64_t>();
  key.length = in.get<std::uint64_t>();
  key.capability = in.get_tag();
  key.owner = decode_owner(in);
  if (!in.at_end() || key.flags > (kDeferred | kLive) || key.owner.host.size() > kMaxHost ||
      (key.offset >> kAddressBits) != 0 || (key.length >> kAddressBits) != 0 ||
      (!key.owner.fingerprint.empty() && key.owner.fingerprint.size() != 16))
    return invalid("key");
  return key;
}

}  // namespace pshpc::objects
