// Reader: what is asked of owners rather than read from their memory.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

#include "objects/reader.h"
#include "objects/writer.h"

namespace pshpc::objects {

std::vector<Status> Reader::exists(const std::vector<Key>& keys, Deadline deadline) {
  return ask_each(Kind::exists, keys, false, deadline);
}

std::vector<Status> Reader::evict(const std::vector<Key>& keys, bool force, Deadline deadline) {
  return ask_each(Kind::evict, keys, force, deadline);
}

std::vector<Status> Reader::ask_each(Kind kind, const std::vector<Key>& keys, bool force,
                                     Deadline deadline) {
  std::vector<Status> outcome(keys.size());
  std::map<OwnerId, std::vector<std::size_t>> by_owner;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Key& key = keys[i];
    if (!is_self(key.owner))
      by_owner[key.owner.id].push_back(i);
    else if (kind == Kind::exists)
      outcome[i] = owner_->check(key.object_id, key.capability);
    else
      outcome[i] = owner_->evict(key.object_id, key.capability, force);
  }
  for (const auto& [owner, all] : by_owner) {
    for (std::size_t start = 0; start < all.size(); start += kMaxBatch) {
      const std::size_t end = std::min(all.size(), start + kMaxBatch);
      const std::vector<std::size_t> which(all.begin() + static_cast<std::ptrdiff_t>(start),
                                           all.begin() + static_cast<std::ptrdiff_t>(end));
      const Status asked =
          with_link(keys[which.front()], deadline, [&](const std::shared_ptr<Link>& link) {
            return ask_many(link, kind, keys, which, force, deadline, outcome);
          });
      if (asked.ok()) continue;
      for (const std::size_t i : which) outcome[i] = asked.within(keys[i].describe());
    }
  }
  return outcome;
}

Status Reader::ask_many(const std::shared_ptr<Link>& link, Kind kind, const std::vector<Key>& keys,
                        const std::vector<std::size_t>& which, bool force, Deadline deadline,
                        std::vector<Status>& outcome) const {
  WireWriter request;
  if (kind == Kind::evict) request.put(static_cast<std::uint8_t>(force));
  request.put(static_cast<std::uint32_t>(which.size()));
  for (const std::size_t i : which) ref_of(keys[i]).encode(request);
  auto reply = link->ask(kind, request.bytes(), deadline);
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
  Key stored;
  const Status status = with_link(target, deadline, [&](const std::shared_ptr<Link>& link) {
    auto key = write_to(link, *context_.exposure, doors_, length, parts, policy, deadline);
    if (!key) return key.status();
    stored = std::move(key).value();
    return Status();
  });
  if (!status.ok()) return status.within("put to owner " + owner.short_name());
  return stored;
}

}  // namespace pshpc::objects
