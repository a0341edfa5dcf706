#include "objects/reader.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/fence.h"
#include "base/log.h"
#include "objects/door_reads.h"
#include "objects/shm_reads.h"

namespace pshpc::objects {
namespace {

constexpr std::uint64_t kConfirmFrom = 16u << 20;
constexpr Nanoseconds kLongestPause = 60 * kSecond;
// An owner that is stopped must not keep a reader from an error that it knows already.
constexpr Nanoseconds kExplanationTime = kSecond;
// Where a key names other ways to the owner: what ours may take to begin, and when they are tried
// again.
constexpr Nanoseconds kFirstContact = kSecond;
constexpr Nanoseconds kSilence = 60 * kSecond;
constexpr Nanoseconds kLastReleases = kSecond;

Status closed_error() { return {Code::closed, "the store is closed"}; }

// A door that cannot do it is passed over; everything else is the answer.
bool try_next(const Status& status, const Link& link) {
  return status.code() == Code::unavailable || status.code() == Code::full ||
         (status.code() == Code::peer_lost && link.alive());
}

void say_fallback(const Key& key, const Status& why) {
  log_warn_once(
      "reading from owner " + key.owner.short_name() +
      " over the node socket, which is slow, because no better door is open: " + why.message());
}

}  // namespace

Reader::Reader(std::shared_ptr<Owner> owner, rpc::LinkContext context,
               std::shared_ptr<memory::Pool> pool, DoorChoice doors)
    : owner_(std::move(owner)),
      context_(std::move(context)),
      pool_(std::move(pool)),
      doors_(std::move(doors)) {}

// Links.

// One thread connects, the others wait for its link, or go on with the old one while it is renewed.
Expected<std::shared_ptr<Link>> Reader::link(const OwnerAddress& owner, const Key* hint,
                                             Deadline deadline) {
  if (doors_.only_tcp())
    return Status(Code::unavailable, "of other processes' doors this store may use tcp alone");
  if (owner.anyone()) return link_to_whoever(owner, deadline);
  const bool outside = hint != nullptr && !hint->outside.empty() && doors_.allows(kTcpDoor);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (closed_) return closed_error();
    Slot& slot = links_[owner.id];
    const bool renew = slot.link && slot.link->worn() && now() >= slot.renew_from;
    if (slot.link && (!renew || slot.connecting)) return slot.link;
    if (!slot.connecting) {
      if (outside && !slot.link && now() < slot.silent_until) return slot.silence;
      slot.connecting = true;
      if (renew) slot.renew_from = now() + slot.pause;
      if (renew) slot.pause = std::min(2 * slot.pause, kLongestPause);
      break;
    }
    if (deadline.passed())
      return Status(Code::timed_out, "reaching owner " + owner.short_name() + " took too long");
    connected_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
  }
  lock.unlock();
  const Deadline first_contact = Deadline::after(kFirstContact);
  const bool hasty = deadline.at() < first_contact.at();
  auto opened = Link::open(context_, owner, hint, outside && !hasty ? first_contact : deadline);
  // To one who wants an object it is all the same what became of its owner.
  const bool gone = hint != nullptr && opened.status().code() == Code::replaced;
  if (gone) opened = Status(Code::owner_gone, opened.status().message());
  std::shared_ptr<Link> replaced;  // ends outside the lock
  lock.lock();
  connected_.notify_all();
  if (closed_) return closed_error();
  Slot& slot = links_[owner.id];
  slot.connecting = false;
  if (opened) replaced = std::exchange(slot.link, opened.value());
  if (slot.link) return slot.link;
  const Code why = opened.status().code();
  const bool late = why == Code::timed_out && !hasty;
  if (outside && !gone &&
      (why == Code::owner_gone || why == Code::denied || why == Code::unavailable || late))
    return note_silence_locked(owner.id, opened.status());
  links_.erase(owner.id);
  return opened;
}

// Those who ask get an answer that makes them try the other ways, at once until the time is over.
Status Reader::note_silence_locked(const OwnerId& owner, Status why) {
  for (auto at = links_.begin(); at != links_.end();) {
    const Slot& slot = at->second;
    const bool silent = !slot.link && !slot.connecting && slot.silent_until != 0;
    const bool over = silent && slot.silent_until < now();
    at = over && at->first != owner ? links_.erase(at) : std::next(at);
  }
  const bool gone = why.code() == Code::owner_gone;
  why = Status(gone ? Code::unreached : Code::unavailable, why.message());
  Slot& slot = links_[owner];
  slot.silence = why;
  slot.silent_until = now() + kSilence;
  return why;
}

