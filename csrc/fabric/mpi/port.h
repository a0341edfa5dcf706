#pragma once
// What a door has of MPI: a communicator and two windows of its own, made by all ranks together.

#include <cstdint>
#include <memory>

#include "base/siphash.h"
#include "fabric/mpi/api.h"

namespace pshpc::fabric::mpi {

// Which threads may call MPI.
enum class ThreadLevel { main_only, one_at_a_time, multiple };

struct Port {
  std::shared_ptr<const Api> api;
  Handle comm = 0;
  Handle messages = 0;  // MPI_Win_allocate, kWindowSize bytes a rank, in bytes; all locked
  Handle memory = 0;    // MPI_Win_create_dynamic
  std::uint8_t* locked = nullptr;  // by rank: 1 if it is locked in `memory`; outlives the door
  std::uint8_t* base = nullptr;    // of `messages`, here
  int rank = 0;
  int ranks = 0;
  Tag job{};  // the same on all ranks, and nowhere else
  ThreadLevel threads = ThreadLevel::multiple;
};

}  // namespace pshpc::fabric::mpi
