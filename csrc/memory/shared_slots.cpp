#include "memory/shared_slots.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace pshpc::memory {
namespace {

constexpr int kSizeSeals = F_SEAL_GROW | F_SEAL_SHRINK;
// Memory that is taken at a time.
constexpr std::uint64_t kStep = 64 * 1024;

std::uint64_t bytes_of(std::uint64_t slots, std::size_t size) {
  return align_up(sizeof(SlotsHeader) + slots * size, page_size());
}

bool reserve(int fd, std::uint64_t offset, std::uint64_t length) {
  int result;
  do {
    result = ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

}  // namespace

SharedSlots::SharedSlots(GuardedFd fd, Mapping mapping, std::size_t size, std::uint64_t slots)
    : fd_(std::move(fd)), mapping_(std::move(mapping)), size_(size), slots_(slots) {}

Expected<std::unique_ptr<SharedSlots>> SharedSlots::create(const Kind& kind, std::uint64_t slots) {
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);  // past which SIGXFSZ would be raised
  if (limit.rlim_cur != RLIM_INFINITY)
    slots = std::min<std::uint64_t>(slots, limit.rlim_cur / kind.size / 2);
  const std::uint64_t size = bytes_of(slots, kind.size);
  const std::string what = std::string("making ") + kind.name;
  GuardedFd fd(Fd(::memfd_create(kind.name, MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd) return system_error(what);
  if (::fchmod(fd.get(), 0600) != 0 || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0)
    return system_error(what);
  const std::uint64_t first = std::min(kStep, size);
  if (!reserve(fd.get(), 0, first)) return Status(Code::full, what + ": there is no memory");
  auto mapping = Mapping::file(fd.get(), 0, size, Mapping::Access::read_write);
  if (!mapping) return mapping.status();
  std::unique_ptr<SharedSlots> made(
      new SharedSlots(std::move(fd), std::move(mapping).value(), kind.size, slots));
  made->header().magic = kind.magic;
  made->backed_ = std::min(slots, (first - sizeof(SlotsHeader)) / kind.size);
  return made;
}

// Pages are reserved before they are written: a first touch without memory would be SIGBUS.
bool SharedSlots::grow() {
  const std::uint64_t more = std::min(kStep / size_, slots_ - backed_);
  const std::uint64_t from = sizeof(SlotsHeader) + backed_ * size_;
  if (more == 0 || !reserve(fd(), from, more * size_)) return false;
  backed_ += more;
  return true;
}

SharedSlots::Slot SharedSlots::take() {
  if (!free_.empty()) {
    const Slot slot = free_.back();
    free_.pop_back();
    return slot;
  }
  const std::uint64_t used = header().ever_used.load(std::memory_order_relaxed);
  if (used == backed_ && !grow()) return kNone;
  header().ever_used.store(used + 1, std::memory_order_release);
  return static_cast<Slot>(used);
}

void SharedSlots::give_back(Slot slot) {
  if (slot != kNone) free_.push_back(slot);
}

Expected<SharedSlots::View> SharedSlots::read(const Fd& fd, const Kind& kind) {
  const std::string what = std::string("looking at ") + kind.name;
  struct stat facts{};
  if (::fstat(fd.get(), &facts) != 0) return system_error(what);
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  const auto size = static_cast<std::uint64_t>(facts.st_size);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals || size < bytes_of(0, kind.size))
    return Status(Code::denied, what + ": it is not sealed in its size");
  auto mapping = Mapping::file(fd.get(), 0, size, Mapping::Access::read);
  if (!mapping) return mapping.status().within(what);
  const auto& header = *reinterpret_cast<const SlotsHeader*>(mapping->data());
  if (header.magic != kind.magic)
    return Status(Code::protocol, what + ": it is of another kind or version");
  View view;
  view.count = std::min(header.ever_used.load(std::memory_order_acquire),
                        (size - sizeof(SlotsHeader)) / kind.size);
  view.size = kind.size;
  view.mapping = std::move(mapping).value();
  return view;
}

}  // namespace pshpc::memory