Expected<std::shared_ptr<Link>> Reader::live_link(const OwnerAddress& owner, Deadline deadline) {
  auto opened = link(owner, nullptr, deadline);
  if (!opened) return opened;
  const std::shared_ptr<Link>& found = opened.value();
  // That a dead peer's doors are lost may be noticed first.
  if (found->worn() ? found->answers(deadline) : found->alive()) return opened;
  forget(found->address().id, found);
  return link(owner, nullptr, deadline);
}

// Its id is known once it has said hello; a link that leads to it already is kept.
Expected<std::shared_ptr<Link>> Reader::link_to_whoever(const OwnerAddress& owner,
                                                        Deadline deadline) {
  auto opened = Link::open(context_, owner, nullptr, deadline);
  if (!opened) return opened;
  std::shared_ptr<Link> surplus;
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return closed_error();
  Slot& slot = links_[opened.value()->address().id];
  if (slot.link && slot.link->alive() && !slot.link->worn())
    surplus = std::exchange(opened, slot.link).value();
  else
    surplus = std::exchange(slot.link, opened.value());
  return opened;
}

void Reader::forget(const OwnerId& owner, const std::shared_ptr<Link>& link) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = links_.find(owner);
  if (found != links_.end() && found->second.link == link) found->second.link.reset();
}

// Until a link that has lost a door may be replaced; false if the deadline comes before.
bool Reader::wait_for_renewal(const OwnerId& owner, const std::shared_ptr<Link>& link,
                              Deadline deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    const auto found = links_.find(owner);
    if (closed_ || found == links_.end() || found->second.link != link) return !closed_;
    const Nanoseconds rest = found->second.renew_from - now();
    if (rest <= 0 && !found->second.connecting) return true;
    if (deadline.passed() || rest >= deadline.remaining()) return false;
    connected_.wait_for(lock, std::chrono::nanoseconds(std::clamp(rest, kMillisecond, kSecond)));
  }
}

Status Reader::with_link(const Key& key, Deadline deadline,
                         const std::function<Status(const std::shared_ptr<Link>&)>& action) {
  for (int breaks = 0;;) {
    auto opened = link(key.owner, &key, deadline);
    const Status status = opened ? action(opened.value()) : opened.status();
    // A dead owner's doors are lost as well, which looks as if none had ever been open.
    const bool no_door = opened && status.code() == Code::unavailable;
    if (breaks > 0 && status.code() == Code::unreached) return {Code::owner_gone, status.message()};
    if (status.code() != Code::peer_lost && !no_door) return status;
    if (opened) {
      const std::shared_ptr<Link>& link = opened.value();
      if (no_door && link->worn()) {
        if (link->answers(deadline)) {
          if (wait_for_renewal(key.owner.id, link, deadline)) continue;
          return status;
        }
      } else if (link->alive()) {
        return status;
      }
      forget(key.owner.id, link);
    }
    // A second break in a row is the owner's death rather than a hiccup of the connection.
    if (++breaks > 1) return {Code::owner_gone, status.message()};
  }
}

void Reader::close() {
  // The connection may outlive the store, for the sake of views.
  send_releases(kLastReleases);
  std::map<OwnerId, Slot> links;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    links.swap(links_);
  }
  connected_.notify_all();
  for (auto& [owner, slot] : links)
    if (slot.link) slot.link->end(closed_error());
}

// Reading.

Expected<std::shared_ptr<memory::Pool::Buffer>> Reader::buffer_for(std::uint64_t length) {
  auto taken = pool_->take(kHeaderSize + length);
  if (!taken) return taken.status();
  return std::make_shared<memory::Pool::Buffer>(std::move(taken).value());
}

Expected<Lease> Reader::copied(const Lease& lease) {
  auto buffer = buffer_for(lease.memory.size);
  if (!buffer) return buffer.status();
  Lease copy;
  copy.memory = buffer.value()->span().slice(kHeaderSize, lease.memory.size);
  copy_bytes(copy.memory.data, lease.memory);
  copy.writable = true;
  copy.door = lease.door;
  copy.generation = lease.generation;
  copy.holder = std::move(buffer).value();
  return copy;
}

