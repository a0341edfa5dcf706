#pragma once
// The objects of this process: their blocks, who may still be looking at them, and when a block may
// be used again. Knows nothing of transports.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "memory/arena.h"
#include "memory/block_table.h"
#include "memory/pins.h"
#include "objects/claims.h"
#include "objects/header.h"
#include "objects/key.h"
#include "objects/policy.h"

namespace pshpc::objects {

// The object that is to have what is stored: one of a deferred key, or, with the number of a
// reference that allows it, one that is there and changes.
struct Into {
  std::uint64_t object_id = 0;  // 0: a new one
  std::uint64_t claim = 0;

  Into(std::uint64_t object = 0, std::uint64_t number = 0) : object_id(object), claim(number) {}
};

// Bytes that go to `offset` of the payload.
struct Part {
  std::uint64_t offset = 0;
  ConstSpan bytes;
};

// A block being filled for an object that nobody can see yet.
struct Reservation {
  std::uint64_t object_id = 0;
  std::uint64_t length = 0;
  memory::Block block;

  Span payload() const { return {block.data + kHeaderSize, static_cast<std::size_t>(length)}; }
};

// An object that its block may be read of for as long as it is pinned.
struct Located {
  std::uint64_t object_id = 0;
  std::uint64_t generation = 0;
  std::uint64_t length = 0;
  std::uint32_t flags = 0;
  memory::Block block;

  const ObjectHeader& header() const { return *reinterpret_cast<const ObjectHeader*>(block.data); }
};

struct OwnerOptions {
  memory::ArenaOptions arena;
  // How long the block of an evicted object is left alone while peers may read it one-sidedly. At
  // least kShortestGrace.
  Nanoseconds grace = 100 * kMillisecond;
  // Names every block that is in use, for whoever takes over when this process ends.
  std::shared_ptr<memory::BlockTable> table;
  std::shared_ptr<ClaimTable> claim_table;
  // That capabilities are made of; a new one if there is none.
  std::optional<Tag> secret;
};

// What an owner left behind that has ended.
struct Heritage {
  std::vector<memory::Arena::Inherited> segments;
  std::vector<memory::BlockTable::Entry> blocks;
  std::vector<ClaimTable::Entry> claims;
  // Of its readers, who may be looking at blocks still.
  std::vector<std::shared_ptr<memory::PinTableView>> tables;
};

// What did not fit.
struct Shed {
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;
};

// Who waits for an object to be published, and for how long.
struct Waiting {
  std::uint64_t connection = 0;  // 0: a thread of this process
  Nanoseconds patience = 0;
};

struct OwnerStats {
  memory::ArenaStats arena;
  std::uint64_t objects = 0;
  std::uint64_t retired_blocks = 0;
  std::uint64_t retired_bytes = 0;
  std::uint64_t readers = 0;
  std::uint64_t references = 0;
};

// All methods: any thread; none waits for another process. put() and reserve() may wait for the
// grace period when memory is short. Peers are known by the number of their connection, 0 is this
// process.
class Owner : public std::enable_shared_from_this<Owner> {
 public:
  // Waits of one peer at a time.
  static constexpr std::size_t kMaxWaits = 10'000;

  Owner(OwnerAddress self, OwnerOptions options, memory::Arena::SegmentHook hook);

  const OwnerAddress& self() const { return self_; }
  void set_contact(const std::string& host, std::uint16_t port);
  // Keys that are made from now on carry it; Code::invalid if it is longer than Key::kMaxOutside.
  Status set_outside(Bytes outside);
  memory::Arena& arena() { return arena_; }
  Tag capability(std::uint64_t object_id) const;

  // Storing (owner.cpp). Parts are copied outside every lock. Where they go `into` an object, it is
  // what it was until they are published: who fails or dies leaves it so.
  Expected<Key> put(std::uint64_t length, const std::vector<Part>& parts, const Policy& policy,
                    const Into& into = {});
  // The same if nothing has to be waited for, else Code::unavailable.
  Expected<Key> put_now(std::uint64_t length, const std::vector<Part>& parts, const Policy& policy,
                        const Into& into = {});
  Expected<Reservation> reserve(std::uint64_t length, std::uint64_t writer = 0,
                                const Into& into = {});
  Status may_store_into(const Into& into, const Tag& capability) const;
  Status fill(const Reservation& reservation, std::uint64_t offset, ConstSpan bytes);
  // With `pinned` the block stays until unpin(), even if the object is evicted at once.
  Expected<Key> publish(std::uint64_t object_id, const Policy& policy, bool pinned = false,
                        std::uint64_t writer = 0);
  void abort(std::uint64_t object_id, std::uint64_t writer = 0);
  Expected<Reservation> reserved(std::uint64_t object_id, std::uint64_t writer = 0) const;
  // The same; the block stays until unpin(), even if the reservation is given up.
  Expected<Reservation> pin_reserved(std::uint64_t object_id, std::uint64_t writer);
  Key new_key();

