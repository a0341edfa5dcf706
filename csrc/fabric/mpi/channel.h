#pragma once
// The way to one rank.

#include "fabric/mpi/door.h"

namespace pshpc::fabric::mpi {

class RemoteMemory final : public RemoteRegion {
 public:
  RemoteMemory(std::uint64_t base, std::uint64_t length) : base_(base), length_(length) {}
  static Expected<std::shared_ptr<RemoteRegion>> parse(ConstSpan handle, int rank);
  bool covers(std::uint64_t offset, std::uint64_t size) const {
    return offset <= length_ && size <= length_ - offset;
  }
  Aint address(std::uint64_t offset) const { return static_cast<Aint>(base_ + offset); }

 private:
  const std::uint64_t base_, length_;
};

class MpiChannel final : public Channel {
 public:
  MpiChannel(std::shared_ptr<MpiDoor> door, std::shared_ptr<Lane> lane)
      : door_(std::move(door)), lane_(std::move(lane)) {}
  ~MpiChannel() override { MpiChannel::close(); }

  std::uint64_t token() const override { return lane_->local_token; }
  bool one_sided() const override { return true; }
  // Implementations go on moving what was detached, between nodes at least, or crash where it is
  // gone.
  bool revokes() const override { return false; }
  bool serves_messages() const override { return lane_->both_serve; }
  bool alive() const override { return lane_->alive.load(std::memory_order_acquire); }
  std::string describe() const override { return "mpi/memory"; }

  void send(Message message, Operation* operation) override;
  Expected<std::shared_ptr<RemoteRegion>> import(ConstSpan handle) override;
  void read(const RemoteRegion& region, std::uint64_t offset, Span into,
            Operation* operation) override;
  void write(const RemoteRegion& region, std::uint64_t offset, ConstSpan from,
             Operation* operation) override;
  void close() override;

 private:
  Status usable() const;
  void move(MpiDoor::Kind kind, const RemoteRegion& region, std::uint64_t offset, Span span,
            Operation* operation);

  const std::shared_ptr<MpiDoor> door_;
  const std::shared_ptr<Lane> lane_;
};

}  // namespace pshpc::fabric::mpi
