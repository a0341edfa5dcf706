#include "objects/bulk_prepared.h"

#include <utility>

#include "objects/bulk_ways.h"

namespace pshpc::objects {

Expected<const char*> PreparedTransfer::run(Deadline deadline) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (way_.channel && way_.channel->alive()) {
    const Status gone = go(deadline);
    if (gone.ok()) return way_.name;
    way_ = {};
    if (gone.code() == Code::timed_out) return gone.within("moving " + order_.bulk.describe());
  }
  // The long way round, which also finds out what is wrong.
  order_.deadline = deadline;
  auto moved = client_->move(order_);
  if (moved) way_ = client_->direct_way(order_);
  return moved;
}

Status PreparedTransfer::go(Deadline deadline) const {
  std::shared_ptr<const void> hold;
  if (way_.link->on_node()) {
    auto held = hold_bulk(way_.link, order_.bulk, deadline);
    if (!held) return held.status();
    hold = std::move(held).value();
  }
  auto operation = std::make_unique<fabric::Operation>(std::move(hold));
  operation->set_awaited();
  const Stretch& stretch = way_.stretch;
  if (order_.direction == Direction::pull)
    way_.channel->read(*way_.region, stretch.at, stretch.local, operation.get());
  else
    way_.channel->write(*way_.region, stretch.at, stretch.local, operation.get());
  const Status status = way_.link->wait(*way_.door, *operation, deadline);
  if (operation->done()) return status;
  BulkClient::cut(*way_.link, *way_.door, *operation);
  fabric::Operation::abandon(std::move(operation));
  return status;
}

}  // namespace pshpc::objects
