#include "memory/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#ifndef MADV_POPULATE_WRITE  // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif

namespace pshpc::memory {
namespace {

// Shorter runs are not worth a system call.
constexpr std::uint64_t kWorthACall = 16u << 10;
// The kernel holds the file's lock for one write: others get in between.
constexpr std::uint64_t kWriteChunk = 4u << 20;

enum class HugePages {
  none,       // not for shared memory on this machine
  on_advice,  // to memory that is faulted in through an advised mapping, not to fallocate()
  always,
};

std::string bracketed_word(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const auto open = line.find('['), close = line.find(']');
  if (open == std::string::npos || close == std::string::npos) return "";
  return line.substr(open + 1, close - open - 1);
}

HugePages huge_page_policy() {
  const std::string base = "/sys/kernel/mm/transparent_hugepage/";
  std::string policy = bracketed_word(base + "shmem_enabled");
  // Newer kernels decide by page size; "inherit" is the general setting.
  const std::string by_size = bracketed_word(base + "hugepages-2048kB/shmem_enabled");
  if (!by_size.empty() && by_size != "inherit" && policy != "deny" && policy != "force") {
    policy = by_size;
  }
  if (policy == "advise") return HugePages::on_advice;
  if (policy == "always" || policy == "within_size" || policy == "force") return HugePages::always;
  return HugePages::none;
}

Status full(const std::string& what) { return {Code::full, what}; }

// Growing a file past `ulimit -f` would not fail but raise SIGXFSZ.
Status check_file_size_limit(std::uint64_t size) {
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  if (limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur) return {};
  return full("the file size limit of this process (ulimit -f) is " +
              std::to_string(limit.rlim_cur) + " bytes");
}

// Without it, faulting in memory that the kernel does not have would be SIGBUS.
bool can_populate() { return ::madvise(nullptr, 0, MADV_POPULATE_WRITE) == 0; }

Status reserve_by_file(int fd, std::uint64_t offset, std::uint64_t length) {
  int result;
  do {
    result = ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return {};
  if (errno == ENOSPC || errno == ENOMEM) return full("the kernel has no such pages to give");
  return system_error("reserving " + std::to_string(length) + " bytes of a segment");
}

}  // namespace

Status populate(Span span) {
  if (span.empty()) return {};
  const auto begin = reinterpret_cast<std::uintptr_t>(span.data) & ~(page_size() - 1);
  const std::uintptr_t end =
      align_up(reinterpret_cast<std::uintptr_t>(span.data) + span.size, page_size());
  int result;
  do {
    result = ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) return {};
  if (errno != EINVAL) {
    return full("the kernel cannot fault in " + std::to_string(span.size) + " bytes");
  }
  populate_by_touching(span);
  return {};
}

// One write per page that changes nothing. Atomic, and inside the span, because its first and last
// page may be shared with blocks that are being written.
void populate_by_touching(Span span) {
  if (span.empty()) return;
  for (std::size_t at = 0; at < span.size; at += page_size()) {
    __atomic_fetch_or(span.data + at, 0, __ATOMIC_RELAXED);
  }
  __atomic_fetch_or(span.data + span.size - 1, 0, __ATOMIC_RELAXED);
}

Expected<std::unique_ptr<Segment>> Segment::create(const Options& options) {
  const std::uint64_t size = options.size;
  if (size == 0 || size > kMaxSize) {
    return Status(Code::invalid, "a segment of " + std::to_string(size) + " bytes");
  }
  if (Status status = check_file_size_limit(size); !status) return status;
  const std::string name = options.name.substr(0, 200) + "-" + std::to_string(options.id);
  GuardedFd fd(Fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd) return system_error("creating the segment " + name);
  // Others of this machine get at a segment by a descriptor that we hand them, in no other way.
  if (::fchmod(fd.get(), 0600) != 0) return system_error("protecting the segment " + name);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    return system_error("sizing the segment " + name);
  }
  // Nobody can shrink it under a reader, and nobody can forbid us to write.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return system_error("sealing the segment " + name);
  }
  auto mapping = Mapping::file(fd.get(), 0, size, Mapping::Access::read_write);
  if (!mapping) return full(mapping.status().message());

