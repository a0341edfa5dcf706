// The other process of the tests: this program again, told by the environment what to be.

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/wire.h"
#include "tests/ucx_node.h"

namespace pshpc::test {
namespace {

constexpr const char* kRole = "PSHPC_TEST_UCX_PEER";
constexpr int kWire = 3;  // the peer's end of the socket pair

bool write_all(int fd, ConstSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data, bytes.size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes = bytes.from(static_cast<std::size_t>(n));
  }
  return true;
}

bool read_all(int fd, Span into) {
  while (!into.empty()) {
    const ssize_t n = ::recv(fd, into.data, into.size, 0);
    if (n <= 0) return false;
    into = into.slice(static_cast<std::size_t>(n), into.size - static_cast<std::size_t>(n));
  }
  return true;
}

bool write_frame(int fd, const Bytes& bytes) {
  return write_all(fd, WireWriter().put_blob(bytes).take());
}

bool read_frame(int fd, Bytes* bytes) {
  std::uint32_t size = 0;
  if (!read_all(fd, {&size, sizeof size})) return false;
  bytes->resize(size);
  return read_all(fd, *bytes);
}

Bytes encode(const fabric::ucx::Options& options, std::size_t memory) {
  WireWriter writer;
  writer.put_text(options.tls).put_text(options.net_devices);
  writer.put(static_cast<std::uint8_t>(options.error_handling));
  return writer.put(static_cast<std::uint64_t>(memory)).take();
}

[[noreturn]] void serve() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Bytes frame;
  if (!read_frame(kWire, &frame)) ::_exit(1);
  fabric::ucx::Options options;
  std::uint64_t memory = 0;
  {
    WireReader reader(frame);
    options.tls = reader.get_text();
    options.net_devices = reader.get_text();
    options.error_handling = reader.get<std::uint8_t>() != 0;
    memory = reader.get<std::uint64_t>();
  }
  {
    UcxNode node(options, memory);
    if (!node.failure().empty() || !write_frame(kWire, node.hello())) ::_exit(2);
    if (!read_frame(kWire, &frame) || !node.join(frame).ok()) ::_exit(3);
    if (!write_frame(kWire, {})) ::_exit(4);
    while (read_frame(kWire, &frame)) {
      if (frame.empty()) continue;
      if (::fork() == 0) {
        ::prctl(PR_SET_PDEATHSIG, 0);
        write_frame(kWire, {});
        while (read_frame(kWire, &frame)) {
        }
        ::_exit(0);
      }
    }
  }
  ::_exit(0);
}

// Before main(): a peer must not run the tests.
[[maybe_unused]] const bool not_a_peer = [] {
  if (std::getenv(kRole) != nullptr) serve();
  return true;
}();

}  // namespace

UcxPeer::UcxPeer(const fabric::ucx::Options& options, std::size_t memory) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  wire_ = Fd(ends[0]);
  const Fd theirs(ends[1]);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), kWire);
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable)
    environment.emplace_back(*variable);
  environment.push_back(std::string(kRole) + "=1");
  std::vector<char*> pointers;
  for (std::string& variable : environment) pointers.push_back(variable.data());
  pointers.push_back(nullptr);
  char self[] = "/proc/self/exe";
  char* arguments[] = {self, nullptr};
  if (::posix_spawn(&pid_, self, &actions, nullptr, arguments, pointers.data()) != 0) pid_ = -1;
  ::posix_spawn_file_actions_destroy(&actions);

  if (pid_ > 0 &&
      !(write_frame(wire_.get(), encode(options, memory)) && read_frame(wire_.get(), &hello_)))
    kill(SIGKILL), reap();
}

UcxPeer::~UcxPeer() {
  if (pid_ <= 0) return;
  kill(SIGKILL);
  reap();
}

bool UcxPeer::join(const Bytes& hello) {
  Bytes done;
  return write_frame(wire_.get(), hello) && read_frame(wire_.get(), &done);
}

void UcxPeer::kill(int signal) {
  // A pid of -1 would mean every process there is.
  if (pid_ > 0) ::kill(pid_, signal);
}

void UcxPeer::stop() {
  kill(SIGSTOP);
  ::waitpid(pid_, nullptr, WUNTRACED);
}

void UcxPeer::reap() { ::waitpid(std::exchange(pid_, -1), nullptr, 0); }

void UcxPeer::leave_a_child() {
  Bytes done;
  write_frame(wire_.get(), {1});
  read_frame(wire_.get(), &done);
  kill(SIGKILL);
}

}  // namespace pshpc::test
