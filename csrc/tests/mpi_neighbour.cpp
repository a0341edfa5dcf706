// When a rank is rung for, with time as the test tells it.

#include "fabric/mpi/neighbour.h"
#include "tests/check.h"

using namespace pshpc;
using pshpc::fabric::mpi::Neighbour;

namespace {

// Transfers to a rank that answers by itself, or else once it was rung for.
struct World {
  Neighbour rank{1};
  Nanoseconds time = kSecond;
  unsigned bells = 0;
  Nanoseconds last = 0;

  void ring_if_needed() {
    if (!rank.needs_bell(time) || !rank.may_ring(time)) return;
    rank.rang(time, 100 * kMillisecond);
    last = time;
    ++bells;
  }
  void transfer(bool answers, std::size_t size = 8, Nanoseconds takes = 5 * kMicrosecond) {
    const unsigned before = bells;
    const bool awake = rung_lately();
    CHECK(rank.begin(size, time));
    ring_if_needed();
    for (Nanoseconds begun = time; time - begun < takes || !(answers || awake || bells > before);) {
      time += kMicrosecond;
      ring_if_needed();
      CHECK(time - begun < kSecond);
    }
    CHECK(rank.end(time));
  }
  void transfers(unsigned count, bool answers, Nanoseconds apart) {
    for (unsigned i = 0; i < count; ++i) {
      transfer(answers);
      time += apart;
    }
  }
  bool rung_lately() const { return bells > 0 && time - last < kMillisecond; }
};

}  // namespace

TEST(a_rank_that_waits_in_mpi_is_left_alone_after_some_transfers) {
  World world;
  world.transfer(true);
  CHECK(world.bells == 1);  // nothing is known of it
  world.transfers(40, true, 5 * kMillisecond);
  CHECK(world.rank.attentive());
  const unsigned learnt = world.bells;
  world.transfers(1000, true, 5 * kMillisecond);
  CHECK(world.bells == learnt);
}

TEST(also_if_they_come_in_close_succession) {
  World world;
  world.transfers(2000, true, 2 * kMicrosecond);
  CHECK(world.rank.attentive());
  const unsigned learnt = world.bells;
  world.transfers(1000, true, 2 * kMicrosecond);
  CHECK(world.bells == learnt);
}

TEST(a_rank_that_computes_is_rung_for_at_once_but_for_trials) {
  World world;
  unsigned late = 0;
  const unsigned count = 1000;
  for (unsigned i = 0; i < count; ++i) {
    const Nanoseconds began = world.time;
    world.transfer(false);
    if (world.time - began > 10 * kMicrosecond) ++late;
    world.time += 5 * kMillisecond;
  }
  CHECK(!world.rank.attentive());
  CHECK(world.bells == count);
  CHECK(late > 0);  // it is tried again now and then
  CHECK(late < count / 40);
}

TEST(a_rank_that_turns_to_computing_costs_one_wait) {
  World world;
  world.transfers(100, true, 5 * kMillisecond);
  CHECK(world.rank.attentive());
  const Nanoseconds began = world.time;
  world.transfer(false);
  CHECK(world.time - began < 50 * kMicrosecond);
  CHECK(!world.rank.attentive());
}

TEST(a_rank_that_holds_up_the_call_is_not_taken_for_one_that_answers) {
  World world;
  unsigned held = 0;
  const unsigned count = 10000;
  for (unsigned i = 0; i < count; ++i) {
    CHECK(world.rank.begin(8, world.time));
    const unsigned before = world.bells;
    world.ring_if_needed();
    // The call comes back once the rank looks by itself, unless it was rung for.
    const bool rung = world.bells > before || world.rung_lately();
    world.time += rung ? 40 * kMicrosecond : 100 * kMillisecond;
    if (!rung) ++held;
    CHECK(world.rank.end(world.time));
    world.time += 5 * kMillisecond;
  }
  CHECK(!world.rank.attentive());
  CHECK(held == 1);
}

TEST(large_transfers_are_given_the_time_that_their_bytes_take) {
  World world;
  const std::size_t size = 64u << 20;
  for (unsigned i = 0; i < 100; ++i) {
    world.transfer(true, size, 10 * kMillisecond);
    world.time += 5 * kMillisecond;
  }
  CHECK(world.rank.attentive());
  const unsigned learnt = world.bells;
  world.transfer(true, size, 10 * kMillisecond);
  CHECK(world.bells == learnt);
}

TEST(who_does_not_answer_is_rung_for_less_and_less_often) {
  Neighbour rank(1);
  Nanoseconds time = kSecond, last = time, pause = 0;
  CHECK(rank.begin(8, time));
  unsigned bells = 0;
  for (; time < 3 * kSecond; time += kMicrosecond) {
    if (!rank.may_ring(time)) continue;
    CHECK(bells < 2 || time - last >= pause);
    pause = time - last;
    last = time;
    rank.rang(time, 100 * kMillisecond);
    ++bells;
  }
  CHECK(bells > 20);
  CHECK(pause >= 100 * kMillisecond);
  CHECK(rank.end(time));
  CHECK(rank.may_ring(last + kMillisecond));  // it has answered
}
