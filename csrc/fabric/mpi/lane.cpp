#include "fabric/mpi/lane.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace pshpc::fabric::mpi {
namespace {

// So much is fetched and copied at once rather than fetched in two steps.
constexpr std::size_t kLongestRecord = 16 * 1024;
constexpr std::size_t kLeastParts = 4;

}  // namespace

ConstSpan PayloadCursor::front() const { return left_ == 0 ? ConstSpan() : piece().from(at_); }

void PayloadCursor::skip(std::size_t size) {
  left_ -= size;
  at_ += size;
  while (left_ > 0 && at_ >= piece().size) {
    at_ -= piece().size;
    ++piece_;
  }
}

void PayloadCursor::read(Span into) {
  while (!into.empty()) {
    const ConstSpan next = front();
    const std::size_t size = std::min(into.size, next.size);
    copy_bytes(into.data, next.slice(0, size));
    into = into.slice(size, into.size - size);
    skip(size);
  }
}

// Sending.

std::size_t Lane::wanted() const {
  const Outgoing& next = *outgoing.front();
  const std::size_t least = sizeof(RecordHead) + (begun_ ? 0 : next.header.size());
  const std::size_t all = least + next.payload.left();
  if (all <= kLongestRecord) return all;
  return least + kLeastParts * sizeof(Part);
}

std::size_t Lane::write_record(Span slot, Lender& lender, OutgoingPtr* finished) {
  const OutgoingPtr next = outgoing.front();
  // What had begun before a farewell goes no further.
  if (next->kind == RecordKind::farewell) begun_ = false;
  RecordHead head;
  head.token = remote_token;
  head.kind = begun_ ? RecordKind::piece : next->kind;
  head.header_size = begun_ ? 0 : static_cast<std::uint16_t>(next->header.size());
  head.payload_size = next->payload_size;
  std::size_t at = sizeof head;
  copy_bytes(slot.data + at, {next->header.data(), head.header_size});
  at += head.header_size;
  while (next->payload.left() > slot.size - at && slot.size - at >= sizeof(Part)) {
    const auto part = lender.lend(next);
    if (!part) break;
    std::memcpy(slot.data + at, &*part, sizeof *part);
    at += sizeof *part;
    ++head.parts;
  }
  const std::size_t left = next->payload.left();
  if (left <= slot.size - at) {
    next->payload.read(slot.slice(at, left));
    at += left;
  } else if (head.parts == 0) {
    return 0;
  }
  head.sequence = sent_++;
  std::memcpy(slot.data, &head, sizeof head);
  begun_ = next->payload.left() > 0;
  if (!begun_) {
    next->written = true;
    outgoing.pop_front();
    *finished = next;
  }
  return at;
}

// Receiving.

