// Messages on their way out, and the memory that they lend.

#include <algorithm>
#include <utility>

#include "fabric/mpi/door.h"

namespace pshpc::fabric::mpi {
namespace {

// Memory that lies open is lent from this size on; less is copied into a slot.
constexpr std::size_t kLeastLoan = 32 * 1024;
constexpr Nanoseconds kTakeBackTime = 50 * kMillisecond;

}  // namespace

// What a connection has not sent, it will not send.
void MpiDoor::give_up(const std::shared_ptr<Lane>& lane, const Status& why) {
  for (const OutgoingPtr& message : lane->outgoing) {
    message->status = why;
    message->written = true;
    finish(message);
  }
  lane->outgoing.clear();
  // MPI may go on reading what was lent, on this side: it stays until the peer is through with it.
  for (auto& [slot, loan] : loans_)
    if (loan.lane == lane) loan.message->status = why;
}

// The door ends: whoever still reads what was lent gets nothing of it.
void MpiDoor::take_loans_back() {
  std::vector<unsigned> slots;
  for (const auto& [slot, loan] : loans_) slots.push_back(slot);
  for (const unsigned slot : slots) mailbox_.take_back(slot);
  const Deadline deadline = Deadline::after(kTakeBackTime);
  while (!loans_.empty() && !deadline.passed()) flights_.poll();
}

void MpiDoor::close_lane(const std::shared_ptr<Lane>& lane) {
  if (std::exchange(lane->closed, true)) return;
  const Status why(Code::peer_lost, "the connection was closed");
  // A payload that has begun cannot be finished; the farewell tells so.
  give_up(lane, why);
  News news;  // what was arriving ends, too
  news.broken = lane;
  news.status = why;
  tell(std::move(news));
  auto farewell = std::make_shared<Outgoing>();
  farewell->kind = RecordKind::farewell;
  lane->outgoing.push_back(std::move(farewell));
  list(lane);
  node_bells_.remove(lane->local_token);
  std::lock_guard<std::mutex> lock(mutex_);
  lanes_.erase(lane->local_token);
}

void MpiDoor::list(const std::shared_ptr<Lane>& lane) {
  if (std::exchange(lane->listed, true)) return;
  sending_.push_back(lane);
}

unsigned MpiDoor::pump() {
  unsigned sent = 0;
  for (std::size_t left = sending_.size(); left > 0; --left) {
    const auto lane = std::move(sending_.front());
    sending_.pop_front();
    lane->listed = false;
    if (lane->outgoing.empty()) continue;
    if (const auto slot = mailbox_.take_slot(lane->rank, lane->wanted())) {
      writing_ = lane;
      OutgoingPtr finished;
      const std::size_t size = lane->write_record(mailbox_.slot(*slot), *this, &finished);
      writing_ = nullptr;
      if (size > 0)
        mailbox_.post(lane->rank, *slot, size);
      else
        mailbox_.give_back(*slot);
      if (finished) finish(finished);
      sent += size > 0;
    }
    if (!lane->outgoing.empty()) list(lane);
  }
  return sent;
}

// Parts that others fetch.

std::optional<Part> MpiDoor::lend(const OutgoingPtr& message) {
  PayloadCursor& payload = message->payload;
  const ConstSpan next = payload.front();
  Part part;
  if (next.size >= kLeastLoan && attachments_.hold(next)) {
    const auto slot = mailbox_.take_loan();
    if (!slot) attachments_.release(next);
    if (slot) {
      part.address = reinterpret_cast<std::uint64_t>(next.data);
      part.size = std::min(next.size, kLongestPart);
      part.slot = *slot;
      part.acks = mailbox_.expect(*slot);
      payload.skip(static_cast<std::size_t>(part.size));
      ++message->loans;
      loans_[*slot] = {writing_, message, next};
      return part;
    }
  }
  const auto slot = mailbox_.take_slot(writing_->rank, kLargeSlot);
  if (!slot) return std::nullopt;
  const Span room = mailbox_.slot(*slot);
  const std::size_t size = std::min(room.size, payload.left());
  payload.read(room.slice(0, size));
  part.size = size;
  part.slot = *slot;
  part.acks = mailbox_.expect(*slot);
  return part;
}

void MpiDoor::loan_ended(unsigned slot) {
  const auto found = loans_.find(slot);
  if (found == loans_.end()) return;
  const OutgoingPtr message = std::move(found->second.message);
  attachments_.release(found->second.memory);
  loans_.erase(found);
  --message->loans;
  finish(message);
}

// Lets a message go if nobody needs its memory any more.
void MpiDoor::finish(const OutgoingPtr& message) {
  if (!message->written || message->loans > 0) return;
  News news;
  news.status = message->status;
  news.sent = message;
  tell(std::move(news));
}

}  // namespace pshpc::fabric::mpi
