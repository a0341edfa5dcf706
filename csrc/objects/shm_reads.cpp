#include "objects/shm_reads.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/fence.h"
#include "fabric/shm/process_read.h"
#include "objects/header.h"

namespace pshpc::objects {
namespace {

using fabric::MappedSegment;
using memory::block_word;

// All that a view of another process's block depends on.
struct View {
  std::shared_ptr<MappedSegment> segment;
  std::shared_ptr<Tether> tether;
  Tether::Pin pin;
  Mapping private_pages;

  View(std::shared_ptr<MappedSegment> s, std::shared_ptr<Tether> t)
      : segment(std::move(s)), tether(std::move(t)) {}
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (pin.table != nullptr) tether->unpin(pin);
  }
};

// Keys come from outside: what they say of a block is believed only as far as it can be.
bool lies_within(const fabric::MappedSegment& segment, const Key& key, std::uint64_t length) {
  return length <= segment.size() && segment.covers(key.offset, kHeaderSize + length) &&
         key.offset % alignof(ObjectHeader) == 0;
}

Status gone(const Key& key) { return {Code::evicted, key.describe() + " was evicted"}; }

}  // namespace

Expected<Lease> view_in_segment(const std::shared_ptr<Link>& link, const Key& key, bool writable,
                                Deadline deadline) {
  auto segment = link->segment(key, false, deadline);
  if (!segment) return segment.status();
  if (!lies_within(*segment.value(), key, key.length))
    return Status(Code::invalid, "the key points outside of its segment");
  auto* block = segment.value()->data() + key.offset;
  const auto& header = *reinterpret_cast<const ObjectHeader*>(block);

  auto view = std::make_shared<View>(segment.value(), link->tether());
  auto pin = link->tether()->pin(block_word(key.segment, key.offset), key.generation, deadline);
  if (!pin) return pin.status();
  view->pin = pin.value();
  // Only now, with the pin visible to the owner, does a valid header promise anything.
  if (!header.is(key.object_id, key.generation) || header.length != key.length) return gone(key);

  Lease lease;
  lease.door = kShmDoor;
  lease.memory = Span(block + kHeaderSize, static_cast<std::size_t>(key.length));
  if (writable) {
    auto pages = segment.value()->copy_on_write(key.offset,
                                                static_cast<std::size_t>(kHeaderSize + key.length));
    if (!pages) return pages.status();
    view->private_pages = std::move(pages).value();
    lease.memory.data = view->private_pages.data() + kHeaderSize;
    lease.writable = true;
  }
  lease.holder = std::move(view);
  return lease;
}

Status confirm_in_segment(const std::shared_ptr<Link>& link, const Key& key, Deadline deadline) {
  auto segment = link->segment(key, false, deadline);
  if (!segment) return segment.status();
  if (!lies_within(*segment.value(), key, 0))
    return {Code::invalid, "the key points outside of its segment"};
  const auto& header = *reinterpret_cast<const ObjectHeader*>(segment.value()->data() + key.offset);
  const bool same = header.is(key.object_id, key.generation) && header.length == key.length;
  return same ? Status() : gone(key);
}

Status read_live_memory(const std::shared_ptr<Link>& link, const Key& key, std::uint64_t offset,
                        Span into, Deadline deadline) {
  auto segment = link->segment(key, false, deadline);
  if (!segment) return segment.status();
  if (!lies_within(*segment.value(), key, 0))
    return {Code::invalid, "the key points outside of its segment"};
  const auto* block = segment.value()->data() + key.offset;
  const auto& header = *reinterpret_cast<const ObjectHeader*>(block);
  if (offset > key.length || into.size > key.length - offset)
    return {Code::invalid, "the range lies outside of " + key.describe()};

  do {
    if (!header.is(key.object_id, key.generation) || header.length != key.length) return gone(key);
    const std::uint64_t before = header.sequence.load(std::memory_order_acquire);
    const std::uint64_t live_offset = header.live_offset;
    const std::uint64_t address = header.live_address;
    if (before & 1) {
      ::sched_yield();
      continue;
    }
    if (live_offset > key.length || !lies_within(*segment.value(), key, live_offset))
      return {Code::invalid, "the header of " + key.describe() + " is garbled"};
    std::size_t described = 0;
    if (offset < live_offset) {
      described =
          static_cast<std::size_t>(std::min<std::uint64_t>(into.size, live_offset - offset));
      copy_bytes(into.data, {block + kHeaderSize + offset, described});
    }
    const Span rest = into.slice(described, into.size - described);
    Status read;
    if (!rest.empty())
      read = fabric::read_process(link->pid(), address + (offset + described - live_offset), rest);
    fence(std::memory_order_acquire);
    // Memory that was unregistered meanwhile may be unmapped: that is an eviction, not an error.
    if (!header.is(key.object_id, key.generation)) return gone(key);
    if (!read.ok()) return read;
    if (header.sequence.load(std::memory_order_acquire) == before) return {};
  } while (!deadline.passed());
  return {Code::changed, key.describe() +
                             " kept changing while it was read; read it between the owner's "
                             "writing() blocks, or allow more time"};
}

}  // namespace pshpc::objects
