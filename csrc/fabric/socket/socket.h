#pragma once
// Making and using stream sockets: abstract unix sockets on the node, TCP off it. All of them are
// non-blocking and close-on-exec.

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/span.h"
#include "base/status.h"

namespace pshpc::fabric {

struct Credentials {
  pid_t pid = -1;
  uid_t uid = static_cast<uid_t>(-1);
};

// An abstract name leaves no file behind and does not cross a network namespace.
Expected<Fd> listen_abstract(const std::string& name);
// Code::owner_gone when nobody listens there.
Expected<Fd> connect_abstract(const std::string& name, Deadline deadline);
// What the kernel says of the process at the other end of a unix socket. It is the process that
// connected or listened, whoever holds the descriptor now.
Expected<Credentials> peer_credentials(int fd);

// `host` is a numeric address or a name; port 0 takes a free one.
Expected<Fd> listen_tcp(const std::string& host, std::uint16_t port);
Expected<std::uint16_t> local_port(int fd);
Expected<Fd> connect_tcp(const std::string& host, std::uint16_t port, Deadline deadline);

// Code::unavailable when nobody waits, Code::full when this process or machine has no descriptor
// left.
Expected<Fd> accept_connection(int listener);

// Up to this many descriptors travel with one frame.
inline constexpr std::size_t kMaxFds = 8;

// Bytes moved; 0 when the socket is full or empty for now. Code::peer_lost when the other end
// closed.
Expected<std::size_t> send_some(int fd, ConstSpan first, ConstSpan second,
                                const std::vector<int>& fds);
Expected<std::size_t> receive_some(int fd, Span into, std::vector<Fd>& fds);

// Waits for poll() events; false when the deadline passed.
Expected<bool> wait_ready(int fd, short events, Deadline deadline);
// The peer closed its end or died; nothing is consumed.
bool hung_up(int fd);

}  // namespace pshpc::fabric
