// Streams of bytes between ranks, which carry the hello where no socket of ours leads.

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/wire.h"
#include "fabric/mpi/door.h"

namespace pshpc::fabric::mpi {
namespace {

// Messages of a stream that wait for slots before more is read from its user.
constexpr std::size_t kStreamAhead = 4;

}  // namespace

void MpiDoor::introduce(const Tag& id, std::uint32_t rank) {
  std::lock_guard<std::mutex> lock(mutex_);
  members_[id] = rank;
}

void MpiDoor::take_calls(const std::function<void(Fd)>& taker) {
  std::lock_guard<std::mutex> lock(mutex_);
  taker_ = taker;
}

Expected<Fd> MpiDoor::dial(const Tag& id) {
  if (stopped_) return closed_here();
  if (!in_background())
    return Status(Code::unavailable, "the mpi door carries a hello with MPI_THREAD_MULTIPLE only");
  Fd users;
  auto stream = Stream::create(&users);
  if (!stream) return stream.status();
  std::shared_ptr<Lane> lane;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto member = members_.find(id);
    if (member == members_.end())
      return Status(Code::unavailable, "the peer is no rank of this communicator");
    const std::uint64_t token = next_token_++;
    lane = std::make_shared<Lane>(static_cast<int>(member->second), true, token,
                                  dialed_token(static_cast<std::uint32_t>(port_.rank), token));
    lane->stream = std::move(stream).value();
    lanes_[token] = lane;
  }
  auto first = std::make_shared<Outgoing>();
  first->kind = RecordKind::dial;
  first->header = address();
  submit({Kind::stream, lane, 0, {}, std::move(first), nullptr, {}});
  return users;
}

// A rank opens a stream to this one.
std::shared_ptr<Lane> MpiDoor::take_call(const RecordHead& head, const News& news) {
  const auto rank = static_cast<std::uint32_t>(news.rank);
  if (head.kind != RecordKind::dial || !is_dialed(head.token) || dialer_of(head.token) != rank)
    return nullptr;
  WireReader reader(ConstSpan(news.record).from(sizeof head));
  if (reader.get_tag() != port_.job) return nullptr;
  Fd users;
  auto stream = Stream::create(&users);
  if (!stream) {
    log_warn_once(stream.status().message());
    return nullptr;
  }
  auto lane = std::make_shared<Lane>(news.rank, true, head.token, dialers_token(head.token));
  lane->stream = std::move(stream).value();
  std::function<void(Fd)> taker;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_ || !taker_) return nullptr;
    taker = taker_;
    lanes_[head.token] = lane;
  }
  submit({Kind::stream, lane, 0, {}, nullptr, nullptr, {}});
  taker(std::move(users));
  return lane;
}

unsigned MpiDoor::pump_streams() {
  unsigned events = 0;
  for (std::size_t i = 0; i < streams_.size();) {
    const std::shared_ptr<Lane> lane = streams_[i];
    bool stays = lane->stream->flush() && lane->alive.load();
    while (stays && lane->outgoing.size() < kStreamAhead) {
      auto bytes = lane->stream->take(kMaxHeader);
      if (!bytes) {
        stays = false;
        if (lane->alive.exchange(false)) close_lane(lane);
      } else if (bytes->empty()) {
        break;
      } else {
        auto message = std::make_shared<Outgoing>();
        message->header = std::move(bytes).value();
        lane->outgoing.push_back(std::move(message));
        list(lane);
        ++events;
      }
    }
    if (stays || !lane->stream->drained()) {
      ++i;
      continue;
    }
    unwatch(lane->stream->fd());
    streams_[i] = std::move(streams_.back());
    streams_.pop_back();
  }
  return events;
}

}  // namespace pshpc::fabric::mpi
