#pragma once
// One connection over a pair of rings: messages out, messages in, and a bell to wake the other side
// or to learn of its end.
//
// On a ring messages follow each other as records. One with a long payload begins with a record of
// its own; the payload follows piece by piece, as room allows, while shorter messages pass it.
// Where the writer falls behind, as on a busy machine, the reader fetches pieces from the end on
// out of its memory, if the kernel lets it.

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "fabric/door.h"
#include "fabric/ring/shared.h"

namespace pshpc::fabric::ring {

enum class RecordKind : std::uint16_t {
  message = 1,  // header and payload
  begin,        // header, then where its payload lies; that comes in pieces
  piece,        // the next bytes of the oldest payload that is not complete
};

struct RecordHead {
  std::uint32_t size = 0;  // of what follows, without the padding
  RecordKind kind = RecordKind::message;
  std::uint16_t header_size = 0;
  std::uint64_t payload_size = 0;  // of the whole payload
};
static_assert(sizeof(RecordHead) == 16);

// Where a part of a payload lies in the writer's memory.
struct Place {
  std::uint64_t address;
  std::uint64_t size;
};

// Wakes the thread that polls the lanes of a door. Outlives the door, as its lanes may.
class Nudge {
 public:
  Status open();
  int fd() const { return fd_.get(); }
  // The thread sleeps, or is about to.
  void arm(bool armed) { armed_.store(armed); }
  bool armed() const { return armed_.load(std::memory_order_relaxed); }
  void ring();
  void drain();

 private:
  GuardedFd fd_;
  std::atomic<bool> armed_{false};
};

class Lane {
 public:
  // `peer` is what the kernel says of the other side; 0: nothing can be fetched from it. `poller`
  // is woken when something waits to be sent.
  Lane(Shared shared, GuardedFd bell, pid_t peer, std::shared_ptr<Nudge> poller, bool lends);
  ~Lane();

  // The channel that stands for this lane: what arrives is told in its name.
  void attach(const std::shared_ptr<Channel>& channel) { channel_ = channel; }
  bool alive() const { return alive_.load(std::memory_order_acquire); }
  int bell() const { return bell_.get(); }

  // Any thread, never blocks.
  void send(Message message, Operation* operation);
  void close(const Status& why);

  // The following by one thread at a time.

  // Sends what waits, takes what came; the number of events.
  unsigned poll(Receiver* receiver);
  // The other side is to ring the bell from now on.
  void announce_sleep();
  void announce_waking();
  // There is something to do; after announce_sleep() and a fence.
  bool has_news();
  // Takes what the bell rang; only before sleeping, as it may be meant for the sleeper.
  void drain_bell();
  // Nobody is at the other end any more.
  void hang_up() { hung_up_ = true; }
  // Nothing is left to be told, and nothing more will come.
  bool finished() const { return finished_; }

 private:
  struct Outgoing {
    Bytes header;
    Payload payload;
    Operation* operation = nullptr;
    std::uint64_t number = 0;  // counts the payloads that come in pieces
    std::size_t size = 0, sent = 0;
    // Where the next bytes of the payload are.
    std::size_t part = 0, at = 0;
  };
  struct Landing {
    Bytes header;
    Span into;  // empty: refused, and told so
    std::uint64_t number = 0;
    std::size_t size = 0, came = 0, fetched = 0;
    std::uint32_t back = 0;     // pieces from here on we fetch
    std::vector<Place> places;  // empty: it cannot be fetched
    Status refused;

    bool complete() const { return came + fetched == size; }
  };
  struct Sent {
    Operation* operation;
    std::shared_ptr<const void> keep;
  };

  bool try_begin(ConstSpan header, Payload& payload, Operation* operation);
  enum class Step { none, piece, complete };
  Step try_step();
  void announce_locked();
  void write_piece(Outgoing& flowing, std::size_t size);
  void write_record(const RecordHead& head, ConstSpan header);
  bool pump_locked(std::vector<Sent>* sent);
  unsigned pump(bool written = false);
  void ring_bell_if(std::atomic<std::uint32_t>& flag);

  unsigned take(Receiver* receiver, const std::shared_ptr<Channel>& channel);
  bool take_record(Receiver* receiver, const std::shared_ptr<Channel>& channel,
                   const RecordHead& head, const std::uint8_t* bytes);
  bool take_piece(Receiver* receiver, const std::shared_ptr<Channel>& channel, ConstSpan bytes);
  bool read_places(const RecordHead& head, const std::uint8_t* bytes, Landing* landing) const;
  bool stalled();
  bool may_fetch() const;
  unsigned fetch(Receiver* receiver, const std::shared_ptr<Channel>& channel);
  bool fetch_range(const Landing& landing, std::size_t begin, std::size_t end);
  void complete_landing(Receiver* receiver, const std::shared_ptr<Channel>& channel);
  void finish(Receiver* receiver, const std::shared_ptr<Channel>& channel);

  const Shared shared_;
  const GuardedFd bell_;
  const pid_t peer_;
  const bool lends_;
  const std::shared_ptr<Nudge> poller_;
  std::weak_ptr<Channel> channel_;
  std::atomic<bool> alive_{true};

  std::mutex out_;  // everything up to pending_
  Status ended_;
  Writer writer_;
  std::deque<Outgoing> waiting_;  // not begun
  std::deque<Outgoing> flowing_;  // begun, their payloads not complete
  std::uint64_t begun_ = 0;       // payloads that come in pieces
  std::atomic<bool> pending_{false};

  // Of whoever polls.
  Reader reader_;
  std::deque<Landing> landings_;
  Bytes header_;
  std::uint64_t announced_ = 0;  // payloads that come in pieces
  bool can_fetch_;
  Nanoseconds quiet_since_ = 0;  // when no piece came any more; 0: it has not been looked at
  bool hung_up_ = false;
  bool finished_ = false;
  bool tell_ = false;  // the receiver that the channel is lost
};

}  // namespace pshpc::fabric::ring
