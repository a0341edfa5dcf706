#pragma once
// What an owner tells the keeper of its node while it lives, so that another process can go on
// serving its objects (docs/protocol.md, The keeper).

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/guarded_fd.h"
#include "base/siphash.h"
#include "base/span.h"
#include "base/status.h"
#include "memory/arena.h"
#include "memory/block_table.h"
#include "objects/claim_table.h"
#include "rpc/address.h"

namespace pshpc::objects {

// Frames on the connection to a keeper.
enum class HandoverKind : std::uint16_t {
  identity = 1,  // Identity; descriptors: the tables of blocks and references, then the listeners
  segment,       // u32 number; its descriptor
  pin_table,     // u64 connection; its descriptor
  left,          // u64 connection
  config,        // text for processes without this store
  outside,       // what keys say of the outside
};

// Who an owner is, and what it needs to know those whom it gave keys to.
struct Identity {
  static constexpr std::uint32_t kVersion = 1;

  rpc::Address self;
  Tag owner_secret{};
  Tag job_secret{};
  bool trust_user = true;
  std::string store;
  Nanoseconds grace = 0;

  Bytes encode() const;
  static Expected<Identity> parse(ConstSpan bytes);
};

// The owner's end. Any thread. Nothing is sent for a single object. A keeper that is gone or does
// not listen is told nothing more, and said so once; the owner goes on without it.
class Handover {
 public:
  explicit Handover(Fd connection) : fd_(std::move(connection)) {}

  void begin(const Identity& identity, const memory::BlockTable& table, const ClaimTable& claims,
             const std::vector<int>& listeners);
  void add_segment(const memory::Segment& segment);
  void add_pin_table(std::uint64_t connection, int fd);
  void drop_pin_tables(std::uint64_t connection);
  void set_config(const std::string& config);
  void set_outside(ConstSpan outside);
  // The keeper takes over.
  void finish();
  bool broken();
  int fd() const { return fd_.get(); }

 private:
  void send(HandoverKind kind, ConstSpan body, const std::vector<int>& fds);

  GuardedFd fd_;
  std::mutex mutex_;
  bool broken_ = false;
};

// All of it together, as the keeper has it when the owner has ended.
struct Estate {
  Identity identity;
  std::string config;
  Bytes outside;
  Fd table;
  Fd claims;
  std::vector<Fd> listeners;  // the first is the node socket
  std::vector<memory::Arena::Inherited> segments;
  std::vector<Fd> pin_tables;
};

}  // namespace pshpc::objects
