#include <string>

#include "rpc/hello.h"
#include "rpc/wire.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::rpc;
using pshpc::test::Random;

namespace {

std::vector<DoorOffer> some_offers(Random& random) {
  std::vector<DoorOffer> offers(random.below(4));
  for (DoorOffer& offer : offers) {
    offer.door = std::string(random.below(10), 'd');
    offer.address = random.bytes(random.below(300));
    offer.token = random.below(~0ull);
    offer.attached = static_cast<std::uint8_t>(random.below(3));
  }
  return offers;
}

Hello some_hello(Random& random) {
  Hello hello;
  hello.client.id = random_tag();
  hello.client.host = std::string(random.below(40), 'h');
  hello.client.port = static_cast<std::uint16_t>(random.below(65536));
  hello.proof_kind = static_cast<Hello::Proof>(random.below(3));
  hello.ticket = random.below(~0ull);
  hello.proof = random_tag();
  hello.attached = static_cast<std::uint8_t>(random.below(2));
  hello.offers = some_offers(random);
  return hello;
}

Welcome some_welcome(Random& random) {
  Welcome welcome;
  welcome.name = std::string(random.below(30), 's');
  welcome.config = std::string(random.below(300), '{');
  welcome.trusted = static_cast<std::uint8_t>(random.below(2));
  welcome.proof = random_tag();
  welcome.offers = some_offers(random);
  return welcome;
}

// Every cut fails; garbled bytes fail or stand for exactly themselves.
template <class Message>
void check_parser(Random& random, const Bytes& bytes) {
  auto parsed = Message::parse(bytes);
  REQUIRE(parsed.ok());
  CHECK(parsed->encode() == bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CHECK_EQ(Message::parse(ConstSpan(bytes).slice(0, size)).status().code(), Code::protocol);
  for (int i = 0; i < 20; ++i) {
    const Bytes other = random.garbled(bytes);
    auto garbled = Message::parse(other);
    if (garbled.ok())
      CHECK(garbled->encode() == other);
    else
      CHECK_EQ(garbled.status().code(), Code::protocol);
  }
}

}  // namespace

TEST(protocol_greetings_round_trip_and_garbled) {
  Random random(20);
  for (int i = 0; i < 100; ++i) {
    check_parser<Challenge>(random, Challenge{random_tag(), random_tag()}.encode());
    check_parser<Hello>(random, some_hello(random).encode());
    check_parser<Welcome>(random, some_welcome(random).encode());
  }
}

TEST(protocol_random_bytes) {
  Random random(21);
  for (int i = 0; i < 20000; ++i) {
    Bytes bytes = random.bytes(random.below(150));
    if (bytes.size() >= 4 && random.below(2) == 0)
      bytes[0] = kProtocolVersion, bytes[1] = bytes[2] = bytes[3] = 0;
    if (auto hello = Hello::parse(bytes); hello.ok()) CHECK(hello->encode() == bytes);
    if (auto welcome = Welcome::parse(bytes); welcome.ok()) CHECK(welcome->encode() == bytes);
    ConstSpan body;
    const Status status = decode_reply(bytes, &body);
    if (status.ok()) CHECK(body.size < bytes.size());
  }
}

TEST(protocol_versions_are_named_when_they_differ) {
  Random random(22);
  Bytes hello = some_hello(random).encode();
  hello[0] = 9;
  const auto parsed = Hello::parse(hello);
  CHECK_EQ(parsed.status().code(), Code::protocol);
  CHECK(parsed.status().message().find("version 9") != std::string::npos);
}

TEST(protocol_too_many_offers_are_refused) {
  Hello hello;
  hello.offers.resize(9);
  CHECK_EQ(Hello::parse(hello.encode()).status().code(), Code::protocol);
}

TEST(protocol_replies) {
  ConstSpan body;
  const Bytes good = encode_reply({}, 0, 7, Bytes{1, 2}, ConstSpan(Bytes{3}));
  CHECK(decode_reply(good, &body).ok());
  CHECK((body.copy() == Bytes{1, 2, 3}));
  const Bytes bad = encode_reply({Code::evicted, "it was evicted"}, 0, 7, Bytes{4}, {});
  const Status status = decode_reply(bad, &body);
  CHECK_EQ(status.code(), Code::evicted);
  CHECK_EQ(status.message(), std::string("it was evicted"));
  CHECK_EQ(decode_reply({}, &body).code(), Code::protocol);
  CHECK_EQ(decode_reply(ConstSpan(good).slice(0, 15), &body).code(), Code::protocol);
  Bytes unknown = good;
  unknown[2] = 200;
  CHECK_EQ(decode_reply(unknown, &body).code(), Code::protocol);
  Bytes request = good;
  request[0] = 1;
  CHECK_EQ(decode_reply(request, &body).code(), Code::protocol);
}

// A proof is worth nothing for another nonce, another client or the other side.
TEST(protocol_proofs) {
  const Tag key = random_tag(), nonce = random_tag();
  const EngineId client = random_tag();
  const Tag proof = prove(key, nonce, client, "hello");
  CHECK(proof == prove(key, nonce, client, "hello"));
  CHECK(proof != prove(random_tag(), nonce, client, "hello"));
  CHECK(proof != prove(key, random_tag(), client, "hello"));
  CHECK(proof != prove(key, nonce, random_tag(), "hello"));
  CHECK(proof != prove(key, nonce, client, "welcome"));
}
