#pragma once
// A rank that is reached for, and whether it must be rung for: who waits in MPI answers at once,
// and its thread had better sleep on, as it would only want the processor. Nothing in MPI tells so,
// hence trials.

#include <cstddef>

#include "base/clock.h"

namespace pshpc::fabric::mpi {

class Neighbour {
 public:
  explicit Neighbour(int rank) : rank_(rank) {}
  int rank() const { return rank_; }

  // A transfer is under way; true for the first.
  bool begin(std::size_t size, Nanoseconds time);
  // One less; true for the last.
  bool end(Nanoseconds time);
  // For the sake of transfers. False while they may well end without a bell.
  bool needs_bell(Nanoseconds time) const { return time >= patient_until_; }

  // Not again so soon: who does not answer is rung for less and less often, after `longest` at
  // last.
  bool may_ring(Nanoseconds time) const { return time - rung_ >= pause_; }
  void rang(Nanoseconds time, Nanoseconds longest);
  // It is awake.
  void answered() { pause_ = kBellLasts; }

  bool attentive() const { return attentive_; }

 private:
  static constexpr Nanoseconds kBellLasts = 400 * kMicrosecond;
  static constexpr unsigned kFirstTrial = 16, kLastTrial = 64;

  int rank_;
  unsigned moving_ = 0;    // transfers under way
  Nanoseconds began_ = 0;  // when the first of them did
  Nanoseconds rung_ = 0;
  Nanoseconds pause_ = 0;
  Nanoseconds patient_until_ = 0;
  bool attentive_ = false;  // transfers end without a bell
  // Transfers between two trials whether they do, and before the next.
  unsigned trial_pause_ = kFirstTrial, until_trial_ = kFirstTrial;
};

}  // namespace pshpc::fabric::mpi
