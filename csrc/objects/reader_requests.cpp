// Reader: what is asked of owners rather than read from their memory.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "objects/door_reads.h"
#include "objects/reader.h"
#include "objects/writer.h"

namespace pshpc::objects {
namespace {

// An owner that does not take them keeps the thread no longer than this.
constexpr Nanoseconds kReleaseTime = 2 * kSecond;

}  // namespace

std::vector<Status> Reader::exists(const std::vector<Key>& keys, Deadline deadline) {
  const auto here = [&](std::size_t i) {
    return owner_->check(keys[i].object_id, keys[i].capability);
  };
  return ask_each({Kind::exists, {}, nullptr, here}, keys, deadline);
}

std::vector<Status> Reader::evict(const std::vector<Key>& keys, bool force, Deadline deadline) {
  const auto here = [&](std::size_t i) {
    return owner_->evict(keys[i].object_id, keys[i].capability, force);
  };
  WireWriter beginning;
  beginning.put(static_cast<std::uint8_t>(force));
  return ask_each({Kind::evict, beginning.take(), nullptr, here}, keys, deadline);
}

std::vector<Status> Reader::validate(const std::vector<Key>& keys,
                                     const std::vector<std::uint64_t>& generations,
                                     Deadline deadline) {
  const auto add = [&](WireWriter& request, std::size_t i) { request.put(generations[i]); };
  const auto here = [&](std::size_t i) {
    return owner_->validate(keys[i].object_id, keys[i].capability, generations[i]);
  };
  if (keys.size() == 1 && generations.front() == keys.front().generation &&
      seen_unchanged(keys.front(), deadline))
    return {Status()};
  return ask_each({Kind::validate, {}, add, here}, keys, deadline);
}

// Many are asked for in one request; for one, a look takes a fraction of that.
bool Reader::seen_unchanged(const Key& key, Deadline deadline) {
  if (is_self(key.owner) || key.deferred()) return false;
  std::shared_ptr<Link> link;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = links_.find(key.owner.id);
    if (found != links_.end()) link = found->second.link;
  }
  if (!link || !link->alive()) return false;
  for (const Way& way : ways(*link))
    if (way.door) return objects::seen_unchanged(link, way.door, key, deadline);
  return false;
}

std::vector<Status> Reader::extend(const std::vector<Key>& keys, Nanoseconds time_to_live,
                                   Deadline deadline) {
  const auto here = [&](std::size_t i) {
    return owner_->extend(keys[i].object_id, keys[i].capability, time_to_live);
  };
  WireWriter beginning;
  beginning.put(time_to_live);
  return ask_each({Kind::extend, beginning.take(), nullptr, here}, keys, deadline);
}

Status Reader::hold(const Key& key, const ClaimRequest& request, Deadline deadline) {
  const auto add = [&](WireWriter& body, std::size_t) {
    body.put(request.claim).put(request.mode);
    body.put(static_cast<std::uint8_t>(request.fresh)).put(request.lease);
  };
  const auto here = [&](std::size_t) {
    return owner_->hold(key.object_id, key.capability, request);
  };
  return ask_each({Kind::hold, {}, add, here}, {key}, deadline).front();
}

void Reader::release(const Key& key, std::uint64_t claim) {
  if (is_self(key.owner)) {
    static_cast<void>(owner_->release(key.object_id, key.capability, claim));
    return;
  }
  {
    std::lock_guard<std::mutex> lock(releases_mutex_);
    releases_.emplace_back(key, claim);
    if (releases_.size() > 1) return;  // somebody is on the way
  }
  static_cast<void>(errands_.add([this] { send_releases(kReleaseTime); }));
}

void Reader::send_releases(Nanoseconds patience) {
  std::vector<std::pair<Key, std::uint64_t>> releases;
  {
    std::lock_guard<std::mutex> lock(releases_mutex_);
    releases.swap(releases_);
  }
  std::map<OwnerId, std::vector<std::size_t>> by_owner;
  for (std::size_t i = 0; i < releases.size(); ++i)
    by_owner[releases[i].first.owner.id].push_back(i);
  for (const auto& [owner, all] : by_owner) {
    std::shared_ptr<Link> link;  // without one, its end has released them
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = links_.find(owner);
      if (found != links_.end()) link = found->second.link;
    }
    if (link && link->on_node() && !link->alive()) {
      // The owner has ended, but a keeper may go on counting for it.
      auto again = live_link(releases[all.front()].first.owner, Deadline::after(patience));
      link = again ? again.value() : nullptr;
    }
    for (std::size_t start = 0; link && start < all.size(); start += kMaxBatch) {
      const std::size_t end = std::min(all.size(), start + kMaxBatch);
      WireWriter request;
      request.put(static_cast<std::uint32_t>(end - start));
      for (std::size_t i = start; i < end; ++i) {
        ref_of(releases[all[i]].first).encode(request);
        request.put(releases[all[i]].second);
      }
      const auto told = link->ask(Kind::release, request.bytes(), Deadline::after(patience));
      if (!told) log_debug("references were not released: " + told.status().message());
    }
  }
}

