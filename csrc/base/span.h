#pragma once
// Borrowed memory. A span never owns.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace pshpc {

using Bytes = std::vector<std::uint8_t>;

struct ConstSpan {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;

  ConstSpan() = default;
  ConstSpan(const void* d, std::size_t n) : data(static_cast<const std::uint8_t*>(d)), size(n) {}
  ConstSpan(const Bytes& b) : data(b.data()), size(b.size()) {}
  ConstSpan(const std::string& s) : ConstSpan(s.data(), s.size()) {}

  bool empty() const { return size == 0; }
  ConstSpan slice(std::size_t offset, std::size_t length) const { return {data + offset, length}; }
  ConstSpan from(std::size_t offset) const { return {data + offset, size - offset}; }
  Bytes copy() const { return Bytes(data, data + size); }
};

struct Span {
  std::uint8_t* data = nullptr;
  std::size_t size = 0;

  Span() = default;
  Span(void* d, std::size_t n) : data(static_cast<std::uint8_t*>(d)), size(n) {}
  Span(Bytes& b) : data(b.data()), size(b.size()) {}

  operator ConstSpan() const { return {data, size}; }
  bool empty() const { return size == 0; }
  Span slice(std::size_t offset, std::size_t length) const { return {data + offset, length}; }
};

// As memcpy, which takes no null pointer, not even for no bytes.
inline void copy_bytes(void* to, ConstSpan from) {
  if (!from.empty()) std::memcpy(to, from.data, from.size);
}

}  // namespace pshpc
