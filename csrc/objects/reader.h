#pragma once
// Finds objects, wherever they are, and brings them here through the cheapest door that is open.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/errands.h"
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
  // Code::changed for an object that was updated since that generation.
  std::vector<Status> validate(const std::vector<Key>& keys,
                               const std::vector<std::uint64_t>& generations, Deadline deadline);
  std::vector<Status> extend(const std::vector<Key>& keys, Nanoseconds time_to_live,
                             Deadline deadline);
  Status hold(const Key& key, const ClaimRequest& request, Deadline deadline);
  // Soon, and many at once: waits for nobody, and nobody hears of a failure, as the end of the
  // connection gives everything back.
  void release(const Key& key, std::uint64_t claim);
  // Blocks until the object of a deferred key is published.
  Expected<Key> wait_for(const Key& key, Deadline deadline);
  Expected<Key> locate(const Key& key, Deadline deadline);

  // Stores in another process's memory.
  Expected<Key> put_to(const OwnerAddress& owner, std::uint64_t length,
                       const std::vector<Part>& parts, const Policy& policy, Deadline deadline);
  // The same into the object of a key, which is a deferred one if `claim` is 0.
  Expected<Key> put_into(const Key& target, std::uint64_t claim, std::uint64_t length,
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
    // Of an owner whose keys name other ways to it: why it was not reached, and for how long that
    // is taken for granted.
    Status silence;
    Nanoseconds silent_until = 0;
  };
  // A way to a remote object: a door's name, and the door itself if a transport is behind it.
  struct Way {
    const char* name;
    fabric::DoorHandle door;
  };

  Status note_silence_locked(const OwnerId& owner, Status why);
  Expected<std::shared_ptr<Link>> link_to_whoever(const OwnerAddress& owner, Deadline deadline);
  bool is_self(const OwnerAddress& owner) const { return owner.id == owner_->self().id; }
  bool wait_for_renewal(const OwnerId& owner, const std::shared_ptr<Link>& link, Deadline deadline);
  void forget(const OwnerId& owner, const std::shared_ptr<Link>& link);
  bool seen_unchanged(const Key& key, Deadline deadline);
  std::vector<Way> ways(const Link& link) const;
  Status no_way(const Link& link, const Key& key) const;
  // A key may have been garbled: before much memory is taken for `length` bytes, the owner's word
  // counts for whether there are so many.
  Status confirm(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t length,
                 Deadline deadline) const;
  // What is asked about several objects, of their owners or here.
  struct Asking {
    Kind kind;
    Bytes beginning;                                              // before the number of objects
    std::function<void(WireWriter& request, std::size_t i)> add;  // behind each object
    std::function<Status(std::size_t i)> here;
  };
  std::vector<Status> ask_each(const Asking& asking, const std::vector<Key>& keys,
                               Deadline deadline);
  static Status ask_many(const std::shared_ptr<Link>& link, const Asking& asking,
                         const std::vector<Key>& keys, const std::vector<std::size_t>& which,
                         Deadline deadline, std::vector<Status>& outcome);
  Status explain(const Key& key, Status status, Deadline deadline);
  Expected<Key> after_update(const Key& key, const Status& status, Deadline deadline);
  void send_releases(Nanoseconds patience);
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

  std::mutex releases_mutex_;
  std::vector<std::pair<Key, std::uint64_t>> releases_;
  Errands errands_;  // ends first
};

}  // namespace pshpc::objects
