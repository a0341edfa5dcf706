#include "memory/registration_cache.h"

#include <algorithm>
#include <utility>

namespace pshpc::memory {

struct Registration::Live {
  struct Entry {
    std::uintptr_t end;
    const Registration* owner;
    std::weak_ptr<const Registration> registration;
  };
  mutable std::mutex mutex;
  std::multimap<std::uintptr_t, Entry> entries;  // by first address
  std::uintptr_t longest = 0;                    // of all that are in entries, or more
};

namespace {

std::uintptr_t begin_of(Span span) { return reinterpret_cast<std::uintptr_t>(span.data); }

}  // namespace

Registration::Registration(std::shared_ptr<Live> live, Span span, std::shared_ptr<void> handle)
    : live_(std::move(live)), span_(span), handle_(std::move(handle)) {}

Registration::~Registration() {
  std::lock_guard<std::mutex> lock(live_->mutex);
  // A successor of the same span may stand beside this one already.
  auto [at, last] = live_->entries.equal_range(begin_of(span_));
  at = std::find_if(at, last, [this](const auto& entry) { return entry.second.owner == this; });
  if (at != last) live_->entries.erase(at);
  if (live_->entries.empty()) live_->longest = 0;
}

RegistrationCache::RegistrationCache(Register make)
    : make_(std::move(make)), live_(std::make_shared<Registration::Live>()) {}

std::shared_ptr<const Registration> RegistrationCache::find(Span span) const {
  const std::uintptr_t begin = begin_of(span);
  const std::uintptr_t end = begin + span.size;
  std::lock_guard<std::mutex> lock(live_->mutex);
  // Candidates start at or before `span`, and not further before it than the longest reaches.
  auto at = live_->entries.upper_bound(begin);
  while (at != live_->entries.begin()) {
    --at;
    if (begin - at->first > live_->longest) break;
    if (at->second.end < end) continue;
    if (auto registration = at->second.registration.lock()) return registration;
  }
  return nullptr;
}

Expected<std::shared_ptr<const Registration>> RegistrationCache::acquire(Span span) {
  if (span.data == nullptr || span.empty()) {
    return Status(Code::invalid, "there is no memory to register");
  }
  if (auto found = find(span)) return found;
  std::lock_guard<std::mutex> making(making_);
  if (auto found = find(span)) return found;
  auto handle = make_(span);
  if (!handle) {
    return handle.status().within("registering " + std::to_string(span.size) + " bytes");
  }
  std::shared_ptr<const Registration> made(
      new Registration(live_, span, std::move(handle).value()));
  std::lock_guard<std::mutex> lock(live_->mutex);
  live_->entries.emplace(begin_of(span),
                         Registration::Live::Entry{begin_of(span) + span.size, made.get(), made});
  live_->longest = std::max<std::uintptr_t>(live_->longest, span.size);
  return made;
}

std::size_t RegistrationCache::size() const {
  std::lock_guard<std::mutex> lock(live_->mutex);
  return live_->entries.size();
}

}  // namespace pshpc::memory
