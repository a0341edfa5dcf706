#include "fabric/ring/lane.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/fence.h"

namespace pshpc::fabric::ring {
namespace {

constexpr std::size_t kAlignment = sizeof(RecordHead);
// A payload of up to this size travels with its header.
constexpr std::size_t kInline = 16 * 1024;
constexpr std::size_t kPiece = 16 * 1024;
// Pieces of payloads leave so much room to the messages that pass them.
constexpr std::size_t kReserve = 8 * 1024;
// Records of one lane in a row, so that one flood does not starve the others.
constexpr int kBatch = 64;

constexpr std::size_t record_size(std::size_t bytes) {
  return sizeof(RecordHead) + align_up(bytes, kAlignment);
}
static_assert(record_size(kMaxHeader + kInline) <= kCapacity);
static_assert(record_size(kPiece) + kReserve <= kCapacity);

Status garbled() { return {Code::protocol, "the peer wrote garbage into its ring"}; }

}  // namespace

Lane::Lane(Shared shared, GuardedFd bell, Poller& poller)
    : shared_(std::move(shared)),
      bell_(std::move(bell)),
      poller_(poller),
      writer_(shared_),
      reader_(shared_) {}

Lane::~Lane() = default;

// Sending.

void Lane::write_record(const RecordHead& head, ConstSpan header) {
  std::uint8_t* const at = writer_.at();
  std::memcpy(at, &head, sizeof head);
  copy_bytes(at + sizeof head, header);
}

// True if the message is in the ring, or at least its beginning: the payload then flows.
bool Lane::try_begin(ConstSpan header, Payload& payload, Operation* operation) {
  const std::size_t size = payload.size();
  RecordHead head;
  head.header_size = static_cast<std::uint16_t>(header.size);
  head.payload_size = size;
  const bool whole = size <= kInline;
  head.kind = whole ? RecordKind::message : RecordKind::begin;
  const std::size_t bytes = header.size + (whole ? size : 0);
  head.size = static_cast<std::uint32_t>(bytes);
  if (writer_.room(record_size(bytes)) < record_size(bytes)) return false;
  write_record(head, header);
  if (whole) payload.copy_to(writer_.at() + sizeof head + header.size);
  writer_.publish(record_size(bytes));
  if (whole) return true;
  Outgoing& flowing = flowing_.emplace_back();
  flowing.payload = std::move(payload);
  flowing.operation = operation;
  flowing.left = size;
  return true;
}

bool Lane::try_piece() {
  Outgoing& flowing = flowing_.front();
  const std::size_t size = std::min(flowing.left, kPiece);
  const std::size_t wanted = record_size(size) + kReserve;
  if (writer_.room(wanted) < wanted) return false;
  RecordHead head;
  head.kind = RecordKind::piece;
  head.size = static_cast<std::uint32_t>(size);
  write_record(head, {});
  std::uint8_t* into = writer_.at() + sizeof head;
  for (std::size_t copied = 0; copied < size;) {
    const ConstSpan from =
        flowing.piece == 0 ? flowing.payload.first : flowing.payload.more[flowing.piece - 1];
    const std::size_t now = std::min(size - copied, from.size - flowing.at);
    copy_bytes(into + copied, from.slice(flowing.at, now));
    copied += now;
    flowing.at += now;
    if (flowing.at < from.size) continue;
    ++flowing.piece;
    flowing.at = 0;
  }
  flowing.left -= size;
  writer_.publish(record_size(size));
  return true;
}

// Turn by turn, so that neither holds up the other for ever.
bool Lane::pump_locked(std::vector<Sent>* sent) {
  bool any = false;
  for (bool more = true; more;) {
    more = false;
    if (!waiting_.empty()) {
      Outgoing& next = waiting_.front();
      const std::size_t flowing = flowing_.size();
      if (try_begin(next.header, next.payload, next.operation)) {
        if (flowing_.size() == flowing)
          sent->push_back({next.operation, std::move(next.payload.keep)});
        waiting_.pop_front();
        more = true;
      }
    }
    if (!flowing_.empty() && try_piece()) {
      Outgoing& first = flowing_.front();
      if (first.left == 0) {
        sent->push_back({first.operation, std::move(first.payload.keep)});
        flowing_.pop_front();
      }
      more = true;
    }
    any = any || more;
  }
  pending_ = !waiting_.empty() || !flowing_.empty();
  return any;
}

unsigned Lane::pump() {
  std::vector<Sent> sent;
  bool any = false;
  {
    std::lock_guard<std::mutex> lock(out_);
    any = pump_locked(&sent);
  }
  if (any) ring_bell_if(shared_.outgoing().reader_sleeps);
  for (const Sent& one : sent)
    if (one.operation != nullptr) one.operation->complete({});
  return any ? 1 : 0;
}

void Lane::send(Message message, Operation* operation) {
  Status bad;
  bool written = false;
  bool whole = false;
  {
    std::lock_guard<std::mutex> lock(out_);
    if (!ended_.ok()) {
      bad = ended_;
    } else if (message.header.size > kMaxHeader) {
      bad = {Code::invalid, "a message header of " + std::to_string(message.header.size) +
                                " bytes; at most " + std::to_string(kMaxHeader) + " are allowed"};
    } else {
      const std::size_t flowing = flowing_.size();
      written = waiting_.empty() && try_begin(message.header, message.payload, operation);
      whole = written && flowing_.size() == flowing;
      if (!written) {
        Outgoing& next = waiting_.emplace_back();
        next.header = message.header.copy();
        next.payload = std::move(message.payload);
        next.operation = operation;
      }
      if (!whole) pending_ = true;
    }
  }
  if (!bad.ok()) {
    if (operation != nullptr) operation->complete(std::move(bad));
    return;
  }
  if (whole) {
    ring_bell_if(shared_.outgoing().reader_sleeps);
    if (operation != nullptr) operation->complete({});
    return;
  }
  // As much as there is room for goes now, the rest with the next poll.
  pump();
  if (!pending_) return;
  fence(std::memory_order_seq_cst);
  poller_.nudge();
}

// One side writes and then looks at the flag, the other sets the flag and then looks for what was
// written: with a full fence between each pair, at least one of the two sees the other.
void Lane::ring_bell_if(std::atomic<std::uint32_t>& flag) {
  fence(std::memory_order_seq_cst);
  if (flag.load(std::memory_order_relaxed) == 0 || flag.exchange(0) == 0) return;
  const char sound = 0;
  // A full socket rings already.
  [[maybe_unused]] const ssize_t sent = ::send(bell_.get(), &sound, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Lane::close(Status why) {
  std::deque<Outgoing> unsent;
  {
    std::lock_guard<std::mutex> lock(out_);
    if (!alive_.exchange(false)) return;
    ended_ = why;
    unsent.swap(waiting_);
    for (Outgoing& one : flowing_) unsent.push_back(std::move(one));
    flowing_.clear();
    pending_ = false;
  }
  if (bell_) ::shutdown(bell_.get(), SHUT_RDWR);
  for (const Outgoing& one : unsent)
    if (one.operation != nullptr) one.operation->complete(why);
  poller_.nudge();
}

// Receiving.

unsigned Lane::poll(Receiver* receiver) {
  unsigned events = 0;
  if (pending_.load(std::memory_order_relaxed)) events += pump();
  // What the other side wrote before its end is there once the end is known.
  const bool last = hung_up_;
  const bool open = alive();
  if (open && reader_.available() > 0) {
    const auto channel = channel_.lock();
    events += take(channel ? receiver : nullptr, channel);
  }
  if (open && (!last || reader_.available() > 0)) return events;
  if (finished_) return events;
  if (open) {
    tell_ = true;
    close({Code::peer_lost, "the peer's process has ended, or closed the connection"});
  }
  finish(receiver, channel_.lock());
  return events + 1;
}

unsigned Lane::take(Receiver* receiver, const std::shared_ptr<Channel>& channel) {
  unsigned taken = 0;
  for (; taken < kBatch && alive(); ++taken) {
    const std::size_t available = reader_.available();
    if (available == 0) break;
    RecordHead head;
    std::memcpy(&head, reader_.at(), sizeof head);
    if (available > kCapacity || available < sizeof head || record_size(head.size) > available ||
        !take_record(receiver, channel, head, reader_.at() + sizeof head)) {
      tell_ = true;
      close(garbled());
      break;
    }
  }
  if (taken > 0) ring_bell_if(shared_.incoming().writer_waits);
  return taken;
}

// False if it cannot be. The ring's bytes may change under our eyes: they are copied, then looked
// at.
bool Lane::take_record(Receiver* receiver, const std::shared_ptr<Channel>& channel,
                       const RecordHead& head, const std::uint8_t* bytes) {
  if (head.kind == RecordKind::piece) {
    const bool fits = take_piece(receiver, channel, {bytes, head.size});
    reader_.release(record_size(head.size));
    return fits;
  }
  const bool whole = head.kind == RecordKind::message;
  if ((!whole && head.kind != RecordKind::begin) || head.header_size > kMaxHeader ||
      head.header_size > head.size ||
      head.size - head.header_size != (whole ? head.payload_size : 0) ||
      (!whole && head.payload_size == 0))
    return false;
  header_.assign(bytes, bytes + head.header_size);
  Landing landing;
  landing.size = static_cast<std::size_t>(head.payload_size);
  if (landing.size > 0 && receiver != nullptr) {
    landing.into = receiver->destination(channel, header_, landing.size);
    landing.into = landing.into.size < landing.size ? Span() : landing.into.slice(0, landing.size);
  }
  Status status;
  if (landing.size > 0 && landing.into.empty())
    status = {Code::invalid, "the payload was refused on arrival"};
  if (whole && !landing.into.empty())
    copy_bytes(landing.into.data, {bytes + head.header_size, landing.size});
  reader_.release(record_size(head.size));
  if (whole || !status.ok()) {
    if (receiver != nullptr) receiver->arrived(channel, header_, landing.into, std::move(status));
  } else {
    landing.header = header_;
  }
  if (!whole) landings_.push_back(std::move(landing));
  return true;
}

bool Lane::take_piece(Receiver* receiver, const std::shared_ptr<Channel>& channel,
                      ConstSpan bytes) {
  if (landings_.empty()) return false;
  Landing& landing = landings_.front();
  if (bytes.empty() || bytes.size > landing.size - landing.filled) return false;
  if (!landing.into.empty()) copy_bytes(landing.into.data + landing.filled, bytes);
  landing.filled += bytes.size;
  if (landing.filled < landing.size) return true;
  const Landing done = std::move(landing);
  landings_.pop_front();
  if (receiver != nullptr && !done.into.empty())
    receiver->arrived(channel, done.header, done.into, {});
  return true;
}

// Payloads that were on their way arrive with why they do not.
void Lane::finish(Receiver* receiver, const std::shared_ptr<Channel>& channel) {
  finished_ = true;
  Status why;
  {
    std::lock_guard<std::mutex> lock(out_);
    why = ended_;
  }
  std::deque<Landing> landings;
  landings.swap(landings_);
  if (receiver == nullptr || !channel) return;
  for (const Landing& landing : landings)
    if (!landing.into.empty()) receiver->arrived(channel, landing.header, landing.into, why);
  if (tell_) receiver->lost(channel, why);
}

// Sleeping.

void Lane::announce_sleep() {
  shared_.incoming().reader_sleeps.store(1, std::memory_order_relaxed);
  if (pending_) shared_.outgoing().writer_waits.store(1, std::memory_order_relaxed);
}

void Lane::announce_waking() {
  shared_.incoming().reader_sleeps.store(0, std::memory_order_relaxed);
  shared_.outgoing().writer_waits.store(0, std::memory_order_relaxed);
}

bool Lane::has_news() {
  if (finished_) return false;
  if (!alive() || hung_up_ || reader_.available() > 0) return true;
  return pending_ && pump() > 0;
}

void Lane::heard_bell() {
  char sounds[64];
  for (;;) {
    const ssize_t got = ::recv(bell_.get(), sounds, sizeof sounds, MSG_DONTWAIT);
    if (got == static_cast<ssize_t>(sizeof sounds) || (got < 0 && errno == EINTR)) continue;
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) hung_up_ = true;
    return;
  }
}

}  // namespace pshpc::fabric::ring
