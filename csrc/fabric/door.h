#pragma once
// The seam: all that a transport must offer to be a door to registered memory.
//
// A channel is made while two peers say hello (over a socket of ours, after they have shown their
// credentials): one door offers, the other accepts and answers, and with that the first connects.

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "fabric/operation.h"
#include "fabric/payload.h"
#include "fabric/progress.h"
#include "memory/region.h"

namespace pshpc::fabric {

// Headers are small and always copied by send(); larger matter belongs into the payload.
inline constexpr std::size_t kMaxHeader = 16 * 1024;

// send() copies the header.
struct Message {
  ConstSpan header;
  Payload payload;
};

// Who is at the other end, as far as the kernel tells.
struct Peer {
  bool on_node = false;
  pid_t pid = 0;  // 0: not known, or not visible from here
};

// What one door tells another so that a channel between them can be made.
struct Offer {
  Bytes address;
  std::uint64_t token = 0;     // what the other side shall put into its messages
  std::vector<GuardedFd> fds;  // to peers on the node only
  // Not told: what this side has prepared. It ends with the offer unless a channel came of it.
  std::shared_ptr<void> prepared;
};

class RemoteRegion {
 public:
  virtual ~RemoteRegion() = default;
};

// The way to one peer. All methods: any thread, never block. Destroying the last reference closes.
class Channel {
 public:
  virtual ~Channel() = default;

  // What the peer puts into its messages to us.
  virtual std::uint64_t token() const = 0;
  // read() and write() complete without the peer's CPU.
  virtual bool one_sided() const = 0;
  // A message of that size comes sooner than a read of it, since both sides copy at the same time;
  // but it needs the owner to be running.
  virtual bool prefers_message(std::size_t) const { return false; }
  // What the peer has withdrawn cannot be reached any more: no memory but that it has open is read
  // or written.
  virtual bool revokes() const { return true; }
  // The peer takes messages whenever they come, not only while it calls this library.
  virtual bool serves_messages() const { return true; }
  virtual bool alive() const = 0;
  // The lanes chosen, for people: "cma/memory posix/memory".
  virtual std::string describe() const = 0;

  // Messages of one sender are announced in the order of their send() calls: one without a payload
  // has then arrived, a payload may still be on its way while later messages arrive. `operation`
  // (may be null) completes when payload and header may be reused.
  virtual void send(Message message, Operation* operation) = 0;

  // `handle` is what the peer's Door::expose() returned.
  virtual Expected<std::shared_ptr<RemoteRegion>> import(ConstSpan handle) = 0;
  // `offset` counts from the start of the exposed region. Always completes the operation, with
  // Code::peer_lost after close() or the peer's death.
  virtual void read(const RemoteRegion& region, std::uint64_t offset, Span into,
                    Operation* operation) = 0;
  // Completes when the bytes are visible at the peer.
  virtual void write(const RemoteRegion& region, std::uint64_t offset, ConstSpan from,
                     Operation* operation) = 0;

  // By force: nothing is flushed, operations in flight complete with Code::peer_lost.
  virtual void close() = 0;
};

// Who takes what arrives. Called by whichever thread progresses the door, outside the door's lock;
// must not block. May call send(), read() and write().
class Receiver {
 public:
  virtual ~Receiver() = default;
  // Where the payload announced by `header` shall go; called for payload_size > 0 only. An empty
  // span refuses it: the payload is dropped and arrived() gets Code::invalid.
  virtual Span destination(const std::shared_ptr<Channel>& from, ConstSpan header,
                           std::size_t payload_size) = 0;
  // `payload` is the span that destination() gave, filled (empty if there was none).
  virtual void arrived(const std::shared_ptr<Channel>& from, ConstSpan header, Span payload,
                       Status status) = 0;
  virtual void lost(const std::shared_ptr<Channel>& channel, Status why) = 0;
};

class Door {
 public:
  virtual ~Door() = default;
  virtual std::string name() const = 0;

  // Once, before the first connect(). Starts to be progressed by `progress`, which outlives the
  // door's use: stop() is called before it goes.
  virtual Status start(Progress& progress, Receiver& receiver) = 0;
  virtual void stop() = 0;

  // Its channels can read() and write(), not only send(). Else expose() is not called.
  virtual bool moves_memory() const { return true; }
  // Registers memory; the handle is what a peer imports. withdraw() before the memory goes away.
  virtual Expected<Bytes> expose(const memory::Region& region) = 0;
  virtual void withdraw(std::uint32_t region_id) = 0;

  // Code::unavailable where it cannot lead.
  virtual Expected<Offer> offer(const Peer& peer) = 0;
  struct Accepted {
    std::shared_ptr<Channel> channel;
    Offer answer;
  };
  virtual Expected<Accepted> accept(const Peer& peer, Offer theirs) = 0;
  virtual Expected<std::shared_ptr<Channel>> connect(const Peer& peer, Offer ours,
                                                     Offer answer) = 0;

  // Some doors lead to a group whose members they know, and carry the hello as well, where no
  // socket of ours leads: a stream of bytes to a member, whose other end its callers' taker gets.

  // That a process is the member of this number.
  virtual void introduce(const Tag& /*id*/, std::uint32_t /*member*/) {}
  virtual Expected<Fd> dial(const Tag& /*id*/) {
    return Status(Code::unavailable, "the " + name() + " door carries no hello");
  }
  // Who takes the streams of others, on whichever thread progresses the door; none after stop().
  virtual void take_calls(const std::function<void(Fd)>& /*taker*/) {}

  // Progresses the door until the operation is done or the deadline passes (Code::timed_out, the
  // operation then is still in flight). `interrupted` is asked now and then; true ends the wait
  // with Code::peer_lost, the operation likewise still in flight.
  virtual Status wait(const Operation& operation, Deadline deadline,
                      const std::function<bool()>& interrupted) = 0;

  // One fact a line, "key: value": library version and path, transports, devices.
  virtual std::vector<std::pair<std::string, std::string>> facts() const = 0;
};

// What extension modules hand to the core inside a PyCapsule; the capsule owns the shared_ptr.
inline constexpr const char* kDoorCapsule = "proxystore_hpc.fabric.Door/6";
using DoorHandle = std::shared_ptr<Door>;

}  // namespace pshpc::fabric