std::vector<Status> Reader::ask_each(const Asking& asking, const std::vector<Key>& keys,
                                     Deadline deadline) {
  std::vector<Status> outcome(keys.size());
  std::map<OwnerId, std::vector<std::size_t>> by_owner;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (is_self(keys[i].owner))
      outcome[i] = asking.here(i);
    else
      by_owner[keys[i].owner.id].push_back(i);
  }
  for (const auto& [owner, all] : by_owner) {
    for (std::size_t start = 0; start < all.size(); start += kMaxBatch) {
      const std::size_t end = std::min(all.size(), start + kMaxBatch);
      const std::vector<std::size_t> which(all.begin() + static_cast<std::ptrdiff_t>(start),
                                           all.begin() + static_cast<std::ptrdiff_t>(end));
      const Status asked =
          with_link(keys[which.front()], deadline, [&](const std::shared_ptr<Link>& link) {
            return ask_many(link, asking, keys, which, deadline, outcome);
          });
      if (asked.ok()) continue;
      for (const std::size_t i : which) outcome[i] = asked.within(keys[i].describe());
    }
  }
  return outcome;
}

Status Reader::ask_many(const std::shared_ptr<Link>& link, const Asking& asking,
                        const std::vector<Key>& keys, const std::vector<std::size_t>& which,
                        Deadline deadline, std::vector<Status>& outcome) {
  WireWriter request;
  request.put_raw(asking.beginning).put(static_cast<std::uint32_t>(which.size()));
  for (const std::size_t i : which) {
    ref_of(keys[i]).encode(request);
    if (asking.add) asking.add(request, i);
  }
  auto reply = link->ask(asking.kind, request.bytes(), deadline);
  if (!reply) return reply.status();
  if (reply->body.size() != which.size())
    return {Code::protocol, "an answer for another number of objects than were asked about"};
  for (std::size_t n = 0; n < which.size(); ++n) {
    const auto code = static_cast<Code>(reply->body[n]);
    if (code == Code::ok)
      outcome[which[n]] = Status();
    else
      outcome[which[n]] = Status(code, keys[which[n]].describe() + ": " + explain_code(code));
  }
  return {};
}

Expected<Key> Reader::locate(const Key& key, Deadline deadline) {
  if (is_self(key.owner)) return owner_->locate(key.object_id, key.capability);
  WireWriter request;
  ref_of(key).encode(request);
  Key located;
  const Status status = with_link(key, deadline, [&](const std::shared_ptr<Link>& link) {
    auto reply = link->ask(Kind::locate, request.bytes(), deadline);
    if (!reply) return reply.status();
    auto parsed = Key::parse(reply->body);
    if (!parsed) return parsed.status();
    located = std::move(parsed).value();
    return Status();
  });
  if (!status.ok()) return status.within(key.describe());
  return located;
}

Expected<Key> Reader::wait_for(const Key& key, Deadline deadline) {
  if (is_self(key.owner)) return wait_here(key, deadline);
  Key published;
  const Status status = with_link(key, deadline, [&](const std::shared_ptr<Link>& link) {
    WireWriter request;
    ref_of(key).encode(request);
    request.put(deadline.remaining());
    auto reply = link->ask(Kind::wait, request.bytes(), deadline);
    if (!reply) return reply.status();
    auto parsed = Key::parse(reply->body);
    if (!parsed) return parsed.status();
    published = std::move(parsed).value();
    return Status();
  });
  if (!status.ok()) return status.within("waiting for " + key.describe());
  return published;
}

Expected<Key> Reader::wait_here(const Key& key, Deadline deadline) {
  struct Signal {
    std::mutex mutex;
    std::condition_variable changed;
    bool told = false;
    Status status;
  };
  // Shared: it may be told after this wait has given up.
  const auto signal = std::make_shared<Signal>();
  const Waiting waiting{0, deadline.remaining()};
  owner_->when_published(key.object_id, key.capability, waiting, [signal](Status status) {
    std::lock_guard<std::mutex> lock(signal->mutex);
    signal->told = true;
    signal->status = std::move(status);
    signal->changed.notify_all();
  });
  std::unique_lock<std::mutex> lock(signal->mutex);
  while (!signal->told) {
    const Nanoseconds left = deadline.remaining();
    if (left == 0)
      return Status(Code::timed_out, key.describe() + " was not set within the time allowed");
    signal->changed.wait_for(lock, std::chrono::nanoseconds(std::min(left, kSecond)));
  }
  if (!signal->status.ok()) return signal->status.within("waiting for " + key.describe());
  return owner_->locate(key.object_id, key.capability);
}

Expected<Key> Reader::put_to(const OwnerAddress& owner, std::uint64_t length,
                             const std::vector<Part>& parts, const Policy& policy,
                             Deadline deadline) {
  if (is_self(owner)) return owner_->put(length, parts, policy);
  Key target;
  target.owner = owner;
  auto stored = put_into(target, 0, length, parts, policy, deadline);
  if (!stored) return stored.status().within("put to owner " + owner.short_name());
  return stored;
}

Expected<Key> Reader::put_into(const Key& target, std::uint64_t claim, std::uint64_t length,
                               const std::vector<Part>& parts, const Policy& policy,
                               Deadline deadline) {
  const Into into{target.object_id, claim};
  if (is_self(target.owner)) {
    const Status allowed = owner_->may_store_into(into, target.capability);
    if (!allowed.ok()) return allowed;
    return owner_->put(length, parts, policy, into);
  }
  Key stored;
  const Status status = with_link(target, deadline, [&](const std::shared_ptr<Link>& link) {
    const Destination to{ref_of(target), claim};
    auto key = write_to(link, *context_.exposure, doors_, to, length, parts, policy, deadline);
    if (!key) return key.status();
    stored = std::move(key).value();
    return Status();
  });
  if (!status.ok()) return status;
  return stored;
}

}  // namespace pshpc::objects
