#include "fabric/shm/segments.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

namespace pshpc::fabric {

Expected<std::shared_ptr<MappedSegment>> MappedSegment::map(Fd fd, bool writable) {
  struct stat facts{};
  if (::fstat(fd.get(), &facts) != 0) return system_error("looking at a segment");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
    return Status(Code::protocol, "a peer handed over a segment that could shrink under us");
  auto mapping = Mapping::file(fd.get(), 0, static_cast<std::size_t>(facts.st_size),
                               writable ? Mapping::Access::read_write : Mapping::Access::read);
  if (!mapping) return mapping.status();
  return std::shared_ptr<MappedSegment>(
      new MappedSegment(GuardedFd(std::move(fd)), std::move(mapping).value()));
}

Expected<Mapping> MappedSegment::copy_on_write(std::uint64_t offset, std::size_t length) const {
  if (!fd_) return Status(Code::forked, "the segment was mapped before this process was forked");
  return Mapping::file(fd_.get(), offset, length, Mapping::Access::copy_on_write);
}

}  // namespace pshpc::fabric
