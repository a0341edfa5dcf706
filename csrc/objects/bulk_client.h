#pragma once
// The other side of bulk transfers: moves bytes between exposed memory, wherever it is, and memory
// of this process, over the cheapest way that is open.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "objects/bulk_flight.h"
#include "objects/bulk_table.h"
#include "objects/doors.h"
#include "objects/reader.h"

namespace pshpc::objects {

class BulkClient;

// `local` is what the bytes go to, or, not written, come from.
struct BulkOrder {
  Bulk bulk;
  Direction direction = Direction::pull;
  std::uint64_t offset = 0;
  std::vector<Span> local;
  Deadline deadline = Deadline::never();
  std::shared_ptr<const void> keep;  // `local`, if it must outlive the caller
};

// A transfer under way. All methods: any thread. The local memory stays valid until it is done.
class BulkTransfer : public std::enable_shared_from_this<BulkTransfer> {
 public:
  BulkTransfer(std::shared_ptr<BulkClient> client, BulkOrder order);

  bool done() const;
  // Drives it, or does it if nobody has begun. At the transfer's own deadline it is given up, and
  // then done. False if `until` passed before.
  bool wait(Deadline until);
  // Once done: how it went, and which way.
  Expected<const char*> outcome() const;
  // Ends soon, with Code::cancelled, if it can be ended.
  void cancel();
  // Runs `told` when it is done, at once if it is, on whichever thread; must not block.
  void when_done(std::function<void()> told);

 private:
  friend class BulkClient;
  enum class Phase { queued, running, flying, done };

  // Takes it off the queue; false if somebody else did.
  bool claim();
  void fly(std::shared_ptr<Link> link, fabric::DoorHandle door, std::shared_ptr<BulkFlight> flight);
  void landed(const Status& status);
  void end_flight(const Status& why);
  void leave(const Status& why);
  void finish(const Status& status, const char* door);

  const std::shared_ptr<BulkClient> client_;
  const BulkOrder order_;

  mutable std::mutex mutex_;  // everything below
  std::condition_variable changed_;
  Phase phase_ = Phase::queued;
  std::shared_ptr<Link> link_;
  fabric::DoorHandle door_;
  std::shared_ptr<BulkFlight> flight_;
  Status given_up_;
  Status status_;
  const char* way_ = "";
  std::vector<std::function<void()>> told_;
};

// All methods: any thread.
class BulkClient : public std::enable_shared_from_this<BulkClient> {
 public:
  BulkClient(std::shared_ptr<BulkTable> table, Reader& reader, const rpc::Exposure& exposure,
             DoorChoice doors)
      : table_(std::move(table)), reader_(reader), exposure_(exposure), doors_(std::move(doors)) {}
  ~BulkClient() { close(); }

  // Blocks. The name of the way.
  Expected<const char*> move(const BulkOrder& order);
  // Connects if need be, but does not wait for the transfer: doors do it by themselves, copies are
  // made by a thread of ours, or by who waits for them first.
  std::shared_ptr<BulkTransfer> submit(BulkOrder order);
  // One stretch of memory that a door reads or writes by itself; no channel where it is otherwise.
  struct DirectWay {
    const char* name = "";
    std::shared_ptr<Link> link;
    fabric::DoorHandle door;
    std::shared_ptr<fabric::Channel> channel;
    std::shared_ptr<fabric::RemoteRegion> region;
    Stretch stretch;
  };
  // That which move() takes.
  DirectWay direct_way(const BulkOrder& order) const;
  // What is in flight, from or into memory that we do not own, ends with its channel.
  static void cut(Link& link, fabric::Door& door, const fabric::Operation& operation);

  // Transfers that wait for their turn fail. Idempotent.
  void close();

 private:
  friend class BulkTransfer;

  Status check(const BulkOrder& order, std::vector<Stretch>* stretches) const;
  bool is_here(const Bulk& bulk) const { return bulk.owner.id == table_->owner().self().id; }
  Status move_here(const BulkOrder& order, const std::vector<Stretch>& stretches) const;
  Expected<const char*> move_there(const std::shared_ptr<Link>& link, const BulkOrder& order,
                                   const std::vector<Stretch>& stretches) const;
  Expected<BulkFlight::Plan> plan_flight(const std::shared_ptr<Link>& link,
                                         const fabric::DoorHandle& door, const BulkOrder& order,
                                         std::vector<Stretch> stretches) const;
  Status through_door(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                      const BulkOrder& order, const std::vector<Stretch>& stretches) const;
  // True if a door carries it now.
  bool try_fly(const std::shared_ptr<BulkTransfer>& transfer,
               const std::vector<Stretch>& stretches);
  void enqueue(std::shared_ptr<BulkTransfer> transfer);
  void work();
  void run(BulkTransfer& transfer);

  const std::shared_ptr<BulkTable> table_;
  Reader& reader_;
  const rpc::Exposure& exposure_;
  const DoorChoice doors_;

  std::mutex mutex_;  // everything below
  std::condition_variable queued_;
  bool closed_ = false;
  std::deque<std::shared_ptr<BulkTransfer>> queue_;
  std::thread worker_;
};

}  // namespace pshpc::objects