  const HugePages huge = options.huge_pages ? huge_page_policy() : HugePages::none;
  if (huge != HugePages::none) ::madvise(mapping->data(), size, MADV_HUGEPAGE);
  const bool by_mapping = options.reservation == Reservation::by_mapping ||
                          (options.reservation == Reservation::automatic &&
                           huge == HugePages::on_advice && can_populate());
  const auto take = [&](std::uint64_t offset, std::uint64_t length) {
    return by_mapping ? populate({mapping->data() + offset, length})
                      : reserve_by_file(fd.get(), offset, length);
  };
  if (Status status = take_in_slices(size, options.limits, take); !status) return status;

  std::unique_ptr<Segment> segment(new Segment(options, std::move(fd), std::move(mapping).value()));
  if (by_mapping) segment->states_.mark(0, size / page_size(), PageState::mapped);
  return segment;
}

Expected<std::unique_ptr<Segment>> Segment::adopt(const Options& options, Fd fd) {
  constexpr int kSizeSeals = F_SEAL_GROW | F_SEAL_SHRINK;
  struct stat facts{};
  if (::fstat(fd.get(), &facts) != 0) return system_error("looking at a segment");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  const auto size = static_cast<std::uint64_t>(facts.st_size);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals || size == 0 || size % page_size() != 0)
    return Status(Code::denied, "a segment that was handed over is not sealed in its size");
  auto mapping = Mapping::file(fd.get(), 0, size, Mapping::Access::read_write);
  if (!mapping) return mapping.status().within("a segment that was handed over");
  return std::unique_ptr<Segment>(
      new Segment(options, GuardedFd(std::move(fd)), std::move(mapping).value()));
}

Segment::Segment(const Options& options, GuardedFd fd, Mapping mapping)
    : id_(options.id),
      region_id_(options.region_id),
      fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      states_(mapping_.size() / page_size()) {}

Expected<Fd> Segment::reopen_read_only() const { return reopen(O_RDONLY); }
Expected<Fd> Segment::reopen_writable() const { return reopen(O_RDWR); }

Expected<Fd> Segment::reopen(int flags) const {
  if (fd() < 0) return Status(Code::forked, "the segment belongs to the parent process");
  const std::string path = "/proc/self/fd/" + std::to_string(fd());
  Fd reopened(::open(path.c_str(), flags | O_CLOEXEC));
  if (!reopened) return system_error("reopening a segment by " + path);
  return reopened;
}

Status Segment::fill(std::uint64_t offset, ConstSpan source) {
  const std::uint64_t page = page_size();
  const std::uint64_t end = offset + source.size;
  while (offset < end) {
    const auto run = states_.run(offset / page, (end + page - 1) / page);
    const std::uint64_t length = std::min(run.end * page, end) - offset;
    const ConstSpan part = source.slice(0, length);
    PageState reached = PageState::mapped;
    if (run.state == PageState::fresh && length >= kWorthACall) {
      if (Status status = write_through_file(offset, part); !status) return status;
      reached = PageState::written;
    } else {
      // A block that is filled a second time will be again: now its faults are worth taking.
      if (run.state == PageState::written && length >= kWorthACall) {
        if (Status status = populate({data() + offset, length}); !status) return status;
      }
      copy_bytes(data() + offset, part.slice(0, length));
    }
    if (run.state != PageState::mapped) states_.mark(offset / page, run.end, reached);
    offset += length;
    source = source.from(length);
  }
  return {};
}

Status Segment::write_through_file(std::uint64_t offset, ConstSpan source) {
  while (!source.empty()) {
    const std::size_t length = std::min<std::size_t>(source.size, kWriteChunk);
    const ssize_t wrote = ::pwrite(fd(), source.data, length, static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0)
      return system_error("writing " + std::to_string(length) + " bytes to a segment");
    offset += static_cast<std::uint64_t>(wrote);
    source = source.from(static_cast<std::size_t>(wrote));
  }
  return {};
}

Status Segment::punch(std::uint64_t offset, std::uint64_t size) {
  if (size == 0) return {};
  if (::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(size)) == 0)
    return {};
  return system_error("giving " + std::to_string(size) + " bytes of a segment back");
}

Status Segment::touch(std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t page = page_size();
  const std::uint64_t end = offset + size;
  while (offset < end) {
    const auto run = states_.run(offset / page, (end + page - 1) / page);
    const std::uint64_t length = std::min(run.end * page, end) - offset;
    if (run.state != PageState::mapped) {
      if (length >= kWorthACall) {
        if (Status status = populate({data() + offset, length}); !status) return status;
      }
      states_.mark(offset / page, run.end, PageState::mapped);
    }
    offset += length;
  }
  return {};
}

}  // namespace pshpc::memory
