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

}  // namespace

Status read_process(pid_t pid, std::uint64_t address, Span into) {
  std::size_t done = 0;
  while (done < into.size) {
    const std::size_t length = std::min(into.size - done, kMostAtOnce);
    iovec local{into.data + done, length};
    iovec remote{reinterpret_cast<void*>(address + done), length};
    const ssize_t got = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (got > 0) {
      done += static_cast<std::size_t>(got);
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    const std::string what = "reading memory of process " + std::to_string(pid);
    if (got < 0 && errno == ESRCH) return {Code::owner_gone, what + ": it has ended"};
    if (got < 0 && errno == EFAULT)
      return {Code::invalid, what + ": the memory is no longer mapped there"};
    if (got < 0 && (errno == EPERM || errno == ENOSYS))
      return {Code::unavailable,
              what + ": " + std::strerror(errno) +
                  " (needs the same user, and kernel.yama.ptrace_scope=0 or a capability)"};
    return system_error(what, got < 0 ? errno : EIO);
  }
  return {};
}

}  // namespace pshpc::fabric
