#include "base/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>

namespace pshpc {

Expected<Mapping> Mapping::file(int fd, std::size_t offset, std::size_t size, Access access) {
  const int protection = access == Access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  const int sharing = access == Access::copy_on_write ? MAP_PRIVATE : MAP_SHARED;
  void* data = ::mmap(nullptr, size, protection, sharing, fd, static_cast<off_t>(offset));
  if (data == MAP_FAILED) return system_error("mapping " + std::to_string(size) + " bytes");
  return Mapping(data, size);
}

Expected<Mapping> Mapping::anonymous(std::size_t size) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return system_error("mapping " + std::to_string(size) + " bytes");
  return Mapping(data, size);
}

Expected<Mapping> Mapping::mirrored(int fd, std::size_t offset, std::size_t size) {
  auto both = anonymous(2 * size);
  if (!both) return both;
  for (const std::size_t at : {std::size_t{0}, size}) {
    void* data = ::mmap(both->data() + at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                        static_cast<off_t>(offset));
    if (data == MAP_FAILED) return system_error("mapping " + std::to_string(size) + " bytes twice");
  }
  return both;
}

void Mapping::reset() {
  if (data_ != nullptr) ::munmap(std::exchange(data_, nullptr), std::exchange(size_, 0));
}

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace pshpc
