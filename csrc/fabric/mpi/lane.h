#pragma once
// One connection between two ranks: what waits to be sent, and how what arrives becomes messages.

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "fabric/door.h"
#include "fabric/mpi/layout.h"

namespace pshpc::fabric::mpi {

// The bytes of a payload, one piece after the other.
class PayloadCursor {
 public:
  explicit PayloadCursor(Payload payload) : payload_(std::move(payload)), left_(payload_.size()) {}
  std::size_t left() const { return left_; }
  void read(Span into);

 private:
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
};

class Lane {
 public:
  Lane(int peer, bool serve, std::uint64_t local, std::uint64_t remote)
      : rank(peer), both_serve(serve), local_token(local), remote_token(remote) {}

  const int rank;
  const bool both_serve;  // a thread of theirs progresses MPI on either side
  const std::uint64_t local_token, remote_token;
  std::atomic<bool> alive{true};
  std::weak_ptr<Channel> channel;

  // Of whoever progresses the door.

  std::deque<Outgoing> outgoing;
  bool listed = false;  // among those with something to send
  // How large the next record wants to be.
  std::size_t wanted() const;
  // Writes the next record; the bytes used. `finished` gets the message if that was its last one.
  std::size_t write_record(Span slot, std::optional<Outgoing>* finished);

  // Of whoever publishes.

  // A record in whatever order it came. False: this is no such stream, or it ended.
  bool deliver(Receiver* receiver, const RecordHead& head, Bytes record);
  void break_off(Receiver* receiver, const Status& why);

 private:
  bool take(Receiver* receiver, const RecordHead& head, ConstSpan body);
  void fill(Receiver* receiver, ConstSpan data);

  std::uint32_t sent_ = 0;
  bool begun_ = false;  // the first record of outgoing.front() is written

  struct Landing {
    Bytes header;
    Span into;  // empty: refused
    std::size_t size = 0, filled = 0;
  };
  std::uint32_t expected_ = 0;
  std::map<std::uint32_t, Bytes> early_;
  std::unique_ptr<Landing> landing_;
  bool ended_ = false;
};

}  // namespace pshpc::fabric::mpi
