#include "objects/bulk_client.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "objects/bulk_ways.h"

namespace pshpc::objects {
namespace {

// An operation whose channel was cut ends within this time.
constexpr Nanoseconds kCutTime = 5 * kSecond;

bool try_next(const Status& status, const Link& link) {
  return status.code() == Code::unavailable || status.code() == Code::full ||
         (status.code() == Code::peer_lost && link.alive());
}

Key reach(const Bulk& bulk) {
  Key key;
  key.owner = bulk.owner;
  return key;
}

// A message that is refused on arrival, and a registration that ended, cannot tell why; the owner
// can.
Status explain(Link& link, const BulkOrder& order, const Status& status) {
  const Code code = status.code();
  if (code != Code::invalid && code != Code::peer_lost && code != Code::protocol &&
      code != Code::failed)
    return status;
  WireWriter request = ask_about(order.bulk);
  request.put(mode_for(order.direction));
  const Nanoseconds patience = std::min(order.deadline.remaining(), kSecond);
  auto told = link.wire()->ask_socket(target_of(BulkKind::check), request.bytes(),
                                      Deadline::after(patience));
  const Code why = told.status().code();
  return why == Code::evicted || why == Code::denied || why == Code::not_found ? told.status()
                                                                               : status;
}

}  // namespace

Status BulkClient::check(const BulkOrder& order, std::vector<Stretch>* stretches) const {
  if ((order.bulk.mode & mode_for(order.direction)) == 0)
    return {Code::denied, order.bulk.describe() + " is not exposed for " +
                              (order.direction == Direction::pull ? "reading" : "writing")};
  auto laid_out = lay_out(order.bulk, order.offset, order.local);
  if (!laid_out) return laid_out.status();
  *stretches = std::move(laid_out).value();
  return {};
}

Status BulkClient::move_here(const BulkOrder& order, const std::vector<Stretch>& stretches) const {
  auto used = table_->use(order.bulk.id, order.bulk.capability, mode_for(order.direction));
  if (!used) return used.status();
  for (const Stretch& stretch : stretches) {
    auto there = used.value()->range(stretch.offset, stretch.local.size);
    if (!there) return there.status();
    if (order.direction == Direction::pull)
      copy_bytes(stretch.local.data, there.value());
    else
      copy_bytes(there->data, stretch.local);
  }
  return {};
}

Expected<BulkFlight::Plan> BulkClient::plan_flight(const std::shared_ptr<Link>& link,
                                                   const fabric::DoorHandle& door,
                                                   const BulkOrder& order,
                                                   std::vector<Stretch> stretches) const {
  BulkFlight::Plan plan;
  plan.channel = link->channel(door->name());
  if (!plan.channel) return Status(Code::unavailable, "the " + door->name() + " door is not open");
  const Bulk& bulk = order.bulk;
  if (plan.channel->one_sided()) {
    Status direct;
    if (link->on_node()) {
      auto hold = hold_bulk(link, bulk, order.deadline);
      if (hold)
        plan.hold = std::move(hold).value();
      else
        direct = hold.status();
    } else if (!plan.channel->revokes() && plan.channel->serves_messages()) {
      direct = Status(Code::unavailable, "nothing would end when the memory is closed");
    }
    plan.regions.resize(bulk.pieces.size());
    for (const Stretch& stretch : stretches) {
      auto& region = plan.regions[stretch.piece];
      if (region || !direct.ok()) continue;
      const std::uint32_t id = bulk.pieces[stretch.piece].region;
      const auto ask = [&]() -> Link::Question {
        WireWriter request = ask_about(bulk);
        request.put(id).put_text(door->name());
        return {target_of(BulkKind::region), request.take()};
      };
      auto imported = link->region(door->name(), id, ask, order.deadline);
      if (imported)
        region = std::move(imported).value();
      else
        direct = imported.status();
    }
    // What cannot be registered, or guarded, is asked for.
    if (!direct.ok()) plan.regions.clear();
    if (!direct.ok() && !try_next(direct, *link)) return direct;
  }
  plan.link = link;
  plan.bulk = bulk;
  plan.direction = order.direction;
  plan.keep = order.keep;
  plan.stretches = std::move(stretches);
  plan.deadline = order.deadline;
  return plan;
}

Status BulkClient::through_door(const std::shared_ptr<Link>& link, const fabric::DoorHandle& door,
                                const BulkOrder& order,
                                const std::vector<Stretch>& stretches) const {
  auto plan = plan_flight(link, door, order, stretches);
  if (!plan) return plan.status();
  const auto flight = BulkFlight::create(std::move(plan).value());
  flight->start();
  const Status status = link->wait(*door, *flight, order.deadline);
  if (flight->done()) return status;
  cut(*link, *door, *flight);
  return status;
}

void BulkClient::cut(Link& link, fabric::Door& door, const fabric::Operation& operation) {
  link.drop_channel(door.name());
  static_cast<void>(door.wait(operation, Deadline::after(kCutTime), [] { return false; }));
}

BulkClient::DirectWay BulkClient::direct_way(const BulkOrder& order) const {
  std::vector<Stretch> stretches;
  if (is_here(order.bulk) || !check(order, &stretches).ok() || stretches.size() != 1) return {};
  const Key key = reach(order.bulk);
  auto link = reader_.link(key.owner, &key, order.deadline);
  if (!link || (link.value()->on_node() && doors_.allows(kShmDoor))) return {};
  for (const auto& door : exposure_.doors()) {
    if (!doors_.allows(door->name()) || !link.value()->channel(door->name())) continue;
    auto plan = plan_flight(link.value(), door, order, stretches);
    if (!plan || plan->regions.empty()) return {};
    const Stretch& stretch = stretches.front();
    return {stable_name(door->name()),    link.value(), door, plan->channel,
            plan->regions[stretch.piece], stretch};
  }
  return {};
}

Expected<const char*> BulkClient::move_there(const std::shared_ptr<Link>& link,
                                             const BulkOrder& order,
                                             const std::vector<Stretch>& stretches) const {
  const Bulk& bulk = order.bulk;
  Status last(Code::unavailable, "no door leads to the owner of " + bulk.describe() +
                                     " (allowed: " + doors_.describe() + ")");
  if (link->on_node() && doors_.allows(kShmDoor)) {
    last = move_on_node(link, bulk, order.direction, stretches, order.deadline);
    if (last.ok()) return kShmDoor;
    if (!try_next(last, *link)) return explain(*link, order, last);
  }
  for (const auto& door : exposure_.doors()) {
    if (!doors_.allows(door->name())) continue;
    // A channel that broke by itself is to be renewed.
    if (!link->channel(door->name())) {
      link->drop_channel(door->name());
      continue;
    }
    last = through_door(link, door, order, stretches);
    if (!link->channel(door->name())) link->drop_channel(door->name());
    if (last.ok()) return stable_name(door->name());
    last = explain(*link, order, last);
    if (!try_next(last, *link)) return last;
  }
  if (!doors_.allows(kSocketDoor)) return last;
  log_warn_once("moving memory from or to owner " + bulk.owner.short_name() +
                " over the node socket, which is slow, because no better door is open (allowed: " +
                doors_.describe() + ")");
  last = move_through_socket(link, bulk, order.direction, stretches, order.deadline);
  if (last.ok()) return kSocketDoor;
  return last;
}

Expected<const char*> BulkClient::move(const BulkOrder& order) {
  const char* const doing = order.direction == Direction::pull ? "pull of " : "push to ";
  std::vector<Stretch> stretches;
  Status status = check(order, &stretches);
  if (!status.ok()) return status.within(doing + order.bulk.describe());
  if (is_here(order.bulk)) {
    status = move_here(order, stretches);
    if (status.ok()) return kSelfDoor;
    return status.within(doing + order.bulk.describe());
  }
  const char* way = "";
  status =
      reader_.with_link(reach(order.bulk), order.deadline, [&](const std::shared_ptr<Link>& link) {
        auto moved = move_there(link, order, stretches);
        if (moved) way = moved.value();
        return moved.status();
      });
  if (status.ok()) return way;
  // No new door could be had in the time there was.
  if (status.code() == Code::unavailable && order.deadline.passed())
    status = Status(Code::timed_out, status.message());
  return status.within(doing + order.bulk.describe());
}

bool BulkClient::try_fly(const std::shared_ptr<BulkTransfer>& transfer,
                         const std::vector<Stretch>& stretches) {
  const BulkOrder& order = transfer->order_;
  if (is_here(order.bulk)) return false;
  const Key key = reach(order.bulk);
  auto link = reader_.link(key.owner, &key, order.deadline);
  if (!link || (link.value()->on_node() && doors_.allows(kShmDoor))) return false;
  for (const auto& door : exposure_.doors()) {
    if (!doors_.allows(door->name()) || !link.value()->channel(door->name())) continue;
    auto plan = plan_flight(link.value(), door, order, stretches);
    if (!plan) return false;
    auto flight = BulkFlight::create(
        std::move(plan).value(), [transfer](const Status& status) { transfer->landed(status); });
    transfer->fly(std::move(link).value(), door, flight);
    flight->start();
    return true;
  }
  return false;
}

std::shared_ptr<BulkTransfer> BulkClient::submit(BulkOrder order) {
  auto transfer = std::make_shared<BulkTransfer>(shared_from_this(), std::move(order));
  std::vector<Stretch> stretches;
  const Status possible = check(transfer->order_, &stretches);
  if (!possible.ok()) {
    const BulkOrder& asked = transfer->order_;
    transfer->finish(possible.within(asked.bulk.describe()), "");
  } else if (!try_fly(transfer, stretches)) {
    enqueue(transfer);
  }
  return transfer;
}

void BulkClient::enqueue(std::shared_ptr<BulkTransfer> transfer) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) {
      queue_.push_back(std::move(transfer));
      if (!worker_.joinable()) worker_ = std::thread([this] { work(); });
      queued_.notify_one();
      return;
    }
  }
  if (transfer->claim()) transfer->finish({Code::closed, "it was closed on this side"}, "");
}

void BulkClient::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    queued_.wait(lock, [this] { return closed_ || !queue_.empty(); });
    if (closed_) return;
    auto transfer = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (transfer->claim()) run(*transfer);
    transfer.reset();
    lock.lock();
  }
}

void BulkClient::run(BulkTransfer& transfer) {
  auto moved = move(transfer.order_);
  transfer.finish(moved.status(), moved ? moved.value() : "");
}

void BulkClient::close() {
  std::deque<std::shared_ptr<BulkTransfer>> queue;
  std::thread worker;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    queue.swap(queue_);
    worker.swap(worker_);
  }
  queued_.notify_all();
  if (worker.joinable()) worker.join();
  for (const auto& transfer : queue)
    if (transfer->claim()) transfer->finish({Code::closed, "it was closed on this side"}, "");
}

}  // namespace pshpc::objects
