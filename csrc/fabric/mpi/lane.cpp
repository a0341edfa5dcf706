#include "fabric/mpi/lane.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace pshpc::fabric::mpi {

void PayloadCursor::read(Span into) {
  while (!into.empty()) {
    const ConstSpan piece = piece_ == 0 ? payload_.first : payload_.more[piece_ - 1];
    const std::size_t size = std::min(into.size, piece.size - at_);
    copy_bytes(into.data, piece.slice(at_, size));
    into = into.slice(size, into.size - size);
    left_ -= size;
    at_ += size;
    if (at_ == piece.size) {
      ++piece_;
      at_ = 0;
    }
  }
}

// Sending.

std::size_t Lane::wanted() const {
  const Outgoing& next = outgoing.front();
  return sizeof(RecordHead) + (begun_ ? 0 : next.header.size()) + next.payload.left();
}

std::size_t Lane::write_record(Span slot, std::optional<Outgoing>* finished) {
  Outgoing& next = outgoing.front();
  // What had begun before a farewell goes no further.
  if (next.kind == RecordKind::farewell) begun_ = false;
  RecordHead head;
  head.token = remote_token;
  head.sequence = sent_++;
  head.kind = begun_ ? RecordKind::piece : next.kind;
  head.header_size = begun_ ? 0 : static_cast<std::uint16_t>(next.header.size());
  head.payload_size = next.payload_size;
  std::memcpy(slot.data, &head, sizeof head);
  std::size_t at = sizeof head;
  copy_bytes(slot.data + at, {next.header.data(), head.header_size});
  at += head.header_size;
  const std::size_t size = std::min(slot.size - at, next.payload.left());
  next.payload.read(slot.slice(at, size));
  begun_ = next.payload.left() > 0;
  if (!begun_) {
    *finished = std::move(next);
    outgoing.pop_front();
  }
  return at + size;
}

// Receiving.

bool Lane::deliver(Receiver* receiver, const RecordHead& head, Bytes record) {
  if (ended_) return false;
  if (head.sequence != expected_) {
    early_.emplace(head.sequence, std::move(record));
    return true;
  }
  const auto take_one = [&](const RecordHead& first, const Bytes& bytes) {
    ++expected_;
    return take(receiver, first, ConstSpan(bytes).from(sizeof(RecordHead)));
  };
  bool good = take_one(head, record);
  for (auto next = early_.find(expected_); good && next != early_.end();
       next = early_.find(expected_)) {
    const Bytes bytes = std::move(next->second);
    early_.erase(next);
    RecordHead its;
    std::memcpy(&its, bytes.data(), sizeof its);
    good = take_one(its, bytes);
  }
  return good;
}

bool Lane::take(Receiver* receiver, const RecordHead& head, ConstSpan body) {
  if (head.kind == RecordKind::farewell) {
    break_off(receiver, {Code::peer_lost, "the peer closed the connection"});
    return false;
  }
  const bool is_piece = head.kind == RecordKind::piece;
  if ((!is_piece && head.kind != RecordKind::message) || is_piece != (landing_ != nullptr) ||
      body.size < head.header_size) {
    break_off(receiver, {Code::protocol, "a garbled message came through the mpi door"});
    return false;
  }
  if (!is_piece) {
    const auto from = channel.lock();
    const ConstSpan header = body.slice(0, head.header_size);
    body = body.from(head.header_size);
    if (head.payload_size == 0) {
      if (receiver != nullptr && from) receiver->arrived(from, header, {}, {});
      return true;
    }
    landing_ = std::make_unique<Landing>();
    landing_->header = header.copy();
    landing_->size = static_cast<std::size_t>(head.payload_size);
    if (receiver != nullptr && from)
      landing_->into = receiver->destination(from, header, landing_->size);
    if (landing_->into.size < landing_->size) landing_->into = {};
  }
  fill(receiver, body);
  return true;
}

void Lane::fill(Receiver* receiver, ConstSpan data) {
  Landing& landing = *landing_;
  data.size = std::min(data.size, landing.size - landing.filled);
  if (!landing.into.empty()) copy_bytes(landing.into.data + landing.filled, data);
  landing.filled += data.size;
  if (landing.filled < landing.size) return;
  const auto landed = std::move(landing_);
  if (receiver == nullptr) return;
  // Also where the channel is gone: who gave the memory waits for it.
  const auto from = channel.lock();
  if (landed->into.empty())
    receiver->arrived(from, landed->header, {}, {Code::invalid, "the payload was refused"});
  else
    receiver->arrived(from, landed->header, landed->into.slice(0, landed->size), {});
}

void Lane::break_off(Receiver* receiver, const Status& why) {
  if (std::exchange(ended_, true)) return;
  const bool was_alive = alive.exchange(false);
  const auto landing = std::move(landing_);
  const auto from = channel.lock();
  if (receiver == nullptr) return;
  if (landing) receiver->arrived(from, landing->header, landing->into, why);
  if (was_alive && from) receiver->lost(from, why);
}

}  // namespace pshpc::fabric::mpi
