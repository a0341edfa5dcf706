#include "fabric/mpi/neighbour.h"

#include <algorithm>

namespace pshpc::fabric::mpi {
namespace {

// A thread that was rung for sleeps again after that.
constexpr Nanoseconds kAwake = 2 * kMillisecond;
// How long a transfer to a rank that is in MPI takes at most, beside its bytes at 2 GB/s.
constexpr Nanoseconds kPatience = 20 * kMicrosecond;
constexpr std::size_t kBytesPerNanosecond = 2;
// Some MPI does not come back from the call before the rank answers, so that no bell could follow:
// such trials become the rarer the longer they take, for this for each transfer.
constexpr Nanoseconds kTrialWorth = kMicrosecond;

}  // namespace

bool Neighbour::begin(std::size_t size, Nanoseconds time) {
  if (attentive_ || until_trial_ == 0)
    patient_until_ = time + kPatience + static_cast<Nanoseconds>(size / kBytesPerNanosecond);
  else
    --until_trial_;
  if (moving_++ > 0) return false;
  began_ = time;
  return true;
}

bool Neighbour::end(Nanoseconds time) {
  answered();
  if (--moving_ > 0) return false;
  const bool patient = patient_until_ > began_;
  const bool held = rung_ < patient_until_ && time - patient_until_ > kAwake;
  if (patient && (rung_ >= patient_until_ || held)) {
    attentive_ = false;
    until_trial_ = trial_pause_ = std::min(2 * trial_pause_, kLastTrial);
    if (held) until_trial_ += static_cast<unsigned>((time - patient_until_) / kTrialWorth);
  } else if (patient && !attentive_ && began_ - rung_ > kAwake) {
    attentive_ = true;
    trial_pause_ = std::max(trial_pause_ / 2, kFirstTrial);
  }
  return true;
}

void Neighbour::rang(Nanoseconds time, Nanoseconds longest) {
  rung_ = time;
  pause_ = std::min(std::max(pause_ * 5 / 4, kBellLasts), longest);
}

}  // namespace pshpc::fabric::mpi
