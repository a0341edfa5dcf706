#include "memory/arena.h"

#include <algorithm>
#include <utility>

#include "base/fork_guard.h"
#include "base/log.h"
#include "base/mapping.h"

namespace pshpc::memory {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kFirstSegment = 16 * kMiB;
constexpr std::uint64_t kLargestStep = 1024 * kMiB;
constexpr std::uint64_t kHugePage = 2 * kMiB;
constexpr std::uint64_t kWarmStep = 64 * kMiB;

ArenaOptions complete(ArenaOptions options) {
  if (options.capacity == 0) options.capacity = default_capacity(1);
  if (!options.limits) options.limits = [] { return read_memory_limits(); };
  options.capacity = options.capacity / page_size() * page_size();
  if (options.first_segment == 0) options.first_segment = kFirstSegment;
  return options;
}

Status forked() {
  return {Code::forked, "the memory belongs to the parent process; open a store in the child"};
}

}  // namespace

Arena::Arena(ArenaOptions options, SegmentHook hook)
    : options_(complete(std::move(options))),
      hook_(std::move(hook)),
      birth_(fork_generation()),
      next_segment_(options_.first_segment) {}

Arena::~Arena() = default;

// In a child the mutexes may be held by threads that are not there.
bool Arena::inherited() const { return birth_ != fork_generation(); }

Expected<Block> Arena::allocate(std::uint64_t size) {
  if (inherited()) return forked();
  if (kept_) return Status(Code::closed, "memory that was taken over holds nothing new");
  if (size > Segment::kMaxSize) return refuse(size, "no block can be larger than 2^48 bytes");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto block = take(size)) return *block;
  }
  std::lock_guard<std::mutex> growing(growth_mutex_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    // Whoever grew before us may have made room for us too.
    if (auto block = take(size)) return *block;
  }
  std::optional<Block> block;
  if (Status status = grow(size, next_segment_, &block); !status) return status;
  return *block;
}

std::optional<Block> Arena::try_allocate(std::uint64_t size) {
  if (inherited() || kept_ || size > Segment::kMaxSize) return std::nullopt;
  std::lock_guard<std::mutex> lock(mutex_);
  return take(size);
}

std::optional<Block> Arena::take(std::uint64_t size) {
  const auto extent = allocator_.take(size);
  if (!extent) return std::nullopt;
  return Block{extent->segment, extent->offset, extent->size,
               segments_[extent->segment]->data() + extent->offset};
}

void Arena::release(const Block& block) {
  if (inherited()) return;
  if (kept_) {
    KeptBlocks::Range pages;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      pages = kept_->remove(block.segment, block.offset);
    }
    return give_back(pages);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (allocator_.give_back(block.segment, block.offset) == 0) {
    log_warn_once("a block was released twice, or never allocated; it is left alone");
  }
}

Status Arena::adopt(std::vector<Inherited> segments) {
  kept_.emplace();
  for (Inherited& inherited : segments) {
    if (inherited.id >= kMaxSegments || find_segment(inherited.id) != nullptr)
      return {Code::protocol, "segments were handed over under impossible numbers"};
    Segment::Options options;
    options.id = inherited.id;
    options.region_id = options_.first_region + inherited.id;
    auto segment = Segment::adopt(options, std::move(inherited.fd));
    if (!segment) return segment.status();
    if (hook_) {
      if (Status status = hook_(*segment.value()); !status) return status;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (segments_.size() <= inherited.id) segments_.resize(inherited.id + 1);
    Segment* adopted = segment.value().get();
    segments_[inherited.id] = std::move(segment).value();
    by_address_.emplace(adopted->data(), adopted);
    mapped_ += adopted->size();
    kept_->add_segment(inherited.id, adopted->size());
  }
  return {};
}

Expected<Block> Arena::adopt_block(std::uint32_t segment, std::uint64_t offset,
                                   std::uint64_t size) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = kept_->add({segment, offset, size}); !status) return status;
  return Block{segment, offset, size, segments_[segment]->data() + offset};
}

