#pragma once
// A mapped range of memory with exactly one owner.

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace pshpc {

class Mapping {
 public:
  enum class Access {
    read,           // shared with the file, read only
    read_write,     // shared with the file
    copy_on_write,  // private: writes stay in this process
  };

  Mapping() = default;
  static Expected<Mapping> file(int fd, std::size_t offset, std::size_t size, Access access);
  static Expected<Mapping> anonymous(std::size_t size);
  // A part of a file twice in a row, writable: what runs over the end goes on at the beginning.
  // size() is that of both; offset and size are multiples of the page size.
  static Expected<Mapping> mirrored(int fd, std::size_t offset, std::size_t size);

  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      reset();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { reset(); }

  std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }
  void reset();

 private:
  Mapping(void* data, std::size_t size) : data_(static_cast<std::uint8_t*>(data)), size_(size) {}

  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

std::size_t page_size();

// Rounds up to a power of two `alignment`.
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace pshpc
