#include "fabric/mpi/alone.h"

#include <sched.h>

#include <mutex>

namespace pshpc::fabric::mpi {
namespace {

std::atomic<bool> begun{false};
// Threads that came in before.
std::atomic<unsigned> together{0};

// Recursive, as the end of a door is a call of MPI, too. Outlives all threads.
std::recursive_mutex& lone() {
  static auto& mutex = *new std::recursive_mutex;
  return mutex;
}

}  // namespace

void Alone::begin() {
  begun = true;
  while (together.load() != 0) ::sched_yield();
}

bool Alone::enter() {
  if (!begun.load()) return false;
  lone().lock();
  return true;
}

void Alone::leave() { lone().unlock(); }

MpiTurn::MpiTurn(std::atomic<bool>& taken) : turn_(taken), how_(come_in()) {}

MpiTurn::~MpiTurn() {
  if (how_ == How::alone) Alone::leave();
  if (how_ == How::together) together.fetch_sub(1);
}

MpiTurn::How MpiTurn::come_in() const {
  if (!turn_) return How::refused;
  together.fetch_add(1);
  // Counted first: either `begin` sees the count, or this sees that it has begun.
  if (!begun.load()) return How::together;
  together.fetch_sub(1);
  return lone().try_lock() ? How::alone : How::refused;
}

}  // namespace pshpc::fabric::mpi
