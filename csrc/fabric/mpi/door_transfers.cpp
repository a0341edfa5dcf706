// Memory that is read and written, and payloads that are fetched.

#include <algorithm>
#include <utility>

#include "fabric/mpi/door.h"

namespace pshpc::fabric::mpi {
// Each rank for itself: in an epoch of all, Open MPI's flush of one waits for all.
Status MpiDoor::lock(int rank) {
  std::uint8_t& locked = port_.locked[rank];
  if (locked != 0) return {};
  const Api& api = *port_.api;
  const Status status =
      api.check(api.win_lock(api.constants.lock_shared, rank, api.constants.no_check, port_.memory),
                "MPI_Win_lock");
  locked = status.ok() ? 1 : 0;
  return status;
}

void MpiDoor::move(Command& command) {
  const Api& api = *port_.api;
  const int rank = command.lane->rank;
  if (const Status locked = lock(rank); !locked.ok()) return complete(command.operation, locked);
  auto transfer = std::make_shared<Transfer>();
  transfer->lane = command.lane;
  transfer->operation = command.operation;
  transfer->writes = command.kind == Kind::write;
  transfer->pieces =
      std::max<std::size_t>((command.span.size + kLongestPart - 1) / kLongestPart, 1);
  transfer->size = command.span.size;
  transfer->last = command.address + static_cast<Aint>(command.span.size) - 1;
  moving(rank, command.span.size);
  const std::size_t pieces = transfer->pieces;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t at = i * kLongestPart;
    std::uint8_t* const here = command.span.data + at;
    const int size = static_cast<int>(std::min(kLongestPart, command.span.size - at));
    const Aint there = command.address + static_cast<Aint>(at);
    const auto post = [&](Flights::Flight& flight) {
      return transfer->writes ? api.rput(here, size, api.constants.byte, rank, there, size,
                                         api.constants.byte, port_.memory, &flight.request)
                              : api.rget(here, size, api.constants.byte, rank, there, size,
                                         api.constants.byte, port_.memory, &flight.request);
    };
    flights_.start(
        transfer->writes ? "writing memory" : "reading memory", post,
        [this, transfer](const Status& status, std::uint64_t) { piece_done(transfer, status); });
  }
}

void MpiDoor::piece_done(const std::shared_ptr<Transfer>& transfer, const Status& status) {
  if (!status.ok()) transfer->status = status;
  if (--transfer->pieces > 0) return;
  const int rank = transfer->lane->rank;
  moved(rank);
  if (transfer->writes && transfer->size > 0 && transfer->status.ok()) return flush(transfer);
  arrive(transfer);
}

// That a put is done says only that its source may be used again. MPI_Win_flush says that it has
// come, but waits for as long as its target does not call MPI, so it is called once a byte has come
// back from there.
void MpiDoor::flush(const std::shared_ptr<Transfer>& transfer) {
  const Api& api = *port_.api;
  const int rank = transfer->lane->rank;
  moving(rank, 1);
  flights_.start(
      "looking at what was written",
      [&](Flights::Flight& flight) {
        return api.rget(&flight.result, 1, api.constants.byte, rank, transfer->last, 1,
                        api.constants.byte, port_.memory, &flight.request);
      },
      [this, transfer](const Status& status, std::uint64_t) {
        const int target = transfer->lane->rank;
        moved(target);
        transfer->status = status;
        if (status.ok())
          transfer->status =
              port_.api->check(port_.api->win_flush(target, port_.memory), "MPI_Win_flush");
        arrive(transfer);
      });
}

void MpiDoor::arrive(const std::shared_ptr<Transfer>& transfer) {
  if (!transfer->lane->alive.load())
    transfer->status = {Code::peer_lost, "the connection was closed"};
  complete(transfer->operation, transfer->status);
}

// A part of a payload that a peer has announced.
void MpiDoor::fetch(const Fetch& fetch) {
  if (fetch.into.empty()) return acknowledge(fetch, {});
  const Api& api = *port_.api;
  const int rank = fetch.rank, size = static_cast<int>(fetch.part.size);
  const bool loan = fetch.part.loan();
  if (loan) {
    if (const Status locked = lock(rank); !locked.ok()) return acknowledge(fetch, locked);
  }
  const auto at = static_cast<Aint>(loan ? fetch.part.address : slot_at(fetch.part.slot));
  moving(rank, fetch.part.size);
  flights_.start(
      "fetching a payload",
      [&](Flights::Flight& flight) {
        return api.rget(fetch.into.data, size, api.constants.byte, rank, at, size,
                        api.constants.byte, loan ? port_.memory : port_.messages, &flight.request);
      },
      [this, fetch](const Status& status, std::uint64_t) {
        moved(fetch.rank);
        acknowledge(fetch, status);
      });
}

void MpiDoor::tell_of(const Fetch& fetch, const Status& how) {
  News news;
  news.fetched = fetch;
  news.status = how;
  tell(std::move(news));
}

void MpiDoor::acknowledge(const Fetch& fetch, const Status& status) {
  const bool loan = fetch.part.loan();
  flights_.atomic("acknowledging a payload", port_.messages, fetch.rank, ack_at(fetch.part.slot),
                  port_.api->constants.sum, 1, [=](const Status& acked, std::uint64_t acks) {
                    if (!loan) return;
                    const bool valid = static_cast<std::uint32_t>(acks + 1) == fetch.part.acks;
                    if (!status.ok() || !acked.ok())
                      return tell_of(fetch, status.ok() ? acked : status);
                    tell_of(fetch, valid
                                       ? Status()
                                       : Status(Code::peer_lost, "the peer closed the connection"));
                  });
  // What lies in a slot stays there until it is acknowledged.
  if (!loan) tell_of(fetch, status);
}

}  // namespace pshpc::fabric::mpi
