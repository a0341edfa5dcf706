#pragma once
// What a reader knows of one owner: the link to it, our pins, the segments mapped, the regions
// imported.

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fabric/shm/segments.h"
#include "memory/pins.h"
#include "objects/protocol.h"
#include "rpc/link.h"

namespace pshpc::objects {

// The connection and our pin tables at the owner. Views hold it, so that the owner keeps honouring
// their pins for as long as they live, whatever is closed meanwhile.
class Tether {
 public:
  Tether(std::shared_ptr<fabric::ClientConnection> connection,
         std::unique_ptr<memory::PinTable> table);

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

  std::shared_ptr<fabric::ClientConnection> connection_;
  std::array<std::unique_ptr<memory::PinTable>, kMaxTables> tables_;
  std::atomic<std::size_t> count_{0};  // of tables; those are never changed again

  std::mutex mutex_;  // opening_
  std::condition_variable changed_;
  bool opening_ = false;
};

// All methods: any thread.
class Link {
 public:
  // `hint` is the key that led here; its capability opens the door to those without the secret.
  static Expected<std::shared_ptr<Link>> open(const rpc::LinkContext& context,
                                              const OwnerAddress& address, const Key* hint,
                                              Deadline deadline);

  const std::shared_ptr<rpc::Link>& wire() const { return wire_; }
  const OwnerAddress& address() const { return wire_->address(); }
  const rpc::Welcome& welcome() const { return wire_->welcome(); }
  bool on_node() const { return wire_->on_node(); }
  pid_t pid() const { return wire_->pid(); }
  bool alive() const { return wire_->alive(); }
  bool worn() const { return wire_->worn(); }
  rpc::Messenger& messenger() const { return wire_->messenger(); }
  const std::shared_ptr<Tether>& tether() const { return tether_; }
  // Nothing is asked any more; views that are held stay valid.
  void end(const Status& why) { wire_->end(why); }

  std::shared_ptr<fabric::Channel> channel(const std::string& door) const {
    return wire_->channel(door);
  }
  void drop_channel(const std::string& door);
  // The owner answers over our own connection, or may still do so. Its doors can be lost before the
  // connection tells of its end.
  bool answers(Deadline deadline);

  // See rpc::Link.
  Expected<rpc::Reply> ask(Kind kind, ConstSpan body, Deadline deadline) {
    return wire_->ask(target_of(kind), body, deadline);
  }
  Expected<fabric::Frame> ask_socket(Kind kind, ConstSpan body, Deadline deadline) {
    return wire_->ask_socket(target_of(kind), body, deadline);
  }
  Status wait(fabric::Door& door, const fabric::Operation& operation, Deadline deadline) const {
    return wire_->wait(door, operation, deadline);
  }

  Expected<std::shared_ptr<fabric::MappedSegment>> segment(const Key& key, bool writable,
                                                           Deadline deadline);
  Expected<std::shared_ptr<fabric::RemoteRegion>> region(const std::string& door,
                                                         std::uint32_t region, const Key& key,
                                                         Deadline deadline);
  // The same, with what the owner is asked if they are not here yet.
  struct Question {
    rpc::Target target;
    Bytes body;
  };
  using Ask = std::function<Question()>;
  Expected<std::shared_ptr<fabric::MappedSegment>> segment(std::uint16_t id, bool writable,
                                                           const Ask& ask, Deadline deadline);
  Expected<std::shared_ptr<fabric::RemoteRegion>> region(const std::string& door,
                                                         std::uint32_t region, const Ask& ask,
                                                         Deadline deadline);
  // Why the node's shared memory cannot be used, once that is known.
  std::string shm_refused() const;

 private:
  Link(std::shared_ptr<rpc::Link> wire, std::shared_ptr<Tether> tether)
      : wire_(std::move(wire)), tether_(std::move(tether)) {}

  const std::shared_ptr<rpc::Link> wire_;
  const std::shared_ptr<Tether> tether_;

  mutable std::mutex mutex_;
  std::array<std::map<std::uint16_t, std::shared_ptr<fabric::MappedSegment>>, 2> segments_;
  std::map<std::pair<std::string, std::uint32_t>, std::shared_ptr<fabric::RemoteRegion>> regions_;
  std::string shm_refused_;
};

}  // namespace pshpc::objects
