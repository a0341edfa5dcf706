#include "fabric/ring/lane.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/fence.h"
#include "fabric/shm/process_read.h"

namespace pshpc::fabric::ring {
namespace {

constexpr std::size_t kAlignment = sizeof(RecordHead);
// A payload of up to this size travels with its header.
constexpr std::size_t kInline = 16 * 1024;
constexpr std::size_t kPiece = 32 * 1024;
// The parts of a payload are told to the other side up to this number.
constexpr std::size_t kMaxPlaces = 64;
// Of a payload in pieces, as a claim can count them.
constexpr std::uint64_t kLongest = std::uint64_t{Claim::kMost} * kPiece;
// A writer that has sent no piece for so long is not running: the reader helps itself. Two
// processors that copy at the same time beat one that looks into another process.
constexpr Nanoseconds kStalled = 50 * kMicrosecond;
// Pieces that a reader fetches at once.
constexpr std::uint32_t kFetchedAtOnce = 16;
// Pieces of payloads leave so much room to the messages that pass them.
constexpr std::size_t kReserve = 8 * 1024;
// Records of one lane in a row, so that one flood does not starve the others.
constexpr int kBatch = 64;

constexpr std::size_t record_size(std::size_t bytes) {
  return sizeof(RecordHead) + align_up(bytes, kAlignment);
}
std::size_t parts_of(const Payload& payload) { return payload.more.size() + 1; }
constexpr std::size_t pieces_of(std::size_t size) { return (size + kPiece - 1) / kPiece; }
static_assert(record_size(kMaxHeader + kInline) <= kCapacity);
static_assert(kMaxPlaces * sizeof(Place) <= kInline);
static_assert(record_size(kPiece) + kReserve <= kCapacity);

Status garbled() { return {Code::protocol, "the peer wrote garbage into its ring"}; }

}  // namespace

Lane::Lane(Shared shared, GuardedFd bell, pid_t peer, std::shared_ptr<Nudge> poller, bool lends)
    : shared_(std::move(shared)),
      bell_(std::move(bell)),
      peer_(peer),
      lends_(lends),
      poller_(std::move(poller)),
      writer_(shared_),
      reader_(shared_),
      can_fetch_(peer > 0) {}

Lane::~Lane() = default;

Status Nudge::open() {
  fd_ = GuardedFd(Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  return fd_ ? Status() : system_error("creating a descriptor to sleep on");
}

void Nudge::ring() {
  fence(std::memory_order_seq_cst);
  if (!armed()) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(fd_.get(), &one, sizeof one);
}

void Nudge::drain() {
  std::uint64_t drained;
  [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &drained, sizeof drained);
}

// Sending.

void Lane::write_record(const RecordHead& head, ConstSpan header) {
  std::uint8_t* const at = writer_.at();
  std::memcpy(at, &head, sizeof head);
  copy_bytes(at + sizeof head, header);
}

// True if the message is in the ring, or at least its beginning: the payload then flows.
bool Lane::try_begin(ConstSpan header, Payload& payload, Operation* operation) {
  const std::size_t size = payload.size();
  const bool whole = size <= kInline;
  std::size_t bytes = header.size + size;
  const std::size_t parts = parts_of(payload);
  const bool told = lends_ && parts <= kMaxPlaces;
  if (!whole) bytes = header.size + (told ? parts * sizeof(Place) : 0);
  if (writer_.room(record_size(bytes)) < record_size(bytes)) return false;
  RecordHead head;
  head.kind = whole ? RecordKind::message : RecordKind::begin;
  head.size = static_cast<std::uint32_t>(bytes);
  head.header_size = static_cast<std::uint16_t>(header.size);
  head.payload_size = size;
  write_record(head, header);
  std::uint8_t* behind = writer_.at() + sizeof head + header.size;
  if (whole) {
    payload.copy_to(behind);
    writer_.publish(record_size(bytes));
    return true;
  }
  for (std::size_t i = 0; told && i < parts; ++i) {
    const ConstSpan part = i == 0 ? payload.first : payload.more[i - 1];
    const Place place{reinterpret_cast<std::uintptr_t>(part.data), part.size};
    std::memcpy(behind + i * sizeof place, &place, sizeof place);
  }
  Outgoing& flowing = flowing_.emplace_back();
  flowing.payload = std::move(payload);
  flowing.operation = operation;
  flowing.size = size;
  flowing.number = ++begun_;
  if (flowing_.size() == 1) announce_locked();
  writer_.publish(record_size(bytes));
  return true;
}

// The first payload's pieces may be claimed from now on.
void Lane::announce_locked() {
  if (flowing_.empty()) return;
  const Outgoing& first = flowing_.front();
  const Claim claim{static_cast<std::uint16_t>(first.number), 0,
                    static_cast<std::uint32_t>(pieces_of(first.size))};
  shared_.outgoing().claim.store(claim.pack(), std::memory_order_release);
}

Lane::Step Lane::try_step() {
  Outgoing& flowing = flowing_.front();
  const std::size_t pieces = pieces_of(flowing.size);
  auto& word = shared_.outgoing().claim;
  std::uint64_t seen = word.load(std::memory_order_acquire);
  for (;;) {
    Claim claim = Claim::unpack(seen);
    // Only the end is the other side's to move. What it makes of it can harm this payload alone.
    const std::size_t front = pieces_of(flowing.sent);
    if (front == pieces) return Step::complete;
    if (front >= claim.back) {
      const bool finished =
          shared_.outgoing().finished.load(std::memory_order_acquire) >= flowing.number;
      return finished ? Step::complete : Step::none;
    }
    const std::size_t size = std::min(flowing.size - flowing.sent, kPiece);
    const std::size_t wanted = record_size(size) + kReserve;
    if (writer_.room(wanted) < wanted) return Step::none;
    claim.front = static_cast<std::uint32_t>(front + 1);
    if (!word.compare_exchange_weak(seen, claim.pack(), std::memory_order_acq_rel)) continue;
    write_piece(flowing, size);
    return Step::piece;
  }
}

void Lane::write_piece(Outgoing& flowing, std::size_t size) {
  RecordHead head;
  head.kind = RecordKind::piece;
  head.size = static_cast<std::uint32_t>(size);
  write_record(head, {});
  std::uint8_t* into = writer_.at() + sizeof head;
  for (std::size_t copied = 0; copied < size;) {
    const ConstSpan from =
        flowing.part == 0 ? flowing.payload.first : flowing.payload.more[flowing.part - 1];
    const std::size_t now = std::min(size - copied, from.size - flowing.at);
    copy_bytes(into + copied, from.slice(flowing.at, now));
    copied += now;
    flowing.at += now;
    if (flowing.at < from.size) continue;
    ++flowing.part;
    flowing.at = 0;
  }
  flowing.sent += size;
  writer_.publish(record_size(size));
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
    if (!flowing_.empty()) {
      const Step step = try_step();
      more = more || step != Step::none;
      if (step == Step::complete) {
        Outgoing& first = flowing_.front();
        sent->push_back({first.operation, std::move(first.payload.keep)});
        flowing_.pop_front();
        announce_locked();
      }
    }
    any = any || more;
  }
  pending_ = !waiting_.empty() || !flowing_.empty();
  return any;
}

unsigned Lane::pump(bool written) {
  std::vector<Sent> sent;
  bool any = false;
  {
    std::lock_guard<std::mutex> lock(out_);
    any = pump_locked(&sent);
  }
  if (any || written) ring_bell_if(shared_.outgoing().reader_sleeps);
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
    } else if (message.header.size > kMaxHeader || message.payload.size() > kLongest) {
      bad = {Code::invalid, "a message with a header of " + std::to_string(message.header.size) +
                                " bytes and a payload of " +
                                std::to_string(message.payload.size()) + "; at most " +
                                std::to_string(kMaxHeader) + " and " + std::to_string(kLongest) +
                                " are allowed"};
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
  pump(written);
  if (!pending_) return;
  fence(std::memory_order_seq_cst);
  poller_->ring();
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

void Lane::close(const Status& why) {
  std::deque<Outgoing> unsent;
  {
    std::lock_guard<std::mutex> lock(out_);
    if (!alive_.exchange(false)) return;
    ended_ = why;
    // Before the memory that the other side may be fetching from goes.
    shared_.outgoing().closed.store(1);
    fence(std::memory_order_seq_cst);
    unsent.swap(waiting_);
    for (Outgoing& one : flowing_) unsent.push_back(std::move(one));
    flowing_.clear();
    pending_ = false;
  }
  if (bell_) ::shutdown(bell_.get(), SHUT_RDWR);
  for (const Outgoing& one : unsent)
    if (one.operation != nullptr) one.operation->complete(why);
  poller_->ring();
}

// Receiving.

unsigned Lane::poll(Receiver* receiver) {
  unsigned events = 0;
  if (pending_.load(std::memory_order_relaxed)) events += pump();
  // What the other side wrote before its end is there once the end is known.
  const bool last = hung_up_;
  const bool open = alive();
  if (open && reader_.available() > 0) events += take(receiver, channel_.lock());
  if (open && alive() && !landings_.empty()) events += fetch(receiver, channel_.lock());
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
      (whole && head.payload_size != head.size - head.header_size) ||
      (!whole && (head.payload_size == 0 || head.payload_size > kLongest)))
    return false;
  header_.assign(bytes, bytes + head.header_size);
  Landing landing;
  if (!whole && !read_places(head, bytes, &landing)) return false;
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
  if (whole) {
    if (receiver != nullptr) receiver->arrived(channel, header_, landing.into, std::move(status));
    return true;
  }
  landing.header = header_;
  landing.refused = std::move(status);
  landing.number = ++announced_;
  landing.back = static_cast<std::uint32_t>(pieces_of(landing.size));
  landings_.push_back(std::move(landing));
  quiet_since_ = 0;
  return true;
}

bool Lane::read_places(const RecordHead& head, const std::uint8_t* bytes, Landing* landing) const {
  const std::size_t size = head.size - head.header_size;
  if (size % sizeof(Place) != 0 || size / sizeof(Place) > kMaxPlaces) return false;
  landing->places.resize(size / sizeof(Place));
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < landing->places.size(); ++i) {
    Place& place = landing->places[i];
    std::memcpy(&place, bytes + head.header_size + i * sizeof place, sizeof place);
    if (place.size > head.payload_size - sum) return false;
    sum += place.size;
  }
  return landing->places.empty() || sum == head.payload_size;
}