  // Live memory, exposed in place: the payload is `prefix`, then (from `live_offset`) the live
  // bytes. `region_offset`: where the live bytes begin within the region that the doors know as
  // `region`.
  Expected<Key> publish_live(ConstSpan prefix, std::uint64_t live_offset, Span live,
                             std::uint32_t region, std::uint64_t region_offset);
  // Brackets a change of live memory; readers retry meanwhile.
  Status begin_writing(std::uint64_t object_id);
  Status end_writing(std::uint64_t object_id);

  // Reading (owner_reading.cpp), here or on behalf of a peer: the block stays until unpin().
  Expected<Located> pin(std::uint64_t object_id, const Tag& capability);
  void unpin(const memory::Block& block);
  // Somebody here still uses what the key named, although it was evicted.
  bool sending(const Key& key) const;
  // A process of this node holds a pin on the block.
  bool watched(const memory::Block& block) const;
  Expected<Key> locate(std::uint64_t object_id, const Tag& capability);
  Status check(std::uint64_t object_id, const Tag& capability);
  // Code::changed if the object is there, but not as it was in that generation.
  Status validate(std::uint64_t object_id, const Tag& capability, std::uint64_t generation);
  // Tells when the object is published (status ok), or that it cannot be any more, or that the
  // patience is at an end. A peer that left is told nothing.
  using Notify = std::function<void(Status)>;
  void when_published(std::uint64_t object_id, const Tag& capability, const Waiting& waiting,
                      Notify notify);

  // Reuse (owner_reuse.cpp). Code::pinned unless forced. Evicting what is gone already is no error.
  Status evict(std::uint64_t object_id, const Tag& capability, bool force = false);
  // Lives that long from now on, 0: for ever.
  Status extend(std::uint64_t object_id, const Tag& capability, Nanoseconds time_to_live);

  // References (owner_claims.cpp). An object that had some is evicted when the last one ends.
  Status hold(std::uint64_t object_id, const Tag& capability, const ClaimRequest& request,
              std::uint64_t connection = 0);
  Status release(std::uint64_t object_id, const Tag& capability, std::uint64_t claim);

  // A peer came, and went: what it had reserved is given back, its pins are void. The references
  // of its process end with the last of its connections.
  void join(std::uint64_t connection, const Claims::Party& party = {}, bool on_node = false);
  void leave(std::uint64_t connection);
  // Code::closed when the peer has left meanwhile.
  Status add_reader(std::uint64_t connection, std::shared_ptr<memory::PinTableView> table);
  Status grant_one_sided(std::uint64_t connection);

  // Housekeeping, by a timer: time-to-live, patience, and blocks that nobody looks at any more.
  void tend();
  // Everything is evicted and nothing new is accepted.
  void close();

  // Taking over (owner_keeping.cpp). From begin_hand_over() on, references outlast their holders'
  // connections. hand_over() leaves memory and table to somebody else: what is bound to this
  // process is evicted, the rest is not touched any more, nothing new is accepted.
  void begin_hand_over();
  bool leaving() const;
  void hand_over();
  // Before anything else: the objects of an owner that has ended. Nothing can be stored here then.
  Status adopt(Heritage heritage);
  // Processes of this node that held references at the former owner and have not come here; and
  // that one of them has ended.
  std::vector<Claims::Party> absent_parties() const;
  void end_party(const Claims::Party& party);
  // Evicts the largest objects until no more than `most` bytes are used.
  Shed shed(std::uint64_t most);
  const Tag& secret() const { return secret_; }
  OwnerStats stats() const;

