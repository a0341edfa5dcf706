#include "rpc/hello.h"

namespace pshpc::rpc {
namespace {

constexpr std::size_t kMaxOffers = 8;

Status version_mismatch(std::uint32_t theirs) {
  return {Code::protocol, "the peer speaks protocol version " + std::to_string(theirs) +
                              ", this process version " + std::to_string(kProtocolVersion) +
                              "; install the same proxystore_hpc on both sides"};
}

void encode_offers(WireWriter& out, const std::vector<DoorOffer>& offers) {
  out.put(static_cast<std::uint8_t>(offers.size()));
  for (const DoorOffer& offer : offers)
    out.put_text(offer.door).put_blob(offer.address).put(offer.token).put(offer.attached);
}

bool decode_offers(WireReader& in, std::vector<DoorOffer>& offers) {
  const auto count = in.get<std::uint8_t>();
  if (count > kMaxOffers) return false;
  for (int i = 0; i < count && in.ok(); ++i) {
    DoorOffer offer;
    offer.door = in.get_text();
    offer.address = in.get_blob().copy();
    offer.token = in.get<std::uint64_t>();
    offer.attached = in.get<std::uint8_t>();
    offers.push_back(std::move(offer));
  }
  return in.ok();
}

}  // namespace

Status garbled(const char* what) {
  return {Code::protocol, std::string("a peer sent a ") + what +
                              " that cannot be read; do both sides run the same version?"};
}

Bytes Challenge::encode() const {
  WireWriter out;
  out.put(kProtocolVersion).put_tag(id).put_tag(nonce);
  return out.take();
}

Expected<Challenge> Challenge::parse(ConstSpan body) {
  WireReader in(body);
  const auto version = in.get<std::uint32_t>();
  if (in.ok() && version != kProtocolVersion) return version_mismatch(version);
  Challenge challenge;
  challenge.id = in.get_tag();
  challenge.nonce = in.get_tag();
  if (!in.at_end()) return garbled("challenge");
  return challenge;
}

Bytes Hello::encode() const {
  WireWriter out;
  out.put(kProtocolVersion);
  client.encode(out);
  out.put(proof_kind).put(ticket).put_tag(proof).put(attached);
  encode_offers(out, offers);
  return out.take();
}

Expected<Hello> Hello::parse(ConstSpan body) {
  WireReader in(body);
  const auto version = in.get<std::uint32_t>();
  if (in.ok() && version != kProtocolVersion) return version_mismatch(version);
  Hello hello;
  hello.client = Address::decode(in);
  const auto proof_kind = in.get<std::uint8_t>();
  hello.proof_kind = static_cast<Proof>(proof_kind);
  hello.ticket = in.get<std::uint64_t>();
  hello.proof = in.get_tag();
  hello.attached = in.get<std::uint8_t>();
  if (!decode_offers(in, hello.offers) || !in.at_end() || proof_kind > 2) return garbled("hello");
  return hello;
}

Bytes Welcome::encode() const {
  WireWriter out;
  out.put_text(name).put_text(config).put(trusted).put_tag(proof);
  encode_offers(out, offers);
  return out.take();
}

Expected<Welcome> Welcome::parse(ConstSpan body) {
  WireReader in(body);
  Welcome welcome;
  welcome.name = in.get_text();
  welcome.config = in.get_text();
  welcome.trusted = in.get<std::uint8_t>();
  welcome.proof = in.get_tag();
  if (!decode_offers(in, welcome.offers) || !in.at_end()) return garbled("welcome");
  return welcome;
}

Tag prove(const Tag& key, const Tag& nonce, const EngineId& client, const char* role) {
  WireWriter said;
  said.put_tag(nonce).put_tag(client).put_text(role);
  return siphash128(key, said.bytes());
}

}  // namespace pshpc::rpc
