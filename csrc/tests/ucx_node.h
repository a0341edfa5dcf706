#pragma once
// One end of a ucx connection as the tests need it: a door with its progress thread, exposed memory
// of a known content, and a small protocol of requests. Used by both ends, in one process or two.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/mapping.h"
#include "fabric/progress.h"
#include "fabric/ucx/door.h"

namespace pshpc::test {

// TSan's idea of process_vm_readv touches the other process' addresses in this one.
#if defined(__SANITIZE_THREAD__)
inline constexpr const char* kSharedMemory = "posix,self";
#else
inline constexpr const char* kSharedMemory = "posix,cma,self";
#endif

// What byte `at` of a node's exposed memory holds at first.
std::uint8_t pattern(std::uint64_t at);

// What transfers are tested over, as far as this UCX can.
std::vector<fabric::ucx::Options> shared_memory_and_tcp();

class UcxNode final : public fabric::Receiver {
 public:
  static constexpr std::size_t kDefaultMemory = 8 << 20;

  explicit UcxNode(const fabric::ucx::Options& options, std::size_t memory = kDefaultMemory);
  ~UcxNode() override;

  // UCX 1.20 takes the bytes of a loopback device's address for an IP address and finds no route.
  static bool tcp_over_loopback();

  // "", or why there is no such door here.
  const std::string& failure() const { return failure_; }
  fabric::ucx::UcxDoor& door() { return *door_; }
  fabric::Channel& channel() { return *channel_; }
  Span memory() const { return memory_; }
  // Compares under a lock: what UCX orders between two ends in one process, TSan does not see.
  bool holds(std::uint64_t offset, ConstSpan expected);

  // Address, token and handle for one peer; then what the peer's hello() said.
  Bytes hello();
  Status join(const Bytes& hello);
  void take(std::shared_ptr<fabric::Channel> channel) { channel_ = std::move(channel); }

  Status read(std::uint64_t offset, Span into, double seconds = 10);
  Status write(std::uint64_t offset, ConstSpan from, double seconds = 10);
  // The peer answers with the header alone.
  Status echo(const std::string& text, std::string* answer, double seconds = 10);
  // The peer sends a piece of its memory.
  Status fetch(std::uint64_t offset, Span into, double seconds = 10);
  // Puts the payload into the peer's memory by message; the peer answers when it is there.
  Status push(std::uint64_t offset, ConstSpan payload, double seconds = 10);
  // Messages that are not answered, and the numbers of those that came, in the order they came.
  void tell(std::uint32_t number, std::size_t payload, std::size_t padding = 0);
  std::vector<std::uint32_t> heard();
  bool await_heard(std::size_t count, double seconds = 10);

  bool await_lost(double seconds);
  // Payloads that destination() took in and arrived() has not brought yet.
  bool await_landed(double seconds = 10);
  Status lost_because();

  Span destination(const std::shared_ptr<fabric::Channel>& from, ConstSpan header,
                   std::size_t size) override;
  void arrived(const std::shared_ptr<fabric::Channel>& from, ConstSpan header, Span payload,
               Status status) override;
  void lost(const std::shared_ptr<fabric::Channel>& channel, Status why) override;

 private:
  enum class Kind : std::uint8_t { echo, fetch, push, tell, answer };
  struct Header {
    Kind kind;
    std::uint64_t id;
    std::uint64_t offset;
    std::uint64_t size;
  };
  struct Pending : fabric::Operation {
    Span into;
    Bytes answer;
  };
  // A request that could not be sent is not answered.
  struct Sent : fabric::Operation {
    Sent(UcxNode& owner, std::uint64_t request) : node(owner), id(request) {}
    void on_complete() override {
      if (!status().ok()) node.give_up(id, status());
    }
    UcxNode& node;
    std::uint64_t id;
  };

  Status call(Kind kind, std::uint64_t offset, std::uint64_t size, ConstSpan payload,
              const std::string& text, Pending& pending, double seconds);
  Status finish(fabric::Operation& operation, double seconds);
  Pending* forget(std::uint64_t id);
  void give_up(std::uint64_t id, const Status& why);
  static Bytes encode(const Header& header, ConstSpan text = {});
  void answer(const std::shared_ptr<fabric::Channel>& to, std::uint64_t id, ConstSpan payload,
              ConstSpan text);

  std::string failure_;
  fabric::Progress progress_;
  std::shared_ptr<fabric::ucx::UcxDoor> door_;
  Fd memfd_;
  Mapping mapping_;
  Span memory_;
  std::shared_ptr<fabric::Channel> channel_;
  std::shared_ptr<fabric::RemoteRegion> remote_;
  std::uint64_t token_ = 0;

  std::mutex mutex_;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, Pending*> pending_;
  std::vector<std::uint32_t> heard_;
  int landing_ = 0;
  bool lost_ = false;
  Status why_;
};

// The test program run again as a peer: it makes a UcxNode with the options given and serves it
// until it is told to leave or the parent is gone.
class UcxPeer {
 public:
  explicit UcxPeer(const fabric::ucx::Options& options,
                   std::size_t memory = UcxNode::kDefaultMemory);
  ~UcxPeer();  // kills what is left

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  const Bytes& hello() const { return hello_; }
  // Passes the parent's hello on and waits until the peer is connected.
  bool join(const Bytes& hello);
  void kill(int signal);
  // Returns when it has stopped.
  void stop();
  // After SIGKILL: takes the zombie away.
  void reap();
  // Has the peer fork a child that lives on, and kills the peer itself.
  void leave_a_child();

 private:
  pid_t pid_ = -1;
  Fd wire_;
  Bytes hello_;
};

}  // namespace pshpc::test