void Arena::trim() {
  if (inherited() || !kept_) return;
  std::vector<KeptBlocks::Range> ranges;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ranges = kept_->free_pages();
  }
  for (const auto& pages : ranges) give_back(pages);
}

// Memory that stays is no reason to fail.
void Arena::give_back(const KeptBlocks::Range& pages) {
  if (pages.size == 0) return;
  const Status punched = find_segment(pages.segment)->punch(pages.offset, pages.size);
  if (!punched) log_warn_once(punched.message());
}

// How large the next segment is: at least `least`, `wanted` if capacity and limits allow it.
Expected<Arena::Growth> Arena::plan_growth(std::uint64_t least, std::uint64_t wanted) {
  const std::uint64_t requested = least;
  least = align_up(allocator_.rounded(least), page_size());
  const std::uint64_t left = options_.capacity - stats().mapped;
  if (least > left) return refuse(requested, "the capacity is reached");
  if (next_id_ >= kMaxSegments) return refuse(requested, "there are 65535 segments already");
  const MemoryLimits limits = options_.limits();
  const std::uint64_t spendable = limits.spendable() / page_size() * page_size();
  if (least > spendable) {
    return refuse(requested, "only " + std::to_string(spendable) + " bytes are left to " +
                                 limits.nearest_bound());
  }
  std::uint64_t size = std::max(align_up(least, kHugePage), align_up(wanted, page_size()));
  // Where memory is short, leave some of it to others.
  if (size > spendable / 2) size = std::max(least, spendable / 2 / page_size() * page_size());
  return Growth{std::min({size, left, Segment::kMaxSize}), least};
}

Expected<std::unique_ptr<Segment>> Arena::make_segment(std::uint32_t id, const Growth& growth) {
  Segment::Options options;
  options.id = id;
  options.region_id = options_.first_region + id;
  options.name = options_.name;
  options.size = growth.size;
  options.huge_pages = options_.huge_pages;
  options.limits = options_.limits;
  auto segment = Segment::create(options);
  if (segment || segment.status().code() != Code::full || growth.size == growth.least)
    return segment;
  options.size = growth.least;
  return Segment::create(options);
}

// Under growth_mutex_. Takes a block of `least` bytes from the new segment if one is asked for.
Status Arena::grow(std::uint64_t least, std::uint64_t wanted, std::optional<Block>* block) {
  const auto growth = plan_growth(least, wanted);
  if (!growth) return growth.status();
  const std::uint32_t id = next_id_;
  auto made = make_segment(id, growth.value());
  if (!made) {
    const Status& status = made.status();
    return status.code() == Code::full ? refuse(least, status.message()) : status;
  }
  // A number that the hook has seen is never used again, whatever comes of it.
  ++next_id_;
  if (hook_) {
    if (Status status = hook_(*made.value()); !status) return status;
  }
  next_segment_ = std::min(std::max(next_segment_, options_.first_segment) * 2,
                           std::max(kLargestStep, options_.first_segment));
  std::lock_guard<std::mutex> lock(mutex_);
  segments_.resize(next_id_);
  segments_[id] = std::move(made).value();
  Segment* segment = segments_[id].get();
  by_address_.emplace(segment->data(), segment);
  mapped_ += segment->size();
  allocator_.add_segment(id, segment->size());
  if (block != nullptr) *block = take(least);
  return {};
}

Status Arena::refuse(std::uint64_t requested, const std::string& why) {
  const std::uint64_t available = options_.limits().spendable();
  FullReport report;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    report = {requested,         options_.capacity,         mapped_,
              allocator_.used(), allocator_.largest_free(), available};
    last_full_ = report;
  }
  const auto text = [](std::uint64_t value) { return std::to_string(value); };
  return {Code::full, "no room for " + text(requested) + " bytes: " + why + " (capacity " +
                          text(report.capacity) + ", mapped " + text(report.mapped) + ", used " +
                          text(report.used) + ", largest free block " + text(report.largest_free) +
                          ", available " + text(report.available) +
                          "). Evict objects, raise the capacity or free memory."};
}

