#pragma once
// Segments of another process, mapped here once each.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/mapping.h"
#include "base/status.h"

namespace pshpc::fabric {

// A mapped segment. Views keep it by shared_ptr, so it may outlive the connection and its owner:
// the memory goes when the last mapping does.
class MappedSegment {
 public:
  // Takes sizes from the descriptor itself, and refuses one that could shrink under the mapping.
  static Expected<std::shared_ptr<MappedSegment>> map(Fd fd, bool writable);

  std::uint8_t* data() const { return mapping_.data(); }
  std::size_t size() const { return mapping_.size(); }
  bool covers(std::uint64_t offset, std::uint64_t length) const {
    return offset <= size() && length <= size() - offset;
  }
  // A private mapping of a part: writes stay in this process. `offset` is page aligned.
  Expected<Mapping> copy_on_write(std::uint64_t offset, std::size_t length) const;

 private:
  MappedSegment(GuardedFd fd, Mapping mapping) : fd_(std::move(fd)), mapping_(std::move(mapping)) {}

  GuardedFd fd_;
  Mapping mapping_;
};

}  // namespace pshpc::fabric
