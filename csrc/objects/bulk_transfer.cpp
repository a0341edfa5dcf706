// BulkTransfer: who does a transfer, and who waits for it.

#include <algorithm>
#include <chrono>
#include <utility>

#include "objects/bulk_client.h"

namespace pshpc::objects {
namespace {

constexpr Nanoseconds kCutTime = 5 * kSecond;

}  // namespace

BulkTransfer::BulkTransfer(std::shared_ptr<BulkClient> client, BulkOrder order)
    : client_(std::move(client)), order_(std::move(order)) {}

bool BulkTransfer::done() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return phase_ == Phase::done;
}

Expected<const char*> BulkTransfer::outcome() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ != Phase::done) return Status(Code::invalid, "the transfer is still under way");
  if (!status_.ok()) return status_;
  return way_;
}

void BulkTransfer::when_done(std::function<void()> told) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (phase_ != Phase::done) return told_.push_back(std::move(told));
  }
  told();
}

bool BulkTransfer::claim() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ != Phase::queued) return false;
  phase_ = Phase::running;
  return true;
}

void BulkTransfer::fly(std::shared_ptr<Link> link, fabric::DoorHandle door,
                       std::shared_ptr<BulkFlight> flight) {
  std::lock_guard<std::mutex> lock(mutex_);
  phase_ = Phase::flying;
  link_ = std::move(link);
  door_ = std::move(door);
  flight_ = std::move(flight);
}

// What a door could not bring is tried once more, over every way, by the thread for copies, or by
// who waits.
void BulkTransfer::landed(const Status& status) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (phase_ == Phase::done) return;  // nobody waited any longer
  const char* const way = stable_name(door_->name());
  const Status given_up = given_up_;
  if (!status.ok() && given_up.ok()) phase_ = Phase::queued;
  lock.unlock();
  if (status.ok()) return finish(status, way);
  if (!given_up.ok()) return finish(given_up, "");
  client_->enqueue(shared_from_this());
}

void BulkTransfer::finish(const Status& status, const char* door) {
  std::shared_ptr<BulkFlight> flight;  // ends outside the lock
  std::shared_ptr<Link> link;
  std::vector<std::function<void()>> told;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (phase_ == Phase::done) return;
    phase_ = Phase::done;
    status_ = status;
    way_ = door;
    flight.swap(flight_);
    link.swap(link_);
    told.swap(told_);
    changed_.notify_all();
  }
  for (const auto& tell : told) tell();
}

void BulkTransfer::end_flight(const Status& why) {
  std::shared_ptr<BulkFlight> flight;
  std::shared_ptr<Link> link;
  fabric::DoorHandle door;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (phase_ != Phase::flying) return;
    given_up_ = why;
    flight = flight_;
    link = link_;
    door = door_;
  }
  link->drop_channel(door->name());
  static_cast<void>(door->wait(*flight, Deadline::after(kCutTime), [] { return false; }));
  if (!flight->done()) leave(why);
}

void BulkTransfer::cancel() {
  const Status cancelled(Code::cancelled, "the transfer was cancelled");
  if (claim()) return finish(cancelled, "");
  end_flight(cancelled);
}

// A flight that does not even end with its channel goes on alone.
void BulkTransfer::leave(const Status& why) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (phase_ != Phase::flying) return;
  }
  finish(why, "");
}

bool BulkTransfer::wait(Deadline until) {
  for (;;) {
    std::shared_ptr<BulkFlight> flight;
    std::shared_ptr<Link> link;
    fabric::DoorHandle door;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (phase_ == Phase::running) {
        if (until.passed()) return false;
        changed_.wait_for(lock, std::chrono::nanoseconds(std::min(until.remaining(), kSecond)));
        continue;
      }
      if (phase_ == Phase::done) return true;
      flight = flight_;
      link = link_;
      door = door_;
      if (phase_ == Phase::queued) flight = nullptr;
    }
    if (!flight) {
      if (until.passed()) return false;
      if (claim()) client_->run(*this);
      continue;
    }
    const Deadline limit = until.at() < order_.deadline.at() ? until : order_.deadline;
    const Status waited = link->wait(*door, *flight, limit);
    if (flight->done()) continue;
    if (waited.code() == Code::peer_lost) {
      link->drop_channel(door->name());
      static_cast<void>(door->wait(*flight, Deadline::after(kCutTime), [] { return false; }));
      if (!flight->done()) leave(waited);
    } else if (order_.deadline.passed()) {
      end_flight({Code::timed_out, "the transfer of " + order_.bulk.describe() + " took too long"});
    } else if (until.passed()) {
      return false;
    }
  }
}

}  // namespace pshpc::objects
