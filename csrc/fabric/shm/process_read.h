#pragma once
// Another process's private memory (process_vm_readv and process_vm_writev, Linux 3.2; "CMA" in MPI
// and UCX).

#include <sys/types.h>

#include <cstdint>

#include "base/span.h"
#include "base/status.h"

namespace pshpc::fabric {

// One copy, made by the kernel on the calling thread; the other process does not run. `pid` must
// come from the kernel (peer_credentials), never from a message. Code::unavailable where the kernel
// refuses (another user, ptrace scope, another pid namespace), Code::owner_gone when the process
// ended.
Status read_process(pid_t pid, std::uint64_t address, Span into);
Status write_process(pid_t pid, std::uint64_t address, ConstSpan from);

}  // namespace pshpc::fabric
