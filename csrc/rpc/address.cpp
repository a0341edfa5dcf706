#include "rpc/address.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

namespace pshpc::rpc {
namespace {

constexpr const char* kScheme = "pshpc://";

Status garbled(const std::string& text) {
  return {Code::invalid,
          "'" + text +
              "' is no address of an engine; it reads pshpc://HOST:PORT/ID?uid=N, or "
              "HOST:PORT for whoever answers there"};
}

// A number in decimal digits up to `largest`, nothing else.
bool parse_number(const std::string& digits, std::uint64_t largest, std::uint64_t* number) {
  if (digits.empty() || digits.size() > 10) return false;
  *number = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return false;
    *number = *number * 10 + static_cast<std::uint64_t>(digit - '0');
  }
  return *number <= largest;
}

bool parse_id(const std::string& digits, EngineId* id) {
  if (digits.size() != 2 * id->size()) return false;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const char digit = digits[i];
    int value;
    if (digit >= '0' && digit <= '9')
      value = digit - '0';
    else if (digit >= 'a' && digit <= 'f')
      value = digit - 'a' + 10;
    else
      return false;
    auto& byte = (*id)[i / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | value);
  }
  return true;
}

bool parse_host(std::string text, Address* address) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  std::uint64_t port = 0;
  if (!parse_number(text.substr(colon + 1), 65535, &port) || port == 0) return false;
  text.resize(colon);
  const bool bracketed = text.size() > 2 && text.front() == '[' && text.back() == ']';
  if (bracketed) text = text.substr(1, text.size() - 2);
  const auto bad = [](unsigned char c) { return std::isspace(c) || c == '/' || c == '@'; };
  if (text.empty() || text.size() > Address::kMaxHost || std::any_of(text.begin(), text.end(), bad))
    return false;
  if (!bracketed && text.find(':') != std::string::npos) return false;
  address->host = text;
  address->port = static_cast<std::uint16_t>(port);
  return true;
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

std::string Address::node_socket() const {
  return "proxystore-hpc/" + std::to_string(uid) + "/" + to_hex({id.data(), id.size()});
}

std::string Address::short_name() const {
  return anyone() ? host + ":" + std::to_string(port) : to_hex({id.data(), 4});
}

void Address::encode(WireWriter& out) const {
  out.put_tag(id).put(uid).put(port);
  out.put(static_cast<std::uint8_t>(host.size())).put_raw(ConstSpan(host));
}

Address Address::decode(WireReader& in) {
  Address address;
  address.id = in.get_tag();
  address.uid = in.get<std::uint32_t>();
  address.port = in.get<std::uint16_t>();
  const ConstSpan host = in.get_raw(in.get<std::uint8_t>());
  address.host.assign(reinterpret_cast<const char*>(host.data), host.size);
  return address;
}

Bytes Address::encode() const {
  WireWriter out;
  encode(out);
  return out.take();
}

Expected<Address> Address::parse(ConstSpan bytes) {
  WireReader in(bytes);
  Address address = decode(in);
  if (!in.at_end())
    return Status(Code::invalid,
                  "these bytes are no address of proxystore_hpc, or one that was cut short or "
                  "garbled");
  return address;
}

std::string Address::to_text() const {
  std::string text = kScheme;
  if (!host.empty()) {
    const bool bare = host.find(':') == std::string::npos;
    text += (bare ? host : "[" + host + "]") + ":" + std::to_string(port);
  }
  if (anyone()) return text;
  return text + "/" + to_hex({id.data(), id.size()}) + "?uid=" + std::to_string(uid);
}

Expected<Address> Address::from_text(const std::string& text) {
  const std::string scheme = kScheme;
  const bool full = text.compare(0, scheme.size(), scheme) == 0;
  const std::string rest = full ? text.substr(scheme.size()) : text;
  const std::size_t slash = rest.find('/');
  const std::string host = rest.substr(0, slash);
  Address address;
  address.uid = ::geteuid();
  if (slash == std::string::npos) {
    if (!parse_host(host, &address)) return garbled(text);
    return address;
  }
  if (!full || (!host.empty() && !parse_host(host, &address))) return garbled(text);
  std::string id = rest.substr(slash + 1);
  const std::size_t query = id.find('?');
  if (query != std::string::npos) {
    const std::string key = "?uid=";
    std::uint64_t uid = 0;
    if (id.compare(query, key.size(), key) != 0 ||
        !parse_number(id.substr(query + key.size()), 0xffffffffu, &uid))
      return garbled(text);
    address.uid = static_cast<std::uint32_t>(uid);
    id.resize(query);
  }
  if (!parse_id(id, &address.id) || address.anyone()) return garbled(text);
  return address;
}

}  // namespace pshpc::rpc
