#pragma once
// One transfer through a door: stretches are read or written one-sidedly where the door can, else
// asked of the owner, several at a time.

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "fabric/door.h"
#include "objects/bulk.h"
#include "objects/link.h"

namespace pshpc::objects {

// Done when nothing of it is in flight any more, whether it succeeded or not. Keeps itself alive
// until then.
class BulkFlight : public fabric::Operation, public std::enable_shared_from_this<BulkFlight> {
 public:
  struct Plan {
    std::shared_ptr<Link> link;
    std::shared_ptr<fabric::Channel> channel;
    Bulk bulk;
    Direction direction = Direction::pull;
    std::vector<Stretch> stretches;
    // By piece. Empty: the owner sends or receives.
    std::vector<std::shared_ptr<fabric::RemoteRegion>> regions;
    std::shared_ptr<const void> hold;  // on the owner's memory
    std::shared_ptr<const void> keep;  // of ours; a message may be read after the flight
    Deadline deadline = Deadline::never();
  };
  // Runs when it ends, before done() turns true; must not block.
  using Landed = std::function<void(const Status&)>;

  static std::shared_ptr<BulkFlight> create(Plan plan, Landed landed = {});
  // Once.
  void start() { pump(); }

 protected:
  void on_complete() override;

 private:
  class Asked;
  class Direct;

  BulkFlight(Plan plan, Landed landed);
  void pump();
  void launch(const Stretch& stretch);
  void landed(const Status& status);

  Plan plan_;
  Landed landed_;
  std::size_t window_;

  std::mutex mutex_;  // everything below
  std::size_t next_ = 0;
  std::size_t in_flight_ = 0;
  bool pumping_ = false;
  Status failed_;
};

}  // namespace pshpc::objects