bool Lane::deliver(Receiver* receiver, const RecordHead& head, Bytes record,
                   std::vector<Fetch>* fetches) {
  if (ended_) {
    refuse(rank, record, fetches);
    return false;
  }
  if (head.sequence != expected_) {
    early_.emplace(head.sequence, std::move(record));
    return true;
  }
  const auto take_one = [&](const RecordHead& first, const Bytes& bytes) {
    ++expected_;
    return take(receiver, first, ConstSpan(bytes).from(sizeof(RecordHead)), fetches);
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

bool Lane::garbled(Receiver* receiver, std::vector<Fetch>* fetches) {
  break_off(receiver, {Code::protocol, "a garbled message came through the mpi door"}, fetches);
  return false;
}

bool Lane::take(Receiver* receiver, const RecordHead& head, ConstSpan body,
                std::vector<Fetch>* fetches) {
  if (head.kind == RecordKind::dial) return true;
  if (head.kind == RecordKind::farewell) {
    break_off(receiver, {Code::peer_lost, "the peer closed the connection"}, fetches);
    return false;
  }
  const bool is_piece = head.kind == RecordKind::piece;
  if ((!is_piece && head.kind != RecordKind::message) || is_piece != (landing_ != nullptr) ||
      body.size < head.header_size)
    return garbled(receiver, fetches);
  if (!is_piece) {
    const auto from = channel.lock();
    const ConstSpan header = body.slice(0, head.header_size);
    body = body.from(head.header_size);
    if (stream) stream->give(header);
    if (head.payload_size == 0) {
      if (receiver != nullptr && from) receiver->arrived(from, header, {}, {});
      return true;
    }
    landing_ = std::make_shared<Landing>();
    landing_->from = from;
    landing_->header = header.copy();
    landing_->size = static_cast<std::size_t>(head.payload_size);
    if (receiver != nullptr && from)
      landing_->into = receiver->destination(from, header, landing_->size);
    if (landing_->into.size < landing_->size) landing_->into = {};
  }
  if (!place(head, body, fetches)) return garbled(receiver, fetches);
  const auto landing = landing_;
  if (landing->placed == landing->size) landing_.reset();
  settle(receiver, *landing);
  return true;
}

// Finds room for the parts and bytes of a record.
bool Lane::place(const RecordHead& head, ConstSpan body, std::vector<Fetch>* fetches) {
  Landing& landing = *landing_;
  if (body.size / sizeof(Part) < head.parts) return false;
  for (std::uint32_t i = 0; i < head.parts; ++i) {
    Part part;
    std::memcpy(&part, body.data, sizeof part);
    body = body.from(sizeof part);
    if (!part.plausible() || part.size > landing.size - landing.placed) return false;
    const auto size = static_cast<std::size_t>(part.size);
    fetches->push_back({rank, landing_, part,
                        landing.into.empty() ? Span() : landing.into.slice(landing.placed, size)});
    landing.placed += size;
    ++landing.fetches;
  }
  if (body.size > landing.size - landing.placed) return false;
  if (!landing.into.empty()) copy_bytes(landing.into.data + landing.placed, body);
  landing.placed += body.size;
  landing.filled += body.size;
  return true;
}

void Lane::fetched(Receiver* receiver, const Fetch& fetch, const Status& status) {
  if (!fetch.landing) return;
  Landing& landing = *fetch.landing;
  --landing.fetches;
  landing.filled += static_cast<std::size_t>(fetch.part.size);
  if (landing.status.ok()) landing.status = status;
  settle(receiver, landing);
}

// Hands the payload over if it has come, or will not come and nothing writes into its memory.
void Lane::settle(Receiver* receiver, Landing& landing) {
  const bool whole = landing.filled == landing.size;
  if (landing.fetches > 0 || (!whole && landing.status.ok())) return;
  if (std::exchange(landing.settled, true) || receiver == nullptr) return;
  // Also where the channel is gone: who gave the memory waits for it.
  const auto from = landing.from.lock();
  if (landing.into.empty())
    receiver->arrived(from, landing.header, {}, {Code::invalid, "the payload was refused"});
  else
    receiver->arrived(from, landing.header, landing.into.slice(0, landing.size), landing.status);
}

void Lane::break_off(Receiver* receiver, const Status& why, std::vector<Fetch>* refused) {
  if (std::exchange(ended_, true)) return;
  const bool was_alive = alive.exchange(false);
  for (const auto& [sequence, record] : early_) refuse(rank, record, refused);
  early_.clear();
  const auto landing = std::move(landing_);
  const auto from = channel.lock();
  if (stream) stream->end();
  if (landing) {
    landing->status = why;
    settle(receiver, *landing);
  }
  if (was_alive && from && receiver != nullptr) receiver->lost(from, why);
}

void Lane::refuse(int rank, ConstSpan record, std::vector<Fetch>* refused) {
  RecordHead head;
  if (record.size < sizeof head) return;
  std::memcpy(&head, record.data, sizeof head);
  record = record.from(sizeof head);
  if (record.size < head.header_size) return;
  record = record.from(head.header_size);
  for (std::uint32_t i = 0; i < head.parts && record.size >= sizeof(Part); ++i) {
    Part part;
    std::memcpy(&part, record.data, sizeof part);
    record = record.from(sizeof part);
    if (part.plausible()) refused->push_back({rank, nullptr, part, {}});
  }
}

}  // namespace pshpc::fabric::mpi