// Another thread may be writing: the same sequence lock as for readers elsewhere.
Status Reader::copy_live_here(const Located& object, Span into, Deadline deadline) {
  const ObjectHeader& header = object.header();
  const auto prefix = static_cast<std::size_t>(header.live_offset);
  do {
    const std::uint64_t before = header.sequence.load(std::memory_order_acquire);
    if (before & 1) {
      ::sched_yield();
      continue;
    }
    copy_bytes(into.data, {object.block.data + kHeaderSize, prefix});
    copy_bytes(into.data + prefix,
               {reinterpret_cast<const void*>(header.live_address), into.size - prefix});
    fence(std::memory_order_acquire);
    if (header.sequence.load(std::memory_order_relaxed) == before) return {};
  } while (!deadline.passed());
  return {Code::changed, "object " + std::to_string(object.object_id) +
                             " kept changing while it was read; read it outside of writing() "
                             "blocks, or allow more time"};
}

Expected<Lease> Reader::get_here(const Key& key, bool writable, Deadline deadline) {
  auto located = owner_->pin(key.object_id, key.capability);
  if (!located) return located.status();
  struct Pinned {
    std::shared_ptr<Owner> owner;
    memory::Block block;
    Mapping private_pages;
    Pinned(std::shared_ptr<Owner> o, memory::Block b) : owner(std::move(o)), block(b) {}
    ~Pinned() { owner->unpin(block); }
  };
  auto pinned = std::make_shared<Pinned>(owner_, located->block);
  Lease lease;
  lease.door = kSelfDoor;
  lease.generation = located->generation;
  const auto length = static_cast<std::size_t>(located->length);
  if (located->flags & kRegistered) {
    auto buffer = buffer_for(length);
    if (!buffer) return buffer.status();
    lease.memory = buffer.value()->span().slice(kHeaderSize, length);
    const Status copied = copy_live_here(located.value(), lease.memory, deadline);
    if (!copied.ok()) return copied;
    lease.writable = true;
    lease.holder = std::move(buffer).value();
    return lease;
  }
  lease.memory = Span(located->block.data + kHeaderSize, length);
  lease.holder = pinned;
  if (!writable) return lease;
  const memory::Segment* segment = owner_->arena().segment(located->block.segment);
  if (length < kCopyOnWriteFrom || segment == nullptr) return copied(lease);
  auto pages = Mapping::file(segment->fd(), located->block.offset, kHeaderSize + length,
                             Mapping::Access::copy_on_write);
  if (!pages) return pages.status();
  pinned->private_pages = std::move(pages).value();
  lease.memory.data = pinned->private_pages.data() + kHeaderSize;
  lease.writable = true;
  return lease;
}

std::vector<Reader::Way> Reader::ways(const Link& link) const {
  std::vector<Way> ways;
  if (link.on_node() && doors_.allows(kShmDoor)) ways.push_back({kShmDoor, nullptr});
  for (const auto& door : context_.exposure->doors())
    if (doors_.allows(door->name()) && link.channel(door->name()))
      ways.push_back({stable_name(door->name()), door});
  if (doors_.allows(kSocketDoor)) ways.push_back({kSocketDoor, nullptr});
  return ways;
}

Status Reader::no_way(const Link& link, const Key& key) const {
  std::string why =
      "no door leads to owner " + key.owner.short_name() + " (allowed: " + doors_.describe() + ")";
  if (doors_.allows(kShmDoor))
    why += link.on_node() ? "; shm: " + link.shm_refused() : "; shm: the owner is on another node";
  const char* closed = link.welcome().trusted
                           ? ": the owner did not open it, or it was lost"
                           : ": owners open it to stores with their secret= only";
  for (const auto& door : context_.exposure->doors())
    if (doors_.allows(door->name()) && !link.channel(door->name()))
      why += "; " + door->name() + closed;
  return {Code::unavailable, why};
}

Status Reader::confirm(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t length,
                       Deadline deadline) const {
  if (length < kConfirmFrom) return {};
  Status last = no_way(*link, key);
  for (const Way& way : ways(*link)) {
    last = way.name == kShmDoor ? confirm_in_segment(link, key, deadline)
                                : confirm_remotely(link, way.door, key, deadline);
    if (last.ok() || !try_next(last, *link)) break;
  }
  return last;
}

