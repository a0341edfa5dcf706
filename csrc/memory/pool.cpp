#include "memory/pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace pshpc::memory {
namespace {

void warn_full() {
  log_warn_once(
      "the receive pool is full: larger transfers go to memory that is faulted in anew, "
      "which is several times slower; drop results earlier or raise the pool's capacity");
}

}  // namespace

Pool::Buffer::~Buffer() {
  if (!pool_) return;
  if (overflow_) {
    pool_->overflow_bytes_.fetch_sub(overflow_.size(), std::memory_order_relaxed);
  } else {
    pool_->arena_.release(block_);
  }
}

void Pool::Buffer::swap(Buffer& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(block_, other.block_);
  std::swap(size_, other.size_);
  std::swap(overflow_, other.overflow_);
}

std::shared_ptr<Pool> Pool::create(ArenaOptions options, Arena::SegmentHook hook) {
  return std::shared_ptr<Pool>(new Pool(std::move(options), std::move(hook)));
}

Pool::Pool(ArenaOptions options, Arena::SegmentHook hook)
    : limits_(options.limits ? options.limits : [] { return read_memory_limits(); }),
      arena_(std::move(options), std::move(hook)) {}

Pool::Buffer Pool::wrap_block(const Block& block, std::uint64_t size) {
  Buffer buffer;
  buffer.pool_ = shared_from_this();
  buffer.block_ = block;
  buffer.size_ = size;
  taken_.fetch_add(1, std::memory_order_relaxed);
  return buffer;
}

Pool::Buffer Pool::wrap_overflow(Mapping mapping, std::uint64_t size) {
  Buffer buffer = wrap_block({kNoSegment, 0, mapping.size(), mapping.data()}, size);
  buffer.overflow_ = std::move(mapping);
  overflowed_.fetch_add(1, std::memory_order_relaxed);
  overflow_bytes_.fetch_add(buffer.overflow_.size(), std::memory_order_relaxed);
  return buffer;
}

Expected<Pool::Buffer> Pool::take(std::uint64_t size) {
  auto block = arena_.allocate(size);
  if (!block) {
    return block.status().code() == Code::full ? take_overflow(size, block.status())
                                               : Expected<Buffer>(block.status());
  }
  Buffer buffer = wrap_block(block.value(), size);
  if (Status status = arena_.touch(buffer.block_); !status) return status;
  return buffer;
}

Expected<Pool::Buffer> Pool::take_at_once(std::uint64_t size) {
  if (const auto block = arena_.try_allocate(size)) return wrap_block(*block, size);
  const MemoryLimits limits = limits_();
  // Of what was promised before, some may not have been written yet.
  if (size + overflow_bytes_.load(std::memory_order_relaxed) > limits.spendable())
    return Status(Code::full, "no room for " + std::to_string(size) + " bytes: only " +
                                  std::to_string(limits.spendable()) + " are left to " +
                                  limits.nearest_bound());
  auto mapping = Mapping::anonymous(align_up(std::max<std::uint64_t>(size, 1), page_size()));
  if (!mapping) return Status(Code::full, mapping.status().message());
  ::madvise(mapping->data(), mapping->size(), MADV_HUGEPAGE);
  grow_later(size);
  return wrap_overflow(std::move(mapping).value(), size);
}

void Pool::grow_later(std::uint64_t size) {
  if (growing_.exchange(true)) return;
  const bool added = errands_.add([this, size] {
    const struct Ended {
      std::atomic<bool>& growing;
      ~Ended() { growing = false; }
    } ended{growing_};
    auto block = arena_.allocate(size);
    if (block) {
      static_cast<void>(arena_.touch(block.value()));
      arena_.release(block.value());
    } else {
      warn_full();
    }
  });
  if (!added) growing_ = false;
}

Expected<Pool::Buffer> Pool::take_overflow(std::uint64_t size, const Status& why) {
  auto mapping = Mapping::anonymous(align_up(std::max<std::uint64_t>(size, 1), page_size()));
  if (!mapping) return why;
  ::madvise(mapping->data(), mapping->size(), MADV_HUGEPAGE);
  // All of it will be written: faulting it in now lets a limit be an error instead of a signal.
  const Status faulted = take_in_slices(mapping->size(), limits_, [&](auto offset, auto length) {
    return populate({mapping->data() + offset, length});
  });
  if (!faulted) return why;
  warn_full();
  return wrap_overflow(std::move(mapping).value(), size);
}

PoolStats Pool::stats() const {
  return {taken_.load(std::memory_order_relaxed), overflowed_.load(std::memory_order_relaxed),
          overflow_bytes_.load(std::memory_order_relaxed)};
}

}  // namespace pshpc::memory
