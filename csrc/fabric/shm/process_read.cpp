#include "fabric/shm/process_read.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace pshpc::fabric {
namespace {

// The kernel moves at most 2 GiB a call.
constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;

using Transfer = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long,
                             unsigned long);

Status transfer(Transfer move, const char* doing, pid_t pid, std::uint64_t address, Span local) {
  const auto what = [&] {
    return std::string(doing) + " memory of process " + std::to_string(pid);
  };
  // What the kernel says of a peer that has no number in this namespace.
  if (pid <= 0) return {Code::unavailable, what() + ": it is in another pid namespace"};
  std::size_t done = 0;
  while (done < local.size) {
    const std::size_t length = std::min(local.size - done, kMostAtOnce);
    iovec here{local.data + done, length};
    iovec there{reinterpret_cast<void*>(address + done), length};
    const ssize_t moved = move(pid, &here, 1, &there, 1, 0);
    if (moved > 0) {
      done += static_cast<std::size_t>(moved);
      continue;
    }
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0 && errno == ESRCH) return {Code::owner_gone, what() + ": it has ended"};
    if (moved < 0 && errno == EFAULT)
      return {Code::invalid, what() + ": the memory is no longer mapped there"};
    if (moved < 0 && (errno == EPERM || errno == ENOSYS))
      return {Code::unavailable,
              what() + ": " + std::strerror(errno) +
                  " (needs the same user, and kernel.yama.ptrace_scope=0 or a capability)"};
    return system_error(what(), moved < 0 ? errno : EIO);
  }
  return {};
}

}  // namespace

Status read_process(pid_t pid, std::uint64_t address, Span into) {
  return transfer(&::process_vm_readv, "reading", pid, address, into);
}

Status write_process(pid_t pid, std::uint64_t address, ConstSpan from) {
  return transfer(&::process_vm_writev, "writing", pid, address,
                  {const_cast<std::uint8_t*>(from.data), from.size});
}

}  // namespace pshpc::fabric
