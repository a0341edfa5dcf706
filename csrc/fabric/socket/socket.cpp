#include "fabric/socket/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <thread>

namespace pshpc::fabric {
namespace {

constexpr int kBacklog = 1024;

struct AbstractAddress {
  sockaddr_un address{};
  socklen_t length = 0;
};

AbstractAddress abstract_address(const std::string& name) {
  AbstractAddress result;
  result.address.sun_family = AF_UNIX;
  const std::size_t size = std::min(name.size(), sizeof(result.address.sun_path) - 1);
  std::memcpy(result.address.sun_path + 1, name.data(), size);
  result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  return result;
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Expected<Addresses> resolve(const std::string& host, std::uint16_t port, bool passive) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (failed != 0)
    return Status(Code::unavailable, "looking up host '" + host + "': " + ::gai_strerror(failed));
  return Addresses(list);
}

std::string host_port(const std::string& host, std::uint16_t port) {
  return host + ":" + std::to_string(port);
}

// A peer on a machine that lost power or its network never says goodbye.
void notice_dead_peers(int fd) {
  const int on = 1, idle = 5, interval = 2, count = 3, unacknowledged_ms = 10'000;
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof unacknowledged_ms);
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Expected<Fd> listen_abstract(const std::string& name) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return system_error("creating the node socket");
  const AbstractAddress at = abstract_address(name);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at.address), at.length) != 0)
    return system_error("binding the node socket @" + name);
  if (::listen(fd.get(), kBacklog) != 0) return system_error("listening on the node socket");
  return fd;
}

Expected<Fd> connect_abstract(const std::string& name, Deadline deadline) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return system_error("creating a socket");
  const AbstractAddress at = abstract_address(name);
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at.address), at.length) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    if (error == ECONNREFUSED)
      return Status(Code::owner_gone, "nobody listens at the node socket @" + name);
    if (error != EAGAIN) return system_error("connecting to the node socket @" + name, error);
    // Its queue of connections is full: it is stopped, or everybody comes at once. Such a socket
    // cannot be waited for.
    if (deadline.passed())
      return Status(Code::timed_out, "the process at the node socket @" + name +
                                         " accepts no connections; is it stopped?");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return fd;
}

Expected<Credentials> peer_credentials(int fd) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return system_error("asking for the peer's credentials");
  return Credentials{credentials.pid, credentials.uid};
}

Expected<Fd> listen_tcp(const std::string& host, std::uint16_t port) {
  auto addresses = resolve(host, port, true);
  if (!addresses) return addresses.status();
  Fd fd(::socket(addresses.value()->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return system_error("creating a TCP socket");
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), addresses.value()->ai_addr, addresses.value()->ai_addrlen) != 0)
    return system_error("binding " + host_port(host, port));
  if (::listen(fd.get(), kBacklog) != 0)
    return system_error("listening on " + host_port(host, port));
  return fd;
}

Expected<std::uint16_t> local_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return system_error("asking for a socket's port");
  if (address.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

Expected<Fd> connect_tcp(const std::string& host, std::uint16_t port, Deadline deadline) {
  auto addresses = resolve(host, port, false);
  if (!addresses) return addresses.status();
  Status last(Code::unavailable, "no address of " + host_port(host, port) + " answered");
  for (const addrinfo* at = addresses.value().get(); at != nullptr; at = at->ai_next) {
    Fd fd(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) continue;
    int error = 0;
    if (::connect(fd.get(), at->ai_addr, at->ai_addrlen) != 0) {
      if (errno != EINPROGRESS) {
        last = system_error("connecting to " + host_port(host, port));
        continue;
      }
      auto ready = wait_ready(fd.get(), POLLOUT, deadline);
      if (!ready) return ready.status();
      if (!ready.value())
        return Status(Code::timed_out, "connecting to " + host_port(host, port) + " took too long");
      socklen_t size = sizeof error;
      ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error != 0) {
      last = system_error("connecting to " + host_port(host, port), error);
      continue;
    }
    notice_dead_peers(fd.get());
    return fd;
  }
  return last;
}

Expected<Fd> accept_connection(int listener) {
  for (;;) {
    Fd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) {
      notice_dead_peers(fd.get());  // refused by unix sockets, which need none of it
      return fd;
    }
    const int error = errno;
    if (error == EAGAIN || error == EWOULDBLOCK) return Status(Code::unavailable, "nobody waits");
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM)
      return Status(Code::full, system_error("accepting a connection", error).message());
    // Others are of the connection, which gave up while it waited.
    if (error != EINTR && error != ECONNABORTED && error != EPROTO && error != EPERM)
      return system_error("accepting a connection", error);
  }
}

Expected<std::size_t> send_some(int fd, ConstSpan first, ConstSpan second,
                                const std::vector<int>& fds) {
  iovec parts[2] = {{const_cast<std::uint8_t*>(first.data), first.size},
                    {const_cast<std::uint8_t*>(second.data), second.size}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  if (!fds.empty()) {
    if (fds.size() > kMaxFds) return Status(Code::invalid, "too many descriptors for one frame");
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  }
  for (;;) {
    const ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::size_t{0};
    return Status(Code::peer_lost, std::string("the connection is gone: ") + std::strerror(errno));
  }
}

Expected<std::size_t> receive_some(int fd, Span into, std::vector<Fd>& fds) {
  iovec part = {into.data, into.size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got;
  do {
    got = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::size_t{0};
    return Status(Code::peer_lost, std::string("the connection is gone: ") + std::strerror(errno));
  }
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int received;
      std::memcpy(&received, CMSG_DATA(c) + i * sizeof(int), sizeof received);
      fds.emplace_back(received);
    }
  }
  if (message.msg_flags & MSG_CTRUNC)
    return Status(Code::system,
                  "descriptors were lost on their way here: the limit of open files (ulimit -n) of "
                  "this process is reached");
  if (got == 0) return Status(Code::peer_lost, "the other process closed the connection or ended");
  return static_cast<std::size_t>(got);
}

Expected<bool> wait_ready(int fd, short events, Deadline deadline) {
  for (;;) {
    pollfd waiting{fd, events, 0};
    const int ready = ::poll(&waiting, 1, deadline.remaining_ms(60'000));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return system_error("waiting for a socket");
    if (ready == 0 && deadline.passed()) return false;
  }
}

bool hung_up(int fd) {
  if (fd < 0) return true;
  pollfd state{fd, POLLRDHUP, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace pshpc::fabric