Expected<const char*> Reader::read_remote(const std::shared_ptr<Link>& link, const Key& key,
                                          std::uint64_t offset, Span into, Deadline deadline) {
  Status last = no_way(*link, key);
  for (const Way& way : ways(*link)) {
    if (way.door) {
      last = read_through_door(link, way.door, key, offset, into, deadline);
    } else if (way.name == kShmDoor && (key.flags & Key::kLive)) {
      last = read_live_memory(link, key, offset, into, deadline);
    } else if (way.name == kShmDoor) {
      auto lease = view_in_segment(link, key, false, deadline);
      last = lease.status();
      if (lease && offset <= key.length && into.size <= key.length - offset)
        copy_bytes(into.data, lease->memory.slice(offset, into.size));
      else if (lease)
        last = Status(Code::invalid, "the range lies outside of " + key.describe());
    } else {
      say_fallback(key, last);
      last = read_through_socket(link, key, offset, into, deadline);
    }
    if (last.ok()) return way.name;
    if (!try_next(last, *link)) break;
  }
  return last;
}

Expected<Lease> Reader::get_remote(const std::shared_ptr<Link>& link, const Key& key, bool writable,
                                   Deadline deadline) {
  const bool stored = !(key.flags & Key::kLive);
  if (stored && link->on_node() && doors_.allows(kShmDoor)) {
    const bool map_pages = writable && key.length >= kCopyOnWriteFrom;
    auto lease = view_in_segment(link, key, map_pages, deadline);
    if (lease && writable && !map_pages) return copied(lease.value());
    if (lease || !try_next(lease.status(), *link)) return lease;
  }
  const Status confirmed = confirm(link, key, key.length, deadline);
  if (!confirmed.ok()) return confirmed;
  auto buffer = buffer_for(key.length);
  if (!buffer) return buffer.status();
  Lease lease;
  lease.memory = buffer.value()->span().slice(kHeaderSize, static_cast<std::size_t>(key.length));
  lease.writable = true;
  lease.holder = buffer.value();
  if (stored) {
    for (const Way& way : ways(*link)) {
      if (!way.door) continue;
      DoorRead read(link, way.door, key, buffer.value());
      Status status = read.start(deadline);
      if (status.ok()) status = read.finish(deadline);
      lease.door = way.name;
      if (status.ok()) return lease;
      if (!try_next(status, *link)) return status;
    }
    if (!doors_.allows(kSocketDoor)) return no_way(*link, key);
    say_fallback(key, no_way(*link, key));
    const Status status = read_through_socket(link, key, 0, lease.memory, deadline);
    lease.door = kSocketDoor;
    if (!status.ok()) return status;
    return lease;
  }
  auto door = read_remote(link, key, 0, lease.memory, deadline);
  if (!door) return door.status();
  lease.door = door.value();
  return lease;
}

// A reader that finds the block reused cannot tell why; the owner can.
Status Reader::explain(const Key& key, Status status, Deadline deadline) {
  if (status.code() != Code::evicted) return status;
  const Nanoseconds patience = std::min(deadline.remaining(), kExplanationTime);
  const Status told = exists({key}, Deadline::after(patience)).front();
  return told.code() == Code::not_found || told.code() == Code::denied ? told : status;
}

// Where the object is now if it was updated, or why it is not there.
Expected<Key> Reader::after_update(const Key& key, const Status& status, Deadline deadline) {
  if (status.code() != Code::evicted) return status;
  const Nanoseconds patience = std::min(deadline.remaining(), kExplanationTime);
  auto located = locate(key, Deadline::after(patience));
  const Code told = located.status().code();
  if (told == Code::not_found || told == Code::denied) return located;
  if (!located || located->generation == key.generation) return status;
  return located;
}

Expected<Lease> Reader::get(const Key& asked, const ReadOptions& options, Deadline deadline) {
  Key key = asked;
  if (is_self(key.owner)) return get_here(key, options.writable, deadline);
  if (key.deferred()) {
    auto located = locate(key, deadline);
    if (!located) return located.status();
    key = std::move(located).value();
  }
  for (;;) {
    Lease lease;
    const Status status = with_link(key, deadline, [&](const std::shared_ptr<Link>& link) {
      auto got = get_remote(link, key, options.writable, deadline);
      if (!got) return got.status();
      lease = std::move(got).value();
      return Status();
    });
    lease.generation = key.generation;
    if (status.ok()) return lease;
    // An object that is updated faster than it can be read ends by the deadline.
    auto moved = after_update(key, status, deadline);
    if (!moved) return moved.status().within("get of " + key.describe());
    if (deadline.passed()) return status.within("get of " + key.describe());
    key = std::move(moved).value();
  }
}

