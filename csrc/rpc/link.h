#pragma once
// The calling side of a connection: the hello, the doors open to one peer, and how it is asked.

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fabric/socket/client.h"
#include "rpc/exposure.h"
#include "rpc/hello.h"
#include "rpc/messenger.h"

namespace pshpc::rpc {

// What opening a link needs of this process.
struct LinkContext {
  Address self;
  Tag secret{};
  const Exposure* exposure = nullptr;
  std::shared_ptr<Messenger> messenger;
};

// Opens the way to one thing for those who do not know the secret; see Gate::ticket().
struct Ticket {
  std::uint64_t number = 0;
  Tag key{};
};

struct Reply {
  Bytes body;
  Delivery payload;
};

// All methods: any thread.
class Link {
 public:
  struct Options {
    const Ticket* ticket = nullptr;
    // Descriptors for the peer's Gate, asked for if it is on this node.
    std::function<Expected<std::vector<int>>()> attach;
  };

  static Expected<std::shared_ptr<Link>> open(const LinkContext& context, const Address& address,
                                              const Options& options, Deadline deadline);
  ~Link();

  // As the peer gave it: its id is known, also where the address named whoever answers.
  const Address& address() const { return address_; }
  const Welcome& welcome() const { return welcome_; }
  bool on_node() const { return on_node_; }
  pid_t pid() const { return pid_; }  // from the kernel; on the same node only
  bool alive() const { return connection_->alive(); }
  Messenger& messenger() const { return *context_.messenger; }
  // May be held longer than the link: the peer sees its end when the last holder goes.
  const std::shared_ptr<fabric::ClientConnection>& connection() const { return connection_; }

  // nullptr if that door does not lead there.
  std::shared_ptr<fabric::Channel> channel(const std::string& door) const;
  void drop_channel(const std::string& door);
  // The first one that is open and serves messages, and its door.
  std::shared_ptr<fabric::Channel> best_channel(fabric::DoorHandle* door) const;
  // A door was lost that a new link may open again.
  bool worn() const;
  // Nothing is asked any more.
  void end(const Status& why) { connection_->end_calls(why); }

  // Asks the peer, over the quickest way that is open. The status is the peer's, or why it could
  // not be asked. Only bodies that fit into a frame go over our own connection.
  Expected<Reply> ask(const Target& target, ConstSpan body, Deadline deadline);
  // Over our own connection, where descriptors can travel with the answer. With Code::raised,
  // `raised` gets what was.
  Expected<fabric::Frame> ask_socket(const Target& target, ConstSpan body, Deadline deadline,
                                     const std::vector<int>& fds = {}, Bytes* raised = nullptr);
  // Waits for an operation at a door; ends with Code::peer_lost when the peer dies.
  Status wait(fabric::Door& door, const fabric::Operation& operation, Deadline deadline) const;

 private:
  Link(LinkContext context, Address address);
  Status connect_on_node(Fd fd, const Options& options, Deadline deadline);
  Status connect_off_node(const Options& options, Hello::Proof proof, Deadline deadline);
  Status greet_off_node(Fd fd, const Options& options, Hello::Proof proof, Deadline deadline);
  // Over a door that carries the hello itself.
  Expected<Fd> dial() const;
  Status say_hello(fabric::ClientConnection& connection, const Options& options, Hello::Proof proof,
                   Deadline deadline);

  const LinkContext context_;
  Address address_;
  Welcome welcome_;
  bool on_node_ = false;
  pid_t pid_ = -1;
  std::shared_ptr<fabric::ClientConnection> connection_;
  std::atomic<bool> worn_{false};

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<fabric::Channel>> channels_;
};

}  // namespace pshpc::rpc
