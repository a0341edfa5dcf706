#include "objects/protocol.h"

namespace pshpc::objects {
namespace {

constexpr std::size_t kMaxOffers = 8;

Status garbled(const char* what) {
  return {Code::protocol, std::string("a peer sent a ") + what +
                              " that cannot be read; do both sides run the same version?"};
}

Status version_mismatch(std::uint32_t theirs) {
  return {Code::protocol, "the peer speaks protocol version " + std::to_string(theirs) +
                              ", this process version " + std::to_string(kProtocolVersion) +
                              "; install the same proxystore_hpc on both sides"};
}

void encode_offers(WireWriter& out, const std::vector<DoorOffer>& offers) {
  out.put(static_cast<std::uint8_t>(offers.size()));
  for (const DoorOffer& offer : offers)
    out.put_text(offer.door).put_blob(offer.address).put(offer.token);
}

bool decode_offers(WireReader& in, std::vector<DoorOffer>& offers) {
  const auto count = in.get<std::uint8_t>();
  if (count > kMaxOffers) return false;
  for (int i = 0; i < count && in.ok(); ++i) {
    DoorOffer offer;
    offer.door = in.get_text();
    offer.address = in.get_blob().copy();
    offer.token = in.get<std::uint64_t>();
    offers.push_back(std::move(offer));
  }
  return in.ok();
}

}  // namespace

Bytes Challenge::encode() const {
  WireWriter out;
  out.put(kProtocolVersion).put_tag(owner).put_tag(nonce);
  return out.take();
}

Expected<Challenge> Challenge::parse(ConstSpan body) {
  WireReader in(body);
  const auto version = in.get<std::uint32_t>();
  if (in.ok() && version != kProtocolVersion) return version_mismatch(version);
  Challenge challenge;
  challenge.owner = in.get_tag();
  challenge.nonce = in.get_tag();
  if (!in.at_end()) return garbled("challenge");
  return challenge;
}

Bytes Hello::encode() const {
  WireWriter out;
  out.put(kProtocolVersion).put_tag(client).put(proof_kind).put(object_id).put_tag(proof);
  out.put(has_pin_table);
  encode_offers(out, offers);
  return out.take();
}

Expected<Hello> Hello::parse(ConstSpan body) {
  WireReader in(body);
  const auto version = in.get<std::uint32_t>();
  if (in.ok() && version != kProtocolVersion) return version_mismatch(version);
  Hello hello;
  hello.client = in.get_tag();
  const auto proof_kind = in.get<std::uint8_t>();
  hello.proof_kind = static_cast<Proof>(proof_kind);
  hello.object_id = in.get<std::uint64_t>();
  hello.proof = in.get_tag();
  hello.has_pin_table = in.get<std::uint8_t>();
  if (!decode_offers(in, hello.offers) || !in.at_end() || proof_kind > 2) return garbled("hello");
  return hello;
}

Bytes Welcome::encode() const {
  WireWriter out;
  out.put_text(store).put_text(config).put(trusted).put_tag(proof);
  encode_offers(out, offers);
  return out.take();
}

Expected<Welcome> Welcome::parse(ConstSpan body) {
  WireReader in(body);
  Welcome welcome;
  welcome.store = in.get_text();
  welcome.config = in.get_text();
  welcome.trusted = in.get<std::uint8_t>();
  welcome.proof = in.get_tag();
  if (!decode_offers(in, welcome.offers) || !in.at_end()) return garbled("welcome");
  return welcome;
}

Tag prove(const Tag& key, const Tag& nonce, const OwnerId& client, const char* role) {
  WireWriter said;
  said.put_tag(nonce).put_tag(client).put_text(role);
  return siphash128(key, said.bytes());
}

const char* explain_code(Code code) {
  switch (code) {
    case Code::not_found: return "it was never stored, or is not set yet";
    case Code::evicted: return "it was evicted";
    case Code::denied: return "its key was not issued by this owner";
    case Code::pinned: return "it was stored with Pinned(); evict it with force=True";
    case Code::closed: return "its owner closed the store";
    default: return code_name(code);
  }
}

Bytes encode_reply(const Status& status, ConstSpan body) {
  WireWriter out;
  out.put(static_cast<std::uint8_t>(status.code()));
  if (!status.ok()) out.put_text(status.message());
  out.put_raw(body);
  return out.take();
}

Status decode_reply(ConstSpan reply, ConstSpan* body) {
  WireReader in(reply);
  const auto code = in.get<std::uint8_t>();
  if (!in.ok() || code > static_cast<std::uint8_t>(Code::system)) return garbled("reply");
  if (code == 0) {
    *body = in.rest();
    return {};
  }
  std::string message = in.get_text();
  if (!in.ok()) return garbled("reply");
  *body = in.rest();
  return {static_cast<Code>(code), std::move(message)};
}

}  // namespace pshpc::objects
