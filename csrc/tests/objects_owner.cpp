#include "tests/objects_owner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <limits>
#include <thread>

#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

TEST(owner_put_and_find) {
  auto owner = new_owner();
  const Bytes bytes{1, 2, 3, 4};
  const Key key = must_put(*owner, bytes);
  CHECK_EQ(key.length, 4u);
  CHECK(seen_through(*owner, key) == bytes);
  CHECK_EQ(state_of(*owner, key), Code::ok);
  auto located = owner->locate(key.object_id, key.capability);
  REQUIRE(located.ok());
  CHECK(located->encode() == key.encode());
  CHECK_EQ(owner->stats().objects, 1u);
}

TEST(owner_parts_go_where_they_belong) {
  auto owner = new_owner();
  const Bytes head{1}, tail{9, 9};
  auto key = owner->put(200'000, {{0, head}, {199'998, tail}}, {});
  REQUIRE(key.ok());
  const Bytes seen = seen_through(*owner, key.value());
  CHECK_EQ(seen.front(), 1);
  CHECK_EQ(seen[199'998], 9);
  CHECK_EQ(owner->put(10, {{9, tail}}, {}).status().code(), Code::invalid);
  CHECK_EQ(owner->put(10, {{~0ull, tail}}, {}).status().code(), Code::invalid);
  CHECK_EQ(owner->put(~0ull, {}, {}).status().code(), Code::invalid);
  CHECK_EQ(owner->put(~0ull - 63, {}, {}).status().code(), Code::invalid);
  CHECK_EQ(owner->put_now(~0ull, {}, {}).status().code(), Code::invalid);
  CHECK(put(*owner, {}).ok());
}

TEST(owner_keys_carry_what_is_outside) {
  auto owner = new_owner();
  const Key before = must_put(*owner, Bytes(10));
  const Bytes outside{1, 2, 3};
  CHECK(owner->set_outside(outside).ok());
  CHECK(before.outside.empty());
  CHECK(must_put(*owner, Bytes(10)).outside == outside);
  CHECK(owner->new_key().outside == outside);
  CHECK(owner->locate(before.object_id, before.capability)->outside == outside);
  Bytes memory(100);
  CHECK(owner->publish_live({}, 0, memory, 1, 0)->outside == outside);
  CHECK_EQ(owner->set_outside(Bytes(Key::kMaxOutside + 1)).code(), Code::invalid);
  CHECK(owner->set_outside(Bytes(Key::kMaxOutside)).ok());
  const Key longest = owner->new_key();
  CHECK(Key::parse(longest.encode())->outside == longest.outside);
}

TEST(owner_put_now_waits_for_nothing) {
  auto owner = new_owner(1 << 20);
  const Bytes bytes(1000);
  // Nothing is mapped yet, so the memory would have to grow.
  CHECK_EQ(owner->put_now(1000, {{0, bytes}}, {}).status().code(), Code::unavailable);
  must_put(*owner, bytes);
  CHECK(owner->put_now(1000, {{0, bytes}}, {}).ok());
  CHECK_EQ(owner->put_now(1 << 20, {}, {}).status().code(), Code::unavailable);
}

TEST(owner_four_ways_of_not_being_there) {
  auto owner = new_owner();
  const Key key = must_put(*owner, Bytes(10));
  CHECK(evict(*owner, key).ok());
  CHECK(evict(*owner, key).ok());
  CHECK_EQ(state_of(*owner, key), Code::evicted);
  CHECK(seen_through(*owner, key).empty());
  CHECK_EQ(owner->check(999, owner->capability(999)).code(), Code::not_found);
  const Key deferred = owner->new_key();
  CHECK_EQ(state_of(*owner, deferred), Code::not_found);
  Key forged = must_put(*owner, Bytes(10));
  forged.capability[3] ^= 1;
  CHECK_EQ(state_of(*owner, forged), Code::denied);
  CHECK_EQ(owner->locate(forged.object_id, forged.capability).status().code(), Code::denied);
  CHECK_EQ(owner->pin(forged.object_id, forged.capability).status().code(), Code::denied);
  CHECK_EQ(evict(*owner, forged, true).code(), Code::denied);
  const auto other = new_owner();
  const Key foreign = must_put(*other, Bytes(10));
  CHECK_EQ(state_of(*owner, foreign), Code::denied);
}

TEST(owner_pinned_objects_refuse_eviction) {
  auto owner = new_owner();
  const Key key = must_put(*owner, Bytes(10), {0, kPinned});
  CHECK_EQ(evict(*owner, key).code(), Code::pinned);
  CHECK_EQ(state_of(*owner, key), Code::ok);
  CHECK(evict(*owner, key, true).ok());
  CHECK_EQ(state_of(*owner, key), Code::evicted);
}

// Reserving, filling, giving up.

TEST(owner_nobody_sees_an_object_before_it_is_published) {
  auto owner = new_owner();
  auto reservation = owner->reserve(100);
  REQUIRE(reservation.ok());
  const std::uint64_t id = reservation->object_id;
  CHECK_EQ(owner->check(id, owner->capability(id)).code(), Code::not_found);
  CHECK_EQ(owner->pin(id, owner->capability(id)).status().code(), Code::not_found);
  const Bytes bytes(100, 7);
  CHECK(owner->fill(reservation.value(), 0, bytes).ok());
  CHECK_EQ(owner->fill(reservation.value(), 1, bytes).code(), Code::invalid);
  CHECK_EQ(owner->fill(reservation.value(), ~0ull, {}).code(), Code::invalid);
  auto key = owner->publish(id, {});
  REQUIRE(key.ok());
  CHECK(seen_through(*owner, key.value()) == bytes);
  CHECK_EQ(owner->publish(id, {}).status().code(), Code::invalid);
  CHECK_EQ(owner->reserved(id).status().code(), Code::invalid);
  owner->abort(id);
  CHECK_EQ(state_of(*owner, key.value()), Code::ok);
}

TEST(owner_what_is_given_up_is_used_again) {
  auto owner = new_owner(1 << 20);
  for (int i = 0; i < 50; ++i) {
    auto reservation = owner->reserve(600'000);
    REQUIRE(reservation.ok());
    owner->abort(reservation->object_id);
    CHECK_EQ(owner->publish(reservation->object_id, {}).status().code(), Code::invalid);
  }
  CHECK_EQ(owner->stats().objects, 0u);
}

TEST(owner_a_reservation_belongs_to_its_writer) {
  auto owner = new_owner();
  owner->join(5);
  owner->join(6);
  auto theirs = owner->reserve(100, 5);
  auto ours = owner->reserve(100);
  REQUIRE(theirs.ok() && ours.ok());
  CHECK(owner->reserved(theirs->object_id, 5).ok());
  CHECK(!owner->reserved(theirs->object_id, 6).ok());
  CHECK(!owner->reserved(theirs->object_id).ok());
  CHECK(!owner->pin_reserved(ours->object_id, 5).ok());
  owner->abort(ours->object_id, 5);
  CHECK(!owner->publish(ours->object_id, {}, false, 6).ok());
  CHECK(owner->publish(ours->object_id, {}).ok());
  CHECK(owner->publish(theirs->object_id, {}, false, 5).ok());
}

TEST(owner_a_writer_that_leaves_loses_what_it_had_reserved) {
  auto owner = new_owner(1 << 20);
  owner->join(5);
  auto lost = owner->reserve(300'000, 5);
  auto kept = owner->reserve(300'000, 5);
  REQUIRE(lost.ok() && kept.ok());
  auto key = owner->publish(kept->object_id, {}, false, 5);
  REQUIRE(key.ok());
  owner->leave(5);
  owner->leave(5);
  CHECK_EQ(state_of(*owner, key.value()), Code::ok);
  CHECK(!owner->publish(lost->object_id, {}, false, 5).ok());
  CHECK_EQ(owner->stats().objects, 1u);
  CHECK(put(*owner, Bytes(300'000)).ok());
  CHECK(put(*owner, Bytes(300'000)).ok());
  CHECK_EQ(owner->reserve(10, 5).status().code(), Code::closed);
}

// A door may be writing into the block still.
TEST(owner_a_block_under_delivery_is_not_used_again) {
  auto owner = new_owner(1 << 20);
  owner->join(5);
  auto reservation = owner->reserve(600'000, 5);
  REQUIRE(reservation.ok());
  auto pinned = owner->pin_reserved(reservation->object_id, 5);
  REQUIRE(pinned.ok());
  owner->leave(5);
  owner->tend();
  CHECK_EQ(put(*owner, Bytes(600'000)).status().code(), Code::full);
  owner->unpin(pinned->block);
  CHECK(put(*owner, Bytes(600'000)).ok());
}

// Deferred objects.

TEST(owner_a_deferred_object_is_set_once) {
  auto owner = new_owner();
  const Key key = owner->new_key();
  CHECK(key.deferred());
  const Bytes bytes{5};
  auto set = owner->put(1, {{0, bytes}}, {}, key.object_id);
  REQUIRE(set.ok());
  CHECK_EQ(set->object_id, key.object_id);
  CHECK(set->capability == key.capability);
  CHECK(!set->deferred());
  CHECK_EQ(owner->put(1, {{0, bytes}}, {}, key.object_id).status().code(), Code::invalid);
  CHECK_EQ(owner->put(1, {{0, bytes}}, {}, 12345).status().code(), Code::invalid);
  CHECK_EQ(owner->put_now(1, {{0, bytes}}, {}, key.object_id).status().code(), Code::invalid);
}

TEST(owner_two_threads_set_one_deferred_object) {
  auto owner = new_owner();
  for (int round = 0; round < 100; ++round) {
    const Key key = owner->new_key();
    std::atomic<int> set{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&] { set += owner->put(8, {}, {}, key.object_id).ok(); });
    for (auto& thread : threads) thread.join();
    CHECK_EQ(set, 1);
    CHECK(evict(*owner, key).ok());
  }
}

TEST(owner_waiters_are_told_once) {
  auto owner = new_owner();
  struct Told {
    int times = 0;
    Code code = Code::ok;
  };
  const auto wait = [&](const Key& key, Told& told, Waiting waiting = {0, kSecond}) {
    owner->when_published(key.object_id, key.capability, waiting, [&told](const Status& status) {
      ++told.times;
      told.code = status.code();
    });
  };
  Told at_once, later, never, evicted, late, denied, closed;
  wait(must_put(*owner, Bytes(1)), at_once);
  CHECK_EQ(at_once.times, 1);

  const Key first = owner->new_key();
  wait(first, later);
  CHECK_EQ(later.times, 0);
  REQUIRE(owner->put(1, {}, {}, first.object_id).ok());
  CHECK(later.times == 1 && later.code == Code::ok);

  const Key second = owner->new_key();
  wait(second, evicted);
  CHECK(evict(*owner, second).ok());
  CHECK(evicted.times == 1 && evicted.code == Code::evicted);

  const Key third = owner->new_key();
  wait(third, late, {0, 0});
  wait(third, never, {0, kSecond * 100});
  owner->tend();
  CHECK(late.times == 1 && late.code == Code::timed_out);
  CHECK_EQ(never.times, 0);

  Key forged = owner->new_key();
  forged.capability[0] ^= 1;
  wait(forged, denied);
  CHECK(denied.times == 1 && denied.code == Code::denied);

  wait(third, closed);
  owner->close();
  CHECK(closed.times == 1 && closed.code == Code::evicted);
  CHECK_EQ(never.times, 1);
}

// What is kept for a peer's wait goes with the peer, and it cannot make us keep ever more.
TEST(owner_waits_of_a_peer_are_bounded) {
  auto owner = new_owner();
  const Key key = owner->new_key();
  const auto kept = std::make_shared<int>(0);
  const auto ask = [&](std::uint64_t connection, Code* code) {
    owner->when_published(key.object_id, key.capability, {connection, 1000 * kSecond},
                          [kept, code](const Status& status) { *code = status.code(); });
  };
  Code code = Code::ok;
  ask(7, &code);
  CHECK_EQ(kept.use_count(), 1);  // nobody of that number is here
  owner->join(7);
  owner->join(8);
  for (std::size_t i = 0; i < Owner::kMaxWaits; ++i) ask(7, &code);
  CHECK_EQ(code, Code::ok);
  ask(7, &code);
  CHECK_EQ(code, Code::full);
  Code other = Code::ok;
  ask(8, &other);
  owner->leave(7);
  CHECK_EQ(kept.use_count(), 2);
  REQUIRE(owner->put(1, {}, {}, key.object_id).ok());
  CHECK_EQ(kept.use_count(), 1);
  CHECK_EQ(other, Code::ok);
}

TEST(owner_a_deferred_object_whose_writer_fails) {
  auto owner = new_owner();
  const Key key = owner->new_key();
  Code told = Code::not_found;
  owner->when_published(key.object_id, key.capability, {0, kSecond},
                        [&](const Status& status) { told = status.code(); });
  const Bytes bytes(5);
  CHECK(!owner->put(4, {{0, bytes}}, {}, key.object_id).ok());
  // Nothing has happened: another one may set it.
  CHECK_EQ(told, Code::not_found);
  CHECK(owner->put(5, {{0, bytes}}, {}, key.object_id).ok());
  CHECK_EQ(told, Code::ok);
}

TEST(owner_a_deferred_object_whose_writer_leaves) {
  auto owner = new_owner();
  owner->join(1);
  owner->join(2);
  const Key key = owner->new_key();
  Code told = Code::not_found;
  owner->when_published(key.object_id, key.capability, {0, kSecond},
                        [&](const Status& status) { told = status.code(); });
  auto dying = owner->reserve(100, 1, key.object_id);
  auto quick = owner->reserve(200, 2, key.object_id);
  auto slow = owner->reserve(300, 0, key.object_id);
  REQUIRE(dying.ok() && quick.ok() && slow.ok());
  owner->leave(1);
  CHECK_EQ(told, Code::not_found);
  CHECK_EQ(owner->publish(dying->object_id, {}, false, 1).status().code(), Code::invalid);
  auto set = owner->publish(quick->object_id, {}, false, 2);
  REQUIRE(set.ok());
  CHECK_EQ(set->object_id, key.object_id);
  CHECK_EQ(set->length, 200u);
  CHECK_EQ(told, Code::ok);
  CHECK_EQ(owner->publish(slow->object_id, {}).status().code(), Code::invalid);
  CHECK_EQ(owner->stats().objects, 1u);
  CHECK(evict(*owner, key).ok());
  CHECK_EQ(owner->stats().arena.used, 0u);
}

// Time to live.

TEST(owner_time_to_live) {
  auto owner = new_owner();
  const Key mortal = must_put(*owner, Bytes(10), {5 * kMillisecond, 0});
  const Key eternal = must_put(*owner, Bytes(10));
  const Key longest = must_put(*owner, Bytes(10), {std::numeric_limits<Nanoseconds>::max(), 0});
  std::this_thread::sleep_for(std::chrono::milliseconds(6));
  // Gone for everybody from the first look on, also for those who look at the header only.
  CHECK_EQ(state_of(*owner, mortal), Code::evicted);
  CHECK(seen_through(*owner, mortal).empty());
  const Key unseen = must_put(*owner, Bytes(10), {kMillisecond, 0});
  const Key gone = must_put(*owner, Bytes(10), {kMillisecond, 0});
  CHECK(evict(*owner, gone).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  owner->tend();
  CHECK(seen_through(*owner, unseen).empty());
  CHECK_EQ(state_of(*owner, eternal), Code::ok);
  CHECK_EQ(state_of(*owner, longest), Code::ok);
  CHECK_EQ(owner->stats().objects, 2u);
}

// Closing.

TEST(owner_closed) {
  auto owner = new_owner();
  const Key key = must_put(*owner, Bytes{1, 2, 3});
  auto held = owner->pin(key.object_id, key.capability);
  REQUIRE(held.ok());
  auto reservation = owner->reserve(10);
  REQUIRE(reservation.ok());
  owner->close();
  owner->close();
  CHECK_EQ(state_of(*owner, key), Code::evicted);
  CHECK_EQ(put(*owner, Bytes(1)).status().code(), Code::closed);
  CHECK_EQ(owner->publish(reservation->object_id, {}).status().code(), Code::closed);
  owner->abort(reservation->object_id);
  owner->tend();
  // A view stays what it was.
  CHECK_EQ(held->block.data[kHeaderSize + 2], 3);
  owner->unpin(held->block);
}

// TSan's own locks may be held by nobody in the child of a process with busy threads.
#if !defined(__SANITIZE_THREAD__)
TEST(owner_in_a_forked_child_leaves_everything_alone) {
  auto owner = new_owner();
  const Key key = must_put(*owner, Bytes(10));
  auto held = owner->pin(key.object_id, key.capability);
  REQUIRE(held.ok());
  // Somebody is in the middle of it all while the process forks.
  std::atomic<bool> over{false};
  std::thread busy([&] {
    while (!over) {
      owner->tend();
      auto passing = put(*owner, Bytes(100));
      if (passing.ok()) static_cast<void>(evict(*owner, passing.value()));
    }
  });
  for (int i = 0; i < 10; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(10);
      owner->unpin(held->block);
      owner->abort(1);
      const bool refused = evict(*owner, key).code() == Code::forked &&
                           owner->publish(1, {}).status().code() == Code::forked &&
                           owner->begin_writing(1).code() == Code::forked;
      ::_exit(refused ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
  }
  over = true;
  busy.join();
  CHECK_EQ(state_of(*owner, key), Code::ok);
}
#endif

// Live memory.

TEST(owner_live_memory) {
  auto owner = new_owner();
  Bytes live(1000, 4);
  const Bytes prefix{1, 2, 3};
  auto key = owner->publish_live(prefix, 64, live, 77, 128);
  REQUIRE(key.ok());
  CHECK_EQ(key->flags, Key::kLive);
  CHECK_EQ(key->length, 1064u);
  auto located = owner->pin(key->object_id, key->capability);
  REQUIRE(located.ok());
  const ObjectHeader& header = located->header();
  CHECK_EQ(header.live_address, reinterpret_cast<std::uint64_t>(live.data()));
  CHECK_EQ(header.live_offset, 64u);
  CHECK_EQ(header.live_region, 77u);
  CHECK_EQ(header.region_offset, 128u);
  CHECK(located->block.size >= kHeaderSize + 64);
  CHECK_EQ(header.sequence, 0u);

  const std::uint64_t id = key->object_id;
  CHECK(owner->begin_writing(id).ok());
  CHECK_EQ(header.sequence, 1u);
  CHECK_EQ(owner->begin_writing(id).code(), Code::invalid);
  CHECK(owner->end_writing(id).ok());
  CHECK_EQ(header.sequence, 2u);
  CHECK_EQ(owner->end_writing(id).code(), Code::invalid);
  CHECK(owner->sending(key.value()));
  owner->unpin(located->block);
  CHECK(!owner->sending(key.value()));

  CHECK(owner->begin_writing(id).ok());
  CHECK(evict(*owner, key.value()).ok());
  CHECK(owner->end_writing(id).ok());
  CHECK_EQ(owner->begin_writing(id).code(), Code::invalid);
  CHECK_EQ(owner->begin_writing(must_put(*owner, Bytes(1)).object_id).code(), Code::invalid);
  CHECK_EQ(owner->publish_live(prefix, 2, live, 1, 0).status().code(), Code::invalid);
}
