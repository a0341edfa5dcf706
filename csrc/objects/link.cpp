#include "objects/link.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace pshpc::objects {
namespace {

constexpr std::size_t kMaxRegions = 4096;

}  // namespace

Tether::Tether(std::shared_ptr<fabric::ClientConnection> connection,
               std::unique_ptr<memory::PinTable> table)
    : connection_(std::move(connection)) {
  if (!table) return;
  tables_[0] = std::move(table);
  count_ = 1;
}

Tether::Pin Tether::try_pin(std::uint64_t block, std::uint64_t generation) {
  // The newest is the least likely to be full.
  for (std::size_t i = count_.load(std::memory_order_acquire); i-- > 0;) {
    const std::uint32_t slot = tables_[i]->acquire(block, generation);
    if (slot != memory::PinTable::kNone) return {tables_[i].get(), slot};
  }
  return {};
}

Expected<Tether::Pin> Tether::pin(std::uint64_t block, std::uint64_t generation,
                                  Deadline deadline) {
  for (;;) {
    const Pin pin = try_pin(block, generation);
    if (pin.table != nullptr) return pin;
    const std::size_t seen = count_.load();
    std::unique_lock<std::mutex> lock(mutex_);
    if (count_.load() != seen) continue;
    if (opening_) {
      if (deadline.passed()) return Status(Code::timed_out, "no pin within the time allowed");
      changed_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
      continue;
    }
    opening_ = true;
    lock.unlock();
    const Status opened = open_table(deadline);
    lock.lock();
    opening_ = false;
    changed_.notify_all();
    if (!opened.ok()) return opened;
  }
}

Status Tether::open_table(Deadline deadline) {
  const std::size_t count = count_.load();
  if (count == kMaxTables)
    return {Code::full,
            "this process holds as many views of one owner's objects as pins are "
            "possible; drop some of them"};
  auto table = memory::PinTable::create();
  if (!table) return table.status();
  rpc::RequestHead head;
  head.method = target_of(Kind::pin_table).method;
  head.budget_us = rpc::to_budget(deadline);
  auto reply = connection_->call(static_cast<std::uint16_t>(rpc::FrameKind::request),
                                 rpc::encode_request(head, {}), deadline, {table.value()->fd()});
  if (!reply) return reply.status();
  ConstSpan body;
  const Status taken = rpc::decode_reply(reply->body, &body);
  if (!taken.ok()) return taken;
  tables_[count] = std::move(table).value();
  count_.store(count + 1, std::memory_order_release);
  return {};
}

Expected<std::shared_ptr<Link>> Link::open(const rpc::LinkContext& context,
                                           const OwnerAddress& address, const Key* hint,
                                           Deadline deadline) {
  rpc::Ticket ticket;
  rpc::Link::Options options;
  if (hint != nullptr) {
    ticket = {hint->object_id, hint->capability};
    options.ticket = &ticket;
  }
  std::unique_ptr<memory::PinTable> table;
  options.attach = [&table]() -> Expected<std::vector<int>> {
    auto made = memory::PinTable::create();
    if (!made) return made.status();
    table = std::move(made).value();
    return std::vector<int>{table->fd()};
  };
  auto wire = rpc::Link::open(context, address, options, deadline);
  if (!wire) return wire.status();
  auto tether = std::make_shared<Tether>(wire.value()->connection(), std::move(table));
  return std::shared_ptr<Link>(new Link(std::move(wire).value(), std::move(tether)));
}

void Link::drop_channel(const std::string& door) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto at = regions_.begin(); at != regions_.end();)
      at = at->first.first == door ? regions_.erase(at) : std::next(at);
  }
  wire_->drop_channel(door);
}

bool Link::answers(Deadline deadline) {
  WireWriter nothing;
  nothing.put(std::uint32_t{0});
  const Nanoseconds patience = std::min(deadline.remaining(), kSecond);
  static_cast<void>(ask_socket(Kind::exists, nothing.bytes(), Deadline::after(patience)));
  return alive();
}

Expected<std::shared_ptr<fabric::MappedSegment>> Link::segment(const Key& key, bool writable,
                                                               Deadline deadline) {
  const auto ask = [&]() -> Question {
    WireWriter request;
    ref_of(key).encode(request);
    request.put(key.segment).put(static_cast<std::uint8_t>(writable));
    return {target_of(Kind::segment), request.take()};
  };
  return segment(key.segment, writable, ask, deadline);
}

Expected<std::shared_ptr<fabric::MappedSegment>> Link::segment(std::uint16_t id, bool writable,
                                                               const Ask& ask, Deadline deadline) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = segments_[writable].find(id);
    if (found != segments_[writable].end()) return found->second;
  }
  if (!on_node()) return Status(Code::unavailable, "the owner is not on this node");
  const Question question = ask();
  auto frame = wire_->ask_socket(question.target, question.body, deadline);
  if (!frame) return frame.status();
  if (frame->fds.size() != 1)
    return Status(Code::protocol, "a segment came without its descriptor");
  auto mapped = fabric::MappedSegment::map(std::move(frame->fds.front()), writable);
  std::lock_guard<std::mutex> lock(mutex_);
  if (!mapped) {
    shm_refused_ = mapped.status().message();
    return Status(Code::unavailable, shm_refused_);
  }
  return segments_[writable].emplace(id, std::move(mapped).value()).first->second;
}

Expected<std::shared_ptr<fabric::RemoteRegion>> Link::region(const std::string& door,
                                                             std::uint32_t region, const Key& key,
                                                             Deadline deadline) {
  const auto ask = [&]() -> Question {
    WireWriter request;
    ref_of(key).encode(request);
    request.put(region).put_text(door);
    return {target_of(Kind::region), request.take()};
  };
  return this->region(door, region, ask, deadline);
}

Expected<std::shared_ptr<fabric::RemoteRegion>> Link::region(const std::string& door,
                                                             std::uint32_t region, const Ask& ask,
                                                             Deadline deadline) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = regions_.find({door, region});
    if (found != regions_.end()) return found->second;
  }
  const auto channel = this->channel(door);
  if (!channel) return Status(Code::peer_lost, "the " + door + " door was lost");
  const Question question = ask();
  auto reply = wire_->ask(question.target, question.body, deadline);
  if (!reply) return reply.status();
  auto imported = channel->import(reply->body);
  if (!imported) return imported.status();
  std::lock_guard<std::mutex> lock(mutex_);
  // Those of memory that was exposed for a while are of no use any more; the others come back.
  if (regions_.size() >= kMaxRegions) regions_.clear();
  return regions_.emplace(std::make_pair(door, region), std::move(imported).value()).first->second;
}

std::string Link::shm_refused() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return shm_refused_;
}

}  // namespace pshpc::objects