 private:
  enum class State { reserved, live };
  using Slot = memory::BlockTable::Slot;
  struct Entry {
    State state = State::reserved;
    memory::Block block;
    Slot slot = memory::BlockTable::kNone;
    std::uint64_t length = 0;
    std::uint64_t generation = 0;
    std::uint64_t writer = 0;
    std::uint32_t flags = 0;
    Nanoseconds expires = 0;
    Into into;  // of a reservation
  };
  using Entries = std::unordered_map<std::uint64_t, Entry>;
  struct Retired {
    memory::Block block;
    Slot slot;
    Nanoseconds since;
    bool graced;
  };
  struct LocalPins {
    std::uint32_t count = 0;
    Slot slot = memory::BlockTable::kNone;
  };
  // The block that an update replaced.
  struct Replaced {
    memory::Block block;
    Slot slot;
    std::uint64_t generation;
  };
  struct Peer {
    std::vector<std::shared_ptr<memory::PinTableView>> tables;
    std::unordered_set<std::uint64_t> reserved;
    std::size_t waits = 0;
    bool one_sided = false;
    bool on_node = false;
    Claims::Party party{};
  };
  struct Waiter {
    Notify notify;
    std::uint64_t connection = 0;
    Nanoseconds expires = 0;
  };
  enum class Patience { none, short_of_memory };

  bool inherited() const;  // we are in a forked child, where locks may be held by nobody
  ObjectHeader& header(const memory::Block& block) const {
    return *reinterpret_cast<ObjectHeader*>(block.data);
  }
  Expected<memory::Block> allocate(std::uint64_t size, Patience patience);
  Status may_reserve_locked(std::uint64_t writer, const Into& into) const;
  Status may_go_into_locked(const Into& into) const;
  Entries::iterator enter_locked(Entries::iterator reserved, std::optional<Replaced>* replaced);
  void leave_party_locked(const Claims::Party& party);
  void evict_orphans_locked(const std::vector<std::uint64_t>& orphans);
  Expected<Reservation> reserve_block(const memory::Block& block, std::uint64_t length,
                                      std::uint64_t writer, const Into& into);
  Expected<Key> fill_and_publish(const Reservation& reservation, const std::vector<Part>& parts,
                                 const Policy& policy);
  // The entry that `writer` may write; end() if there is none.
  Entries::iterator find_reserved(std::uint64_t object_id, std::uint64_t writer);
  void drop_reservation_locked(const Entry& entry, std::uint64_t object_id);

  static Status ended_error();
  Status why_absent(std::uint64_t object_id) const;
  // What has expired is evicted here and now, so that nobody sees it after somebody did not.
  Expected<const Entry*> find_live(std::uint64_t object_id, const Tag& capability);
  Key key_of(std::uint64_t object_id, const Entry& entry) const;
  std::vector<Waiter> take_waiters(std::uint64_t object_id);
  void forget_wait_locked(const Waiter& waiter);
  static void tell(std::vector<Waiter>& waiters, const Status& status);

  void evict_locked(Entries::iterator entry);
  void invalidate(const memory::Block& block, std::uint64_t generation);
  void retire_locked(const memory::Block& block, Slot slot);
  void release_locked(const memory::Block& block, Slot slot);
  void pin_here_locked(const memory::Block& block, Slot slot);
  void set_expiry_locked(Entry& entry, std::uint64_t object_id, Nanoseconds expires);
  void adopt_claims_locked(const std::vector<ClaimTable::Entry>& left);
  Status adopt_block_locked(const memory::BlockTable::Entry& left);
  void collect_locked(Nanoseconds time);
  std::vector<Waiter> take_impatient_locked(Nanoseconds time);

  OwnerAddress self_;
  const OwnerOptions options_;
  const std::uint32_t birth_;
  const Tag secret_;
  memory::Arena arena_;

  mutable std::mutex mutex_;  // everything below; no callback runs under it
  Bytes outside_;
  bool closed_ = false;
  bool leaving_ = false;  // somebody else will take over
  bool kept_ = false;     // taken over
  std::shared_ptr<memory::BlockTable> table_;
  std::uint64_t next_id_ = 1;
  std::uint64_t next_generation_ = 2;
  Entries entries_;
  std::unordered_set<std::uint64_t> deferred_;
  std::unordered_map<std::uint64_t, std::vector<Waiter>> waiters_;
  std::unordered_map<std::uint64_t, LocalPins> local_pins_;  // by block word
  std::vector<Retired> retired_;
  std::unordered_map<std::uint64_t, Peer> peers_;
  std::vector<std::shared_ptr<memory::PinTableView>> left_tables_;  // of the former owner's peers
  std::size_t one_sided_ = 0;                                       // of the peers
  std::size_t tables_ = 0;  // of the peers, and those that were left
  std::set<std::pair<Nanoseconds, std::uint64_t>> expiring_;
  Claims claims_;
  std::map<Claims::Party, std::size_t> connections_;  // of each party
};

}  // namespace pshpc::objects
