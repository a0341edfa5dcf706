// Who is to progress MPI is told so, and who is told listens.

#include <algorithm>

#include "fabric/mpi/door.h"

namespace pshpc::fabric::mpi {
namespace {

constexpr int kBell = 1;
// A rank that was rung for is awake for so long.
constexpr Nanoseconds kBellLasts = 400 * kMicrosecond;
constexpr Nanoseconds kLongestPause = 100 * kMillisecond;

}  // namespace

void MpiDoor::moved(int rank) {
  answered(rank);
  const auto moving = moving_.find(rank);
  if (--moving->second == 0) moving_.erase(moving);
}

// It is awake.
void MpiDoor::answered(int rank) { bells_[rank].pause = kBellLasts; }

void MpiDoor::ring(int rank) {
  if (rank == port_.rank) return;
  Bell& bell = bells_[rank];
  const Nanoseconds time = now();
  if (time - bell.rung < bell.pause) return;
  bell.rung = time;
  // Messages that a rank does not take use up what MPI has for those to others.
  bell.pause = std::clamp(bell.pause * 5 / 4, kBellLasts, kLongestPause);
  if (node_bells_.ring(rank)) return;
  flights_.start(
      "ringing",
      [&](Flights::Flight& flight) {
        return port_.api->isend(&flight.operand, 0, port_.api->constants.byte, rank, kBell,
                                port_.comm, &flight.request);
      },
      [](const Status&, std::uint64_t) {});
}

// Not where MPI sees to that without us. Messages need our threads all the same.
void MpiDoor::wake_for_transfer(int rank) {
  if (!port_.api->settings().progresses_itself) ring(rank);
}

void MpiDoor::keep_peers_awake() {
  for (const auto& [rank, transfers] : moving_) wake_for_transfer(rank);
}

void MpiDoor::heard() { hot_until_ = std::max(hot_until_.load(), now() + options_.hot); }

unsigned MpiDoor::listen() {
  const Api& api = *port_.api;
  unsigned bells = 0;
  for (;;) {
    int there = 0;
    Handle bell = 0;
    StatusRoom ignored;
    if (api.improbe(api.constants.any_source, kBell, port_.comm, &there, &bell, &ignored) != 0 ||
        there == 0)
      break;
    std::uint64_t nothing = 0;
    if (api.mrecv(&nothing, 0, api.constants.byte, &bell, &ignored) != 0) break;
    ++bells;
  }
  if (bells > 0) heard();
  return bells;
}

}  // namespace pshpc::fabric::mpi
