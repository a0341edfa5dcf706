#pragma once
// One connection between two ranks: what waits to be sent, and how what arrives becomes messages.

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "fabric/door.h"
#include "fabric/mpi/layout.h"
#include "fabric/mpi/stream.h"

namespace pshpc::fabric::mpi {

// The bytes of a payload, one piece after the other.
class PayloadCursor {
 public:
  explicit PayloadCursor(Payload payload) : payload_(std::move(payload)), left_(payload_.size()) {}
  std::size_t left() const { return left_; }
  // The rest of the piece that comes next.
  ConstSpan front() const;
  void read(Span into);
  void skip(std::size_t size);

 private:
  ConstSpan piece() const { return piece_ == 0 ? payload_.first : payload_.more[piece_ - 1]; }

  Payload payload_;
  std::size_t piece_ = 0, at_ = 0;  // piece 0 is `first`
  std::size_t left_;
};

struct Outgoing {
  RecordKind kind = RecordKind::message;
  Bytes header;
  PayloadCursor payload{Payload()};
  std::size_t payload_size = 0;
  Operation* operation = nullptr;
  // Its memory is needed until all is written and no loan is out.
  bool written = false;
  unsigned loans = 0;
  Status status;
};
using OutgoingPtr = std::shared_ptr<Outgoing>;

// Makes parts for the receiver to fetch.
class Lender {
 public:
  virtual ~Lender() = default;
  // The next bytes of its payload; none while nothing is free.
  virtual std::optional<Part> lend(const OutgoingPtr& message) = 0;
};

// A payload that comes.
struct Landing {
  std::weak_ptr<Channel> from;
  Bytes header;
  Span into;  // empty: refused
  std::size_t size = 0;
  std::size_t placed = 0;  // of which it is known where they come from
  std::size_t filled = 0;
  unsigned fetches = 0;
  bool settled = false;
  Status status;
};

// A part that is to be fetched; nowhere, if it is only to be acknowledged. Without a landing nobody
// asks what became of it.
struct Fetch {
  int rank = 0;
  std::shared_ptr<Landing> landing;
  Part part;
  Span into;
};

class Lane {
 public:
  Lane(int peer, bool serve, std::uint64_t local, std::uint64_t remote)
      : rank(peer), both_serve(serve), local_token(local), remote_token(remote) {}

  const int rank;
  const bool both_serve;  // a thread of theirs progresses MPI on either side
  const std::uint64_t local_token, remote_token;
  std::atomic<bool> alive{true};
  // Who takes its messages: the door's receiver, or a stream.
  std::weak_ptr<Channel> channel;
  std::shared_ptr<Stream> stream;

  // Of whoever progresses the door.

  std::deque<OutgoingPtr> outgoing;
  bool listed = false;  // among those with something to send
  bool closed = false;  // the last that is sent is the farewell
  // How large a slot the next record wants.
  std::size_t wanted() const;
  // Writes the next record; the bytes used, none if nothing can be lent now. `finished` gets the
  // message if that was its last one.
  std::size_t write_record(Span slot, Lender& lender, OutgoingPtr* finished);

  // Of whoever publishes.

  // A record in whatever order it came, and what is to be fetched for it. False: the connection
  // has ended.
  bool deliver(Receiver* receiver, const RecordHead& head, Bytes record,
               std::vector<Fetch>* fetches);
  static void fetched(Receiver* receiver, const Fetch& fetch, const Status& status);
  // Nothing comes any more; what has come too early is refused.
  void break_off(Receiver* receiver, const Status& why, std::vector<Fetch>* refused);
  // The parts of a record that nobody takes are acknowledged all the same: their sender waits for
  // the memory.
  static void refuse(int rank, ConstSpan record, std::vector<Fetch>* refused);

 private:
  bool take(Receiver* receiver, const RecordHead& head, ConstSpan body,
            std::vector<Fetch>* fetches);
  bool place(const RecordHead& head, ConstSpan body, std::vector<Fetch>* fetches);
  bool garbled(Receiver* receiver, std::vector<Fetch>* fetches);
  static void settle(Receiver* receiver, Landing& landing);

  std::uint32_t sent_ = 0;
  bool begun_ = false;  // the first record of outgoing.front() is written

  std::uint32_t expected_ = 0;
  std::map<std::uint32_t, Bytes> early_;
  std::shared_ptr<Landing> landing_;  // not yet all placed
  bool ended_ = false;
};

}  // namespace pshpc::fabric::mpi