bool Lane::take_piece(Receiver* receiver, const std::shared_ptr<Channel>& channel,
                      ConstSpan bytes) {
  if (landings_.empty()) return false;
  Landing& landing = landings_.front();
  const std::size_t end = std::min(landing.size, landing.back * kPiece);
  if (landing.came >= end || bytes.size != std::min(kPiece, landing.size - landing.came))
    return false;
  if (!landing.into.empty()) copy_bytes(landing.into.data + landing.came, bytes);
  landing.came += bytes.size;
  quiet_since_ = 0;
  if (landing.complete()) complete_landing(receiver, channel);
  return true;
}

bool Lane::stalled() {
  const Nanoseconds time = now();
  if (quiet_since_ == 0) quiet_since_ = time;
  return time - quiet_since_ > kStalled;
}

// There are pieces of the first payload that nobody has claimed, and we could.
bool Lane::may_fetch() const {
  if (landings_.empty()) return false;
  const Landing& landing = landings_.front();
  if (landing.places.empty() || (!can_fetch_ && !landing.into.empty())) return false;
  const Claim claim = Claim::unpack(shared_.incoming().claim.load(std::memory_order_acquire));
  return claim.payload == static_cast<std::uint16_t>(landing.number) && claim.front < claim.back;
}

// Takes some of the last pieces that nobody has claimed. Of a refused payload, all of them.
unsigned Lane::fetch(Receiver* receiver, const std::shared_ptr<Channel>& channel) {
  Landing& landing = landings_.front();
  if (!may_fetch() || (!landing.into.empty() && !stalled())) return 0;
  auto& word = shared_.incoming().claim;
  std::uint64_t seen = word.load(std::memory_order_acquire);
  Claim claim = Claim::unpack(seen);
  if (claim.payload != static_cast<std::uint16_t>(landing.number) || claim.front >= claim.back)
    return 0;
  // Nobody else moves the end, and the writer had claimed what came.
  if (claim.back != landing.back || claim.front * kPiece < landing.came) {
    tell_ = true;
    close(garbled());
    return 1;
  }
  const std::uint32_t end = claim.back;
  claim.back -=
      landing.into.empty() ? end - claim.front : std::min(end - claim.front, kFetchedAtOnce);
  if (!word.compare_exchange_strong(seen, claim.pack(), std::memory_order_acq_rel)) return 1;
  const std::size_t from = claim.back * kPiece;
  const std::size_t to = std::min(end * kPiece, landing.size);
  if (!landing.into.empty() && !fetch_range(landing, from, to)) {
    // The kernel does not let us any more, or the peer is gone: back to the writer with them.
    can_fetch_ = false;
    seen = word.load(std::memory_order_acquire);
    do {
      claim = Claim::unpack(seen);
      claim.back = end;
    } while (!word.compare_exchange_weak(seen, claim.pack(), std::memory_order_acq_rel));
    ring_bell_if(shared_.incoming().writer_waits);
    return 1;
  }
  landing.back = claim.back;
  landing.fetched += to - from;
  if (landing.complete()) complete_landing(receiver, channel);
  ring_bell_if(shared_.incoming().writer_waits);
  return 1;
}

