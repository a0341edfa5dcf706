#pragma once
// Finds objects, wherever they are, and brings them here through the cheapest door that is open.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "memory/pool.h"
#include "objects/doors.h"
#include "objects/lease.h"
#include "objects/link.h"
#include "objects/owner.h"

namespace pshpc::objects {

struct ReadOptions {
  bool writable = false;  // a private copy, or a copy-on-write mapping
};

// All methods: any thread; they block until the deadline at most. No lock is held across a
// transfer.
class Reader {
 public:
  Reader(std::shared_ptr<Owner> owner, rpc::LinkContext context, std::shared_ptr<memory::Pool> pool,
         DoorChoice doors);

  Expected<Lease> get(const Key& key, const ReadOptions& options, Deadline deadline);
  // Transfers overlap where the door can. Results in the order of the keys.
  std::vector<Expected<Lease>> get_batch(const std::vector<Key>& keys, const ReadOptions& options,
                                         Deadline deadline);
  // Bytes [offset, offset + length) of the payload, as a view where possible.
  Expected<Lease> get_range(const Key& key, std::uint64_t offset, std::uint64_t length,
                            Deadline deadline);
  // Straight into the caller's memory; the name of the door.
  Expected<const char*> read_into(const Key& key, std::uint64_t offset, Span into,
                                  Deadline deadline);

  // A status for each key: ok, not_found, evicted, owner_gone...
  std::vector<Status> exists(const std::vector<Key>& keys, Deadline deadline);
  std::vector<Status> evict(const std::vector<Key>& keys, bool force, Deadline deadline);
  // Blocks until the object of a deferred key is published.
  Expected<Key> wait_for(const Key& key, Deadline deadline);
  Expected<Key> locate(const Key& key, Deadline deadline);

  // Stores in another process's memory.
  Expected<Key> put_to(const OwnerAddress& owner, std::uint64_t length,
                       const std::vector<Part>& parts, const Policy& policy, Deadline deadline);

  Expected<std::shared_ptr<Link>> link(const OwnerAddress& owner, const Key* hint,
                                       Deadline deadline);
  // A new one if the peer of the one at hand is gone.
  Expected<std::shared_ptr<Link>> live_link(const OwnerAddress& owner, Deadline deadline);
  // Runs `action` with a link to the key's owner; once more with a new one if the owner was
  // replaced or the connection broke.
  Status with_link(const Key& key, Deadline deadline,
                   const std::function<Status(const std::shared_ptr<Link>&)>& action);
  void close();

 private:
  struct Slot {
    std::shared_ptr<Link> link;
    bool connecting = false;
    // A link that lost a door is replaced, but not again and again.
    Nanoseconds renew_from = 0;
    Nanoseconds pause = kSecond;
  };
  // A way to a remote object: a door's name, and the door itself if a transport is behind it.
  struct Way {
    const char* name;
    fabric::DoorHandle door;
  };

  Expected<std::shared_ptr<Link>> link_to_whoever(const OwnerAddress& owner, Deadline deadline);
  bool is_self(const OwnerAddress& owner) const { return owner.id == owner_->self().id; }
  void forget(const OwnerId& owner, const std::shared_ptr<Link>& link);
  std::vector<Way> ways(const Link& link) const;
  Status no_way(const Link& link, const Key& key) const;
  // A key may have been garbled: before much memory is taken for `length` bytes, the owner's word
  // counts for whether there are so many.
  Status confirm(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t length,
                 Deadline deadline) const;
  std::vector<Status> ask_each(Kind kind, const std::vector<Key>& keys, bool force,
                               Deadline deadline);
  Status ask_many(const std::shared_ptr<Link>& link, Kind kind, const std::vector<Key>& keys,
                  const std::vector<std::size_t>& which, bool force, Deadline deadline,
                  std::vector<Status>& outcome) const;
  Status explain(const Key& key, Status status, Deadline deadline);
  Expected<Key> wait_here(const Key& key, Deadline deadline);

  Status copy_live_here(const Located& object, Span into, Deadline deadline);
  Expected<Lease> get_here(const Key& key, bool writable, Deadline deadline);
  Expected<const char*> read_remote(const std::shared_ptr<Link>& link, const Key& key,
                                    std::uint64_t offset, Span into, Deadline deadline);
  Expected<Lease> get_remote(const std::shared_ptr<Link>& link, const Key& key, bool writable,
                             Deadline deadline);
  Expected<Lease> copied(const Lease& lease);
  Expected<std::shared_ptr<memory::Pool::Buffer>> buffer_for(std::uint64_t length);

  std::shared_ptr<Owner> owner_;
  const rpc::LinkContext context_;
  std::shared_ptr<memory::Pool> pool_;
  const DoorChoice doors_;

  std::mutex mutex_;  // everything below; never held while connecting
  std::condition_variable connected_;
  bool closed_ = false;
  std::map<OwnerId, Slot> links_;
};

}  // namespace pshpc::objects
