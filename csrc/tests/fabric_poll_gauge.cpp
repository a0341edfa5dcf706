// Which polls pass for busy, on machines of all speeds.

#include "fabric/poll_gauge.h"
#include "tests/check.h"

using namespace pshpc;
using pshpc::fabric::PollGauge;

namespace {

unsigned busy_polls(PollGauge& gauge, Nanoseconds took, unsigned count) {
  unsigned busy = 0;
  for (unsigned i = 0; i < count; ++i) busy += gauge.busy(took) ? 1 : 0;
  return busy;
}

}  // namespace

TEST(idle_polls_never_pass_for_busy_however_slow_they_are) {
  for (const Nanoseconds idle : {100, 1'000, 5'000, 50'000}) {
    PollGauge gauge(2 * kMicrosecond);
    CHECK(busy_polls(gauge, idle, 10'000) == 0);
  }
}

TEST(polls_that_take_much_longer_are_busy_for_the_length_of_a_transfer) {
  PollGauge gauge(2 * kMicrosecond);
  CHECK(busy_polls(gauge, 300, 100) == 0);
  CHECK(busy_polls(gauge, 5'000, 1'000) == 1'000);
}

TEST(short_polls_are_not_busy_however_quick_the_others_were) {
  PollGauge gauge(2 * kMicrosecond);
  CHECK(busy_polls(gauge, 50, 100) == 0);
  CHECK(busy_polls(gauge, 1'500, 100) == 0);
}

TEST(a_freak_of_quickness_is_forgotten) {
  PollGauge gauge(2 * kMicrosecond);
  CHECK(busy_polls(gauge, 3'000, 1'000) == 0);
  CHECK(busy_polls(gauge, 50, 3) == 0);
  CHECK(busy_polls(gauge, 3'000, 10'000) == 0);
}

TEST(polls_that_have_become_slower_become_the_usual) {
  PollGauge gauge(2 * kMicrosecond);
  CHECK(busy_polls(gauge, 500, 1'000) == 0);
  busy_polls(gauge, 4'000, 5'000);
  CHECK(busy_polls(gauge, 4'000, 1'000) == 0);
  CHECK(busy_polls(gauge, 20'000, 1) == 1);
}

TEST(after_a_transfer_idle_polls_are_idle) {
  PollGauge gauge(2 * kMicrosecond);
  busy_polls(gauge, 300, 100);
  busy_polls(gauge, 5'000, 3'000);
  CHECK(busy_polls(gauge, 300, 50) == 0);
  CHECK(busy_polls(gauge, 5'000, 10) == 10);
}