// Bytes [begin, end) of a payload. False if they cannot be had, or may not be what was meant.
bool Lane::fetch_range(const Landing& landing, std::size_t begin, std::size_t end) {
  std::size_t start = 0;  // of the place in the payload
  for (const Place& place : landing.places) {
    const auto size = static_cast<std::size_t>(place.size);
    const std::size_t first = std::max(begin, start), last = std::min(end, start + size);
    if (first < last) {
      const Span into = landing.into.slice(first, last - first);
      if (!read_process(peer_, place.address + (first - start), into).ok()) return false;
    }
    start += size;
  }
  fence(std::memory_order_seq_cst);
  if (shared_.incoming().closed.load(std::memory_order_relaxed) != 0) return false;
  // Another program may run by that number meanwhile, and it was its memory that was read.
  pollfd bell{bell_.get(), POLLRDHUP, 0};
  return ::poll(&bell, 1, 0) == 0;
}

void Lane::complete_landing(Receiver* receiver, const std::shared_ptr<Channel>& channel) {
  Landing done = std::move(landings_.front());
  landings_.pop_front();
  shared_.incoming().finished.store(done.number, std::memory_order_release);
  if (receiver != nullptr)
    receiver->arrived(channel, done.header, done.into, std::move(done.refused));
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
  if (receiver == nullptr) return;
  // Also where the channel is gone: who gave the memory waits for it.
  for (const Landing& landing : landings)
    receiver->arrived(channel, landing.header, landing.into, why);
  if (tell_ && channel) receiver->lost(channel, why);
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
  if (!alive() || hung_up_ || reader_.available() > 0 || may_fetch()) return true;
  return pending_ && pump() > 0;
}

void Lane::drain_bell() {
  std::array<char, 64> sounds;
  while (::recv(bell_.get(), sounds.data(), sounds.size(), MSG_DONTWAIT) ==
         static_cast<ssize_t>(sounds.size())) {
  }
}

}  // namespace pshpc::fabric::ring
