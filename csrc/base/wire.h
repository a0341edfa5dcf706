#pragma once
// Little-endian encoding of messages, and a reader that cannot be made to read past the end.

#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "base/siphash.h"
#include "base/span.h"

namespace pshpc {

class WireWriter {
 public:
  template <class T>
  WireWriter& put(T value) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
    return *this;
  }
  WireWriter& put_raw(ConstSpan span) {
    bytes_.insert(bytes_.end(), span.data, span.data + span.size);
    return *this;
  }
  WireWriter& put_tag(const Tag& tag) { return put_raw({tag.data(), tag.size()}); }
  // A length of 32 bits, then the bytes.
  WireWriter& put_blob(ConstSpan span) {
    put(static_cast<std::uint32_t>(span.size));
    return put_raw(span);
  }
  WireWriter& put_text(const std::string& text) { return put_blob(ConstSpan(text)); }

  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

// After the first short read every further read gives zeros and ok() stays false.
class WireReader {
 public:
  explicit WireReader(ConstSpan span) : rest_(span) {}

  template <class T>
  T get() {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    T value{};
    const ConstSpan raw = get_raw(sizeof(T));
    if (raw.size == sizeof(T)) std::memcpy(&value, raw.data, sizeof(T));
    return value;
  }
  ConstSpan get_raw(std::size_t size) {
    if (!ok_ || rest_.size < size) {
      ok_ = false;
      return {};
    }
    const ConstSpan taken = rest_.slice(0, size);
    rest_ = rest_.from(size);
    return taken;
  }
  Tag get_tag() {
    Tag tag{};
    const ConstSpan raw = get_raw(tag.size());
    if (ok_ && raw.size == tag.size()) std::memcpy(tag.data(), raw.data, raw.size);
    return tag;
  }
  ConstSpan get_blob() { return get_raw(get<std::uint32_t>()); }
  std::string get_text() {
    const ConstSpan raw = get_blob();
    return {reinterpret_cast<const char*>(raw.data), raw.size};
  }

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && rest_.empty(); }
  ConstSpan rest() const { return rest_; }

 private:
  ConstSpan rest_;
  bool ok_ = true;
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian");

}  // namespace pshpc
