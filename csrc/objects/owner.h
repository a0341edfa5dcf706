#pragma once
// The objects of this process: their blocks, who may still be looking at them, and when a block may be
// used again. Knows nothing of transports.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "memory/arena.h"
#include "memory/pins.h"
#include "objects/header.h"
#include "objects/key.h"

namespace pshpc::objects {

struct Policy {
  Nanoseconds time_to_live = 0;  // 0: for ever
  std::uint32_t flags = 0;       // kPinned
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
  // How long the block of an evicted object is left alone while peers may read it one-sidedly.
  Nanoseconds grace = 100 * kMillisecond;
};

struct OwnerStats {
  memory::ArenaStats arena;
  std::uint64_t objects = 0;
  std::uint64_t retired_blocks = 0;
  std::uint64_t retired_bytes = 0;
  std::uint64_t readers = 0;
};

// All methods: any thread; none waits for another process. put(), reserve() and allocate() may wait
// for the grace period when memory is short.
class Owner : public std::enable_shared_from_this<Owner> {
 public:
  Owner(OwnerAddress self, OwnerOptions options, memory::Arena::SegmentHook hook);

  const OwnerAddress& self() const { return self_; }
  void set_contact(const std::string& host, std::uint16_t port);
  memory::Arena& arena() { return arena_; }
  Tag capability(std::uint64_t object_id) const;

  // Storing. Parts are copied outside every lock. `into` is a deferred object's id, or 0 for a new one.
  Expected<Key> put(std::uint64_t length, const std::vector<Part>& parts, const Policy& policy,
                    std::uint64_t into = 0);
  Expected<Reservation> reserve(std::uint64_t length, std::uint64_t writer = 0,
                                std::uint64_t into = 0);
  Status fill(const Reservation& reservation, std::uint64_t offset, ConstSpan bytes);
  // With `pinned` the block stays until unpin(), even if the object is evicted at once.
  Expected<Key> publish(std::uint64_t object_id, const Policy& policy, bool pinned = false);
  void abort(std::uint64_t object_id);
  Expected<Reservation> reserved(std::uint64_t object_id) const;
  // A writer's connection is gone: what it had reserved is given back.
  void writer_lost(std::uint64_t writer);
  Key new_key();

  // Live memory, exposed in place: the payload is `prefix`, then (from `live_offset`) the live bytes.
  // `region_offset`: where the live bytes begin within the region that the doors know as `region`.
  Expected<Key> publish_live(ConstSpan prefix, std::uint64_t live_offset, Span live,
                             std::uint32_t region, std::uint64_t region_offset);
  // Brackets a change of live memory; readers retry meanwhile.
  Status begin_writing(std::uint64_t object_id);
  Status end_writing(std::uint64_t object_id);

  // Somebody here still uses what the key named, although it was evicted.
  bool sending(const Key& key) const;

  // Reading here, or on behalf of a peer: the block stays until unpin().
  Expected<Located> pin(std::uint64_t object_id, const Tag& capability);
  void unpin(const memory::Block& block);
  Expected<Key> locate(std::uint64_t object_id, const Tag& capability) const;
  Status check(std::uint64_t object_id, const Tag& capability) const;
  // Code::pinned unless forced. Evicting what is gone already is no error.
  Status evict(std::uint64_t object_id, const Tag& capability, bool force = false);
  // Tells when the object is published (status ok), or that it cannot be any more.
  using Notify = std::function<void(Status)>;
  void when_published(std::uint64_t object_id, const Tag& capability, Notify notify);

  // The readers of this node, and those that read one-sidedly.
  void add_reader(std::uint64_t connection, std::shared_ptr<memory::PinTableView> table);
  void remove_reader(std::uint64_t connection);
  void grant_one_sided(std::uint64_t connection);
  void revoke_one_sided(std::uint64_t connection);

  // Housekeeping, by a timer: time-to-live, and blocks that nobody looks at any more.
  void tend();
  // Everything is evicted and nothing new is accepted.
  void close();
  OwnerStats stats() const;

 private:
  enum class State { reserved, live };
  struct Entry {
    State state = State::reserved;
    memory::Block block;
    std::uint64_t length = 0;
    std::uint64_t generation = 0;
    std::uint64_t writer = 0;
    std::uint32_t flags = 0;
    Nanoseconds expires = 0;
  };
  struct Retired {
    memory::Block block;
    Nanoseconds since;
    bool graced;
  };

  ObjectHeader& header(const memory::Block& block) const {
    return *reinterpret_cast<ObjectHeader*>(block.data);
  }
  Expected<memory::Block> allocate(std::uint64_t size, bool may_wait);
  Status why_absent(std::uint64_t object_id) const;
  Expected<const Entry*> find_live(std::uint64_t object_id, const Tag& capability) const;
  Key key_of(std::uint64_t object_id, const Entry& entry) const;
  void evict_locked(std::map<std::uint64_t, Entry>::iterator entry);
  void collect_locked(Nanoseconds time);
  std::vector<Notify> take_waiters(std::uint64_t object_id);

  OwnerAddress self_;
  const OwnerOptions options_;
  const Tag secret_ = random_tag();
  memory::Arena arena_;

  mutable std::mutex mutex_;
  bool closed_ = false;
  std::uint64_t next_id_ = 1;
  std::uint64_t next_generation_ = 2;
  std::map<std::uint64_t, Entry> entries_;
  std::unordered_set<std::uint64_t> deferred_;
  std::map<std::uint64_t, std::vector<Notify>> waiters_;
  std::unordered_map<std::uint64_t, std::uint32_t> local_pins_;  // by block word
  std::vector<Retired> retired_;
  std::multimap<std::uint64_t, std::shared_ptr<memory::PinTableView>> readers_;
  std::unordered_set<std::uint64_t> one_sided_;
  std::map<Nanoseconds, std::vector<std::uint64_t>> expiring_;
};

}  // namespace pshpc::objects
