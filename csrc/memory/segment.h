#pragma once
// One memfd: reserved page by page before use, sealed in its size, mapped once.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/mapping.h"
#include "base/span.h"
#include "base/status.h"
#include "memory/limits.h"
#include "memory/page_states.h"
#include "memory/region.h"

namespace pshpc::memory {

// Faults in whole pages around the span without changing a byte.
Status populate(Span span);
// The same on kernels before 5.14.
void populate_by_touching(Span span);

class Segment {
 public:
  // At most this much, as an offset takes 48 bits of a block word.
  static constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 48;

  enum class Reservation {
    automatic,
    by_file,     // fallocate(): takes pages without clearing them
    by_mapping,  // faults them in: huge pages that are given on advice only come this way
  };
  struct Options {
    std::uint32_t id = 0;
    std::uint32_t region_id = 0;
    std::string name;        // shows in /proc/PID/maps
    std::uint64_t size = 0;  // a multiple of the page size
    bool huge_pages = true;
    Reservation reservation = Reservation::automatic;
    // Asked before every slice that is reserved.
    std::function<MemoryLimits()> limits;
  };
  // Code::full when the memory cannot be had: nothing is left of the attempt then.
  static Expected<std::unique_ptr<Segment>> create(const Options& options);

  // One that another process made, of which this is a descriptor. Code::denied if its size is not
  // sealed.
  static Expected<std::unique_ptr<Segment>> adopt(const Options& options, Fd fd);

  std::uint32_t id() const { return id_; }
  std::uint64_t size() const { return mapping_.size(); }
  std::uint8_t* data() const { return mapping_.data(); }
  int fd() const { return fd_.get(); }  // read-write; -1 in a forked child
  Region region() const { return {region_id_, {data(), size()}, fd(), MemoryType::host}; }

  // For other processes. The holder of a read-only descriptor cannot map it writable.
  Expected<Fd> reopen_read_only() const;
  Expected<Fd> reopen_writable() const;

  // Writes by whatever way is the fastest for the pages' states.
  Status fill(std::uint64_t offset, ConstSpan source);
  // For memory that is about to be written through its address, or by a device.
  Status touch(std::uint64_t offset, std::uint64_t size);
  // Gives whole pages back to the system; they read as zeros from then on.
  Status punch(std::uint64_t offset, std::uint64_t size);
  std::uint64_t warm_bytes() const { return states_.mapped() * page_size(); }

 private:
  Segment(const Options& options, GuardedFd fd, Mapping mapping);
  Expected<Fd> reopen(int flags) const;
  Status write_through_file(std::uint64_t offset, ConstSpan source);

  std::uint32_t id_;
  std::uint32_t region_id_;
  GuardedFd fd_;
  Mapping mapping_;
  PageStates states_;
};

}  // namespace pshpc::memory