std::vector<Expected<Lease>> Reader::get_batch(const std::vector<Key>& keys,
                                               const ReadOptions& options, Deadline deadline) {
  // Stored objects that only a transport leads to are all asked for before the first is waited for.
  std::vector<std::unique_ptr<DoorRead>> under_way(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Key& key = keys[i];
    if (is_self(key.owner) || key.deferred() || (key.flags & Key::kLive)) continue;
    auto opened = link(key.owner, &key, deadline);
    if (!opened) continue;
    const auto open_ways = ways(*opened.value());
    if (open_ways.empty() || !open_ways.front().door) continue;
    if (!confirm(opened.value(), key, key.length, deadline).ok()) continue;
    auto buffer = buffer_for(key.length);
    if (!buffer) continue;
    auto read =
        std::make_unique<DoorRead>(opened.value(), open_ways.front().door, key, buffer.value());
    if (read->start(deadline).ok()) under_way[i] = std::move(read);
  }
  std::vector<Expected<Lease>> results;
  results.reserve(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (under_way[i] && under_way[i]->finish(deadline).ok()) {
      Lease lease;
      lease.holder = under_way[i]->buffer();
      lease.memory = under_way[i]->buffer()->span().slice(kHeaderSize,
                                                          static_cast<std::size_t>(keys[i].length));
      lease.writable = true;
      lease.door = under_way[i]->door_name();
      lease.generation = keys[i].generation;
      results.emplace_back(std::move(lease));
      continue;
    }
    // Whatever went wrong on the quick way is found out, and told, by the ordinary one.
    under_way[i].reset();
    results.push_back(get(keys[i], options, deadline));
  }
  return results;
}

Expected<Lease> Reader::get_range(const Key& asked, std::uint64_t offset, std::uint64_t length,
                                  Deadline deadline) {
  Key key = asked;
  if (key.deferred()) {
    auto located = locate(key, deadline);
    if (!located) return located.status();
    key = std::move(located).value();
  }
  if (offset > key.length || length > key.length - offset)
    return Status(Code::invalid, "bytes " + std::to_string(offset) + " to " +
                                     std::to_string(offset + length) + " lie outside of " +
                                     key.describe() + ", which has " + std::to_string(key.length));
  const bool view = is_self(key.owner) || !(key.flags & Key::kLive);
  Lease lease;
  if (is_self(key.owner)) {
    auto whole = get_here(key, false, deadline);
    if (!whole) return whole;
    lease = std::move(whole).value();
    // The key may promise more than there is.
    if (length > lease.memory.size || offset > lease.memory.size - length)
      return Status(Code::invalid, "the range lies outside of " + key.describe());
    lease.memory = lease.memory.slice(offset, length);
    return lease;
  }
  const Status status = with_link(key, deadline, [&](const std::shared_ptr<Link>& link) -> Status {
    if (view && link->on_node() && doors_.allows(kShmDoor)) {
      auto whole = view_in_segment(link, key, false, deadline);
      if (whole) {
        lease = std::move(whole).value();
        lease.memory = lease.memory.slice(offset, length);
        return {};
      }
      if (!try_next(whole.status(), *link)) return whole.status();
    }
    const Status confirmed = confirm(link, key, length, deadline);
    if (!confirmed.ok()) return confirmed;
    auto buffer = buffer_for(length);
    if (!buffer) return buffer.status();
    lease.memory = buffer.value()->span().slice(kHeaderSize, length);
    lease.holder = buffer.value();
    lease.writable = true;
    auto door = read_remote(link, key, offset, lease.memory, deadline);
    if (door) lease.door = door.value();
    return door.status();
  });
  if (status.ok()) return lease;
  return explain(key, status, deadline).within("get of a part of " + key.describe());
}

Expected<const char*> Reader::read_into(const Key& asked, std::uint64_t offset, Span into,
                                        Deadline deadline) {
  Key key = asked;
  if (key.deferred()) {
    auto located = locate(key, deadline);
    if (!located) return located.status();
    key = std::move(located).value();
  }
  if (is_self(key.owner)) {
    auto here = get_range(key, offset, into.size, deadline);
    if (!here) return here.status();
    copy_bytes(into.data, here->memory.slice(0, into.size));
    return here->door;
  }
  const char* door = "";
  const Status status = with_link(key, deadline, [&](const std::shared_ptr<Link>& link) {
    auto read = read_remote(link, key, offset, into, deadline);
    if (read) door = read.value();
    return read.status();
  });
  if (status.ok()) return door;
  return explain(key, status, deadline).within("get of " + key.describe());
}

}  // namespace pshpc::objects