Status Arena::warm(std::uint64_t bytes) {
  if (inherited()) return forked();
  if (kept_) return {};
  bytes = std::min(bytes, options_.capacity);
  {
    std::lock_guard<std::mutex> growing(growth_mutex_);
    const std::uint64_t mapped = stats().mapped;
    if (mapped < bytes) {
      const std::uint64_t missing = align_up(bytes - mapped, page_size());
      if (Status status = grow(missing, missing, nullptr); !status) return status;
    }
  }
  std::uint64_t warm = stats().warm;
  // In the order in which blocks are cut.
  for (const Segment* segment : segments()) {
    for (std::uint64_t at = 0; at < segment->size() && warm < bytes; at += kWarmStep) {
      const std::uint64_t before = segment->warm_bytes();
      const std::uint64_t length = std::min(kWarmStep, segment->size() - at);
      if (Status status = find_segment(segment->id())->touch(at, length); !status) return status;
      warm += segment->warm_bytes() - before;
    }
  }
  return {};
}

Status Arena::fill(const Block& block, std::uint64_t offset, ConstSpan source) {
  if (inherited()) return forked();
  Segment* segment = find_segment(block.segment);
  if (segment == nullptr || block.offset + block.size > segment->size() || offset > block.size ||
      source.size > block.size - offset) {
    return {Code::invalid, "writing " + std::to_string(source.size) + " bytes at " +
                               std::to_string(offset) + " of a block of " +
                               std::to_string(block.size)};
  }
  return segment->fill(block.offset + offset, source);
}

Status Arena::touch(const Block& block) {
  if (inherited()) return forked();
  Segment* segment = find_segment(block.segment);
  if (segment == nullptr || block.offset + block.size > segment->size()) {
    return {Code::invalid, "the block is in no segment of this arena"};
  }
  return segment->touch(block.offset, block.size);
}

Segment* Arena::find_segment(std::uint32_t id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return id < segments_.size() ? segments_[id].get() : nullptr;
}

const Segment* Arena::segment(std::uint32_t id) const {
  return inherited() ? nullptr : find_segment(id);
}

std::vector<const Segment*> Arena::segments() const {
  std::vector<const Segment*> all;
  if (inherited()) return all;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& segment : segments_) {
    if (segment) all.push_back(segment.get());
  }
  return all;
}

bool Arena::contains(const void* address, std::uint64_t size) const {
  return locate(address, size).has_value();
}

std::optional<Block> Arena::locate(const void* address, std::uint64_t size) const {
  if (inherited()) return std::nullopt;
  const auto* byte = static_cast<const std::uint8_t*>(address);
  std::lock_guard<std::mutex> lock(mutex_);
  auto next = by_address_.upper_bound(byte);
  if (next == by_address_.begin()) return std::nullopt;
  Segment* segment = std::prev(next)->second;
  const auto offset = static_cast<std::uint64_t>(byte - segment->data());
  if (offset >= segment->size() || size > segment->size() - offset) return std::nullopt;
  return Block{segment->id(), offset, size, segment->data() + offset};
}

ArenaStats Arena::stats() const {
  ArenaStats stats;
  stats.capacity = options_.capacity;
  if (inherited()) return stats;
  std::lock_guard<std::mutex> lock(mutex_);
  stats.mapped = mapped_;
  stats.used = kept_ ? kept_->used() : allocator_.used();
  stats.largest_free = allocator_.largest_free();
  for (const auto& segment : segments_) {
    if (!segment) continue;
    ++stats.segments;
    stats.warm += segment->warm_bytes();
  }
  return stats;
}

FullReport Arena::last_full() const {
  if (inherited()) return {};
  std::lock_guard<std::mutex> lock(mutex_);
  return last_full_;
}

}  // namespace pshpc::memory
