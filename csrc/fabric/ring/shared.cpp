#include "fabric/ring/shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <new>
#include <utility>

namespace pshpc::fabric::ring {
namespace {

constexpr std::uint64_t kMagic = 0x31676e6972687370;  // "pshring1"
constexpr int kSizeSeals = F_SEAL_GROW | F_SEAL_SHRINK;

struct Control {
  std::uint64_t magic;
  std::uint64_t capacity;
  Flow flows[2];
};

std::size_t control_size() { return align_up(sizeof(Control), page_size()); }
std::size_t total_size() { return control_size() + 2 * kCapacity; }

}  // namespace

Flow& Shared::flow(int i) const { return reinterpret_cast<Control*>(control_.data())->flows[i]; }

Expected<Shared> Shared::map(int fd, bool connects) {
  Shared shared;
  shared.connects_ = connects;
  auto control = Mapping::file(fd, 0, control_size(), Mapping::Access::read_write);
  if (!control) return control.status().within("rings");
  shared.control_ = std::move(control).value();
  std::size_t at = control_size();
  for (Mapping& ring : shared.rings_) {
    auto mirrored = Mapping::mirrored(fd, at, kCapacity);
    if (!mirrored) return mirrored.status().within("rings");
    ring = std::move(mirrored).value();
    at += kCapacity;
  }
  return shared;
}

Expected<Shared> Shared::create(GuardedFd* fd) {
  *fd = GuardedFd(Fd(::memfd_create("pshpc-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!*fd) return system_error("creating rings");
  const auto size = static_cast<off_t>(total_size());
  if (::fchmod(fd->get(), 0600) != 0 || ::ftruncate(fd->get(), size) != 0 ||
      ::fallocate(fd->get(), 0, 0, size) != 0 ||
      ::fcntl(fd->get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0)
    return system_error("preparing rings");
  auto shared = map(fd->get(), true);
  if (shared) new (shared->control_.data()) Control{kMagic, kCapacity, {}};
  return shared;
}

Expected<Shared> Shared::open(int fd) {
  struct stat facts{};
  if (::fstat(fd, &facts) != 0) return system_error("looking at a peer's rings");
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals)
    return Status(Code::denied, "the peer's rings are not sealed in their size");
  if (static_cast<std::size_t>(facts.st_size) != total_size())
    return Status(Code::denied, "the peer's rings have " + std::to_string(facts.st_size) +
                                    " bytes instead of " + std::to_string(total_size()));
  // Touching a hole would take memory of ours, and SIGBUS is what follows when there is none.
  if (static_cast<std::size_t>(facts.st_blocks) * 512 < total_size())
    return Status(Code::denied, "the peer's rings have holes");
  auto shared = map(fd, false);
  if (!shared) return shared;
  const auto& control = *reinterpret_cast<const Control*>(shared->control_.data());
  if (control.magic != kMagic || control.capacity != kCapacity)
    return Status(Code::protocol, "what the peer handed over are no rings of this version");
  return shared;
}

std::size_t Writer::room(std::size_t wanted) {
  std::uint64_t used = tail_ - head_;
  if (used > kCapacity || kCapacity - used < wanted) {
    head_ = flow_.head.load(std::memory_order_acquire);
    used = tail_ - head_;
  }
  return used > kCapacity ? 0 : kCapacity - static_cast<std::size_t>(used);
}

}  // namespace pshpc::fabric::ring
