#include "rpc/address.h"

#include <string>

#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::rpc;
using pshpc::test::Random;

namespace {

bool same(const Address& a, const Address& b) {
  return a.id == b.id && a.uid == b.uid && a.host == b.host && a.port == b.port;
}

}  // namespace

TEST(address_text_round_trip) {
  Random random(40);
  const char* hosts[] = {"", "node12", "10.0.0.7", "fe80::1", "login.example.org"};
  for (int i = 0; i < 500; ++i) {
    Address address;
    address.id = random_tag();
    address.uid = static_cast<std::uint32_t>(random.below(1ull << 32));
    address.host = hosts[random.below(5)];
    if (!address.host.empty()) address.port = static_cast<std::uint16_t>(1 + random.below(65535));
    const std::string text = address.to_text();
    CHECK(text.size() < 100);
    const auto parsed = Address::from_text(text);
    REQUIRE(parsed.ok());
    CHECK(same(parsed.value(), address));
    // Bytes changed at random stand for exactly themselves, or for nothing.
    const Bytes garbled = random.garbled(ConstSpan(text).copy());
    const auto other = Address::from_text(std::string(garbled.begin(), garbled.end()));
    if (other.ok()) CHECK(same(other.value(), Address::from_text(other->to_text()).value()));
  }
}

TEST(address_of_whoever_answers) {
  for (const char* text : {"node1:7777", "pshpc://node1:7777", "[::1]:80"}) {
    const auto parsed = Address::from_text(text);
    REQUIRE(parsed.ok());
    CHECK(parsed->anyone());
    CHECK(parsed->port > 0);
  }
  CHECK_EQ(Address::from_text("[::1]:80")->host, std::string("::1"));
}

TEST(address_what_is_none_is_refused) {
  for (const char* text : {"", "pshpc://", "node1", "node1:", "node1:0", "node1:65536", "node1:80x",
                           ":80", "a b:80", "::1:80", "pshpc:///", "pshpc:///12", "node1:80/",
                           "http://node1:80", "pshpc:///00000000000000000000000000000000?uid=1",
                           "pshpc:///0123456789abcdef0123456789abcdeg",
                           "pshpc:///0123456789abcdef0123456789abcdef?gid=1",
                           "pshpc:///0123456789abcdef0123456789abcdef?uid=99999999999"}) {
    CHECK_EQ(Address::from_text(text).status().code(), Code::invalid);
  }
}
