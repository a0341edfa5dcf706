#include "fabric/mpi/channel.h"

#include <utility>

#include "base/fork_guard.h"
#include "base/wire.h"

namespace pshpc::fabric::mpi {

Expected<std::shared_ptr<RemoteRegion>> RemoteMemory::parse(ConstSpan handle, int rank) {
  WireReader reader(handle);
  const auto owner = reader.get<std::uint32_t>();
  const auto base = reader.get<std::uint64_t>();
  const auto length = reader.get<std::uint64_t>();
  if (!reader.at_end() || owner != static_cast<std::uint32_t>(rank))
    return Status(Code::protocol, "not a handle of memory exposed over mpi by that rank");
  return std::shared_ptr<RemoteRegion>(std::make_shared<RemoteMemory>(base, length));
}

Status MpiChannel::usable() const {
  if (door_->birth_ != fork_generation())
    return {Code::forked, "this connection belongs to the parent of this process"};
  if (door_->stopped_) return {Code::peer_lost, "the mpi door was closed on this side"};
  if (!alive()) return {Code::peer_lost, "the connection was closed"};
  return {};
}

void MpiChannel::send(Message message, Operation* operation) {
  const Status usable = this->usable();
  if (!usable.ok()) {
    if (operation != nullptr) operation->complete(usable);
    return;
  }
  MpiDoor::Command command;
  command.kind = MpiDoor::Kind::send;
  command.lane = lane_;
  command.operation = operation;
  command.message = std::make_shared<Outgoing>();
  command.message->header = message.header.copy();
  command.message->payload_size = message.payload.size();
  command.message->payload = PayloadCursor(std::move(message.payload));
  command.message->operation = operation;
  door_->submit(std::move(command));
}

Expected<std::shared_ptr<RemoteRegion>> MpiChannel::import(ConstSpan handle) {
  return RemoteMemory::parse(handle, lane_->rank);
}

void MpiChannel::move(MpiDoor::Kind kind, const RemoteRegion& region, std::uint64_t offset,
                      Span span, Operation* operation) {
  const auto& remote = static_cast<const RemoteMemory&>(region);
  Status status = usable();
  if (status.ok() && !remote.covers(offset, span.size))
    status = Status(Code::invalid, "the range lies outside of the peer's memory");
  if (!status.ok()) return operation->complete(status);
  door_->submit({kind, lane_, remote.address(offset), span, nullptr, operation, {}});
}

void MpiChannel::read(const RemoteRegion& region, std::uint64_t offset, Span into,
                      Operation* operation) {
  move(MpiDoor::Kind::read, region, offset, into, operation);
}

void MpiChannel::write(const RemoteRegion& region, std::uint64_t offset, ConstSpan from,
                       Operation* operation) {
  // Only read from, whatever the type says.
  move(MpiDoor::Kind::write, region, offset, {const_cast<std::uint8_t*>(from.data), from.size},
       operation);
}

void MpiChannel::close() {
  if (door_->birth_ != fork_generation()) return;
  if (lane_->alive.exchange(false))
    door_->submit({MpiDoor::Kind::close, lane_, 0, {}, nullptr, nullptr, {}});
}

}  // namespace pshpc::fabric::mpi
