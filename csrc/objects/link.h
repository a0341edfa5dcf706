#pragma once
// What a reader knows of one owner: the connection, the segments mapped, the doors open to it.

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fabric/shm/segments.h"
#include "fabric/socket/client.h"
#include "memory/pins.h"
#include "objects/exposure.h"
#include "objects/messenger.h"
#include "objects/protocol.h"

namespace pshpc::objects {

// What opening a link needs of this process.
struct LinkContext {
  OwnerId self{};
  Tag secret{};
  const Exposure* exposure = nullptr;
  Messenger* messenger = nullptr;
};

// The connection and our pin tables at the owner. Views hold it, so that the owner keeps honouring
// their pins for as long as they live, whatever is closed meanwhile.
class Tether {
 public:
  Tether(std::unique_ptr<fabric::ClientConnection> connection,
         std::unique_ptr<memory::PinTable> table);

  fabric::ClientConnection& connection() { return *connection_; }

  struct Pin {
    memory::PinTable* table = nullptr;
    std::uint32_t slot = memory::PinTable::kNone;
  };
  // Lock-free, unless all tables are full: then one thread hands over another, while the others
  // wait for it until their deadline. Code::full when no more can be had.
  Expected<Pin> pin(std::uint64_t block, std::uint64_t generation, Deadline deadline);
  void unpin(const Pin& pin) { pin.table->release(pin.slot); }

 private:
  static constexpr std::size_t kMaxTables = 64;

  Pin try_pin(std::uint64_t block, std::uint64_t generation);
  Status open_table(Deadline deadline);

  std::unique_ptr<fabric::ClientConnection> connection_;
  std::array<std::unique_ptr<memory::PinTable>, kMaxTables> tables_;
  std::atomic<std::size_t> count_{0};  // of tables; those are never changed again

  std::mutex mutex_;  // opening_
  std::condition_variable changed_;
  bool opening_ = false;
};

struct Reply {
  Bytes body;  // what follows the status
  std::size_t received = 0;
};

// All methods: any thread.
class Link {
 public:
  // `hint` is the key that led here; its capability opens the door to those without the secret.
  static Expected<std::shared_ptr<Link>> open(const LinkContext& context,
                                              const OwnerAddress& address, const Key* hint,
                                              Deadline deadline);
  ~Link();

  const OwnerAddress& address() const { return address_; }
  const Welcome& welcome() const { return welcome_; }
  bool on_node() const { return on_node_; }
  pid_t pid() const { return pid_; }  // from the kernel; on the same node only
  bool alive() const { return tether_->connection().alive(); }
  Messenger& messenger() const { return *context_.messenger; }
  const std::shared_ptr<Tether>& tether() const { return tether_; }

  // nullptr if that door does not lead there.
  std::shared_ptr<fabric::Channel> channel(const std::string& door) const;
  void drop_channel(const std::string& door);
  // The owner answers over our own connection, or may still do so. Its doors can be lost before the
  // connection tells of its end.
  bool answers(Deadline deadline);
  // A door was lost that a new link may open again.
  bool worn() const { return worn_.load(std::memory_order_relaxed); }
  // Nothing is asked any more; views that are held stay valid.
  void end(const Status& why) { tether_->connection().end_calls(why); }

  // Asks the owner, over the quickest way that is open. The status is the owner's, or why it could
  // not be asked.
  Expected<Reply> ask(Kind kind, ConstSpan body, Deadline deadline);
  // Over our own connection, where descriptors can travel with the answer.
  Expected<fabric::Frame> ask_socket(Kind kind, ConstSpan body, Deadline deadline,
                                     const std::vector<int>& fds = {});
  // Waits for an operation at a door; ends with Code::peer_lost when the owner dies.
  Status wait(fabric::Door& door, const fabric::Operation& operation, Deadline deadline) const;

  Expected<std::shared_ptr<fabric::MappedSegment>> segment(const Key& key, bool writable,
                                                           Deadline deadline);
  Expected<std::shared_ptr<fabric::RemoteRegion>> region(const std::string& door,
                                                         std::uint32_t region, const Key& key,
                                                         Deadline deadline);
  // Why the node's shared memory cannot be used, once that is known.
  std::string shm_refused() const;

 private:
  Link(const LinkContext& context, OwnerAddress address);
  Status connect_on_node(Fd fd, const Key* hint, Deadline deadline);
  Status connect_off_node(const Key* hint, Hello::Proof proof, Deadline deadline);
  Status say_hello(fabric::ClientConnection& connection, const Key* hint, Hello::Proof proof,
                   const memory::PinTable* table, Deadline deadline);

  const LinkContext context_;
  const OwnerAddress address_;
  Welcome welcome_;
  bool on_node_ = false;
  pid_t pid_ = -1;
  std::shared_ptr<Tether> tether_;
  std::atomic<bool> worn_{false};

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<fabric::Channel>> channels_;
  std::array<std::map<std::uint16_t, std::shared_ptr<fabric::MappedSegment>>, 2> segments_;
  std::map<std::pair<std::string, std::uint32_t>, std::shared_ptr<fabric::RemoteRegion>> regions_;
  std::string shm_refused_;
};

}  // namespace pshpc::objects
