// References: the bookkeeping against a plain model of it, at an owner, and between instances.

#include "objects/claims.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "tests/eventually.h"
#include "tests/objects_instance.h"
#include "tests/objects_owner.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

constexpr ClaimMode kModes[] = {ClaimMode::own, ClaimMode::shared, ClaimMode::exclusive};

ClaimRequest fresh(std::uint64_t claim, ClaimMode mode, Nanoseconds lease = 0) {
  return {claim, mode, true, lease};
}
ClaimRequest taken(std::uint64_t claim, ClaimMode mode) { return {claim, mode, false, 0}; }
ClaimRequest lent(std::uint64_t claim, ClaimMode mode, Nanoseconds lease) {
  return {claim, mode, false, lease};
}

Claims::Party party(std::uint8_t number) {
  Claims::Party made{};
  made[0] = number;
  return made;
}

// The rules in the plainest words: a list that is searched each time.
struct Model {
  struct Claim {
    std::uint64_t object;
    std::uint64_t number;
    ClaimMode mode;
    Claims::Party holder;
    Nanoseconds expires;
  };
  std::vector<Claim> claims;

  std::size_t count(std::uint64_t object, ClaimMode mode) const {
    return static_cast<std::size_t>(
        std::count_if(claims.begin(), claims.end(),
                      [&](const Claim& c) { return c.object == object && c.mode == mode; }));
  }
  bool any(std::uint64_t object) const {
    return std::any_of(claims.begin(), claims.end(),
                       [&](const Claim& c) { return c.object == object; });
  }
  Claim* find(std::uint64_t object, std::uint64_t number) {
    for (Claim& c : claims)
      if (c.object == object && c.number == number) return &c;
    return nullptr;
  }
  Code hold(std::uint64_t object, const ClaimRequest& asked, const Claims::Party& by,
            Nanoseconds time) {
    Claim* known = find(object, asked.claim);
    const Nanoseconds expires = asked.lease > 0 ? time + asked.lease : 0;
    if (!asked.fresh) {
      if (known == nullptr || known->mode != asked.mode) return Code::moved;
      if (known->expires == 0 && (asked.lease == 0 || known->holder != by)) return Code::moved;
      known->holder = by;
      known->expires = expires;
      return Code::ok;
    }
    const std::size_t exclusive = count(object, ClaimMode::exclusive);
    if (asked.mode == ClaimMode::own && count(object, ClaimMode::own) > 0) return Code::borrowed;
    if (asked.mode != ClaimMode::own && exclusive > 0) return Code::borrowed;
    if (asked.mode == ClaimMode::exclusive && count(object, ClaimMode::shared) > 0)
      return Code::borrowed;
    if (known != nullptr) return Code::invalid;
    claims.push_back({object, asked.claim, asked.mode, by, expires});
    return Code::ok;
  }
  // Objects that nobody refers to any more once those claims are gone.
  template <class Which>
  std::vector<std::uint64_t> drop(Which which) {
    std::vector<std::uint64_t> touched;
    for (const Claim& c : claims)
      if (which(c)) touched.push_back(c.object);
    claims.erase(std::remove_if(claims.begin(), claims.end(), which), claims.end());
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    touched.erase(std::remove_if(touched.begin(), touched.end(),
                                 [&](std::uint64_t object) { return any(object); }),
                  touched.end());
    return touched;
  }
};

std::vector<std::uint64_t> sorted(std::vector<std::uint64_t> list) {
  std::sort(list.begin(), list.end());
  return list;
}

}  // namespace

TEST(claims_do_what_the_model_does) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    Claims claims;
    Model model;
    Nanoseconds time = 1;
    for (int step = 0; step < 400; ++step) {
      const std::uint64_t object = 1 + random.below(4);
      const std::uint64_t number = 1 + random.below(8);
      const auto who = party(static_cast<std::uint8_t>(random.below(4)));
      time += static_cast<Nanoseconds>(random.below(3));
      switch (random.below(8)) {
        case 0: {
          const bool last = claims.release(object, number);
          const auto orphans = model.drop(
              [&](const Model::Claim& c) { return c.object == object && c.number == number; });
          CHECK_EQ(last, !orphans.empty());
          break;
        }
        case 1: {
          const auto orphans =
              model.drop([&](const Model::Claim& c) { return c.expires == 0 && c.holder == who; });
          CHECK(sorted(claims.end(who)) == orphans);
          break;
        }
        case 2: {
          const auto orphans = model.drop(
              [&](const Model::Claim& c) { return c.expires != 0 && c.expires <= time; });
          CHECK(sorted(claims.expire(time)) == orphans);
          break;
        }
        case 3:
          if (random.below(4) > 0) break;
          claims.forget(object);
          static_cast<void>(model.drop([&](const Model::Claim& c) { return c.object == object; }));
          break;
        default: {
          const ClaimRequest asked{number, kModes[random.below(3)], random.below(2) == 0,
                                   static_cast<Nanoseconds>(random.below(2) * random.below(20))};
          CHECK_EQ(claims.hold(object, asked, who, time).code(),
                   model.hold(object, asked, who, time));
        }
      }
      CHECK_EQ(claims.size(), model.claims.size());
    }
  }
}

TEST(claims_that_may_write) {
  Claims claims;
  CHECK_EQ(claims.may_write(1, 1).code(), Code::moved);
  REQUIRE(claims.hold(1, fresh(1, ClaimMode::own), {}, 1).ok());
  CHECK(claims.may_write(1, 1).ok());
  CHECK_EQ(claims.may_write(1, 2).code(), Code::moved);
  REQUIRE(claims.hold(1, fresh(2, ClaimMode::shared), {}, 1).ok());
  CHECK_EQ(claims.may_write(1, 1).code(), Code::borrowed);
  CHECK_EQ(claims.may_write(1, 2).code(), Code::borrowed);
  CHECK(!claims.release(1, 2));
  REQUIRE(claims.hold(1, fresh(3, ClaimMode::exclusive), {}, 1).ok());
  CHECK_EQ(claims.may_write(1, 1).code(), Code::borrowed);
  CHECK(claims.may_write(1, 3).ok());
}

TEST(owner_evicts_what_nobody_refers_to) {
  auto owner = new_owner();
  owner->join(7, party(1));
  owner->join(8, party(1));  // the same process: a link that is renewed
  owner->join(9, party(2));
  const Key first = must_put(*owner, Bytes(10));
  const Key second = must_put(*owner, Bytes(10), {0, kPinned});
  const Key never = must_put(*owner, Bytes(10));
  const auto hold = [&](const Key& key, const ClaimRequest& request, std::uint64_t from) {
    return owner->hold(key.object_id, key.capability, request, from).code();
  };
  CHECK_EQ(hold(first, fresh(1, ClaimMode::own), 7), Code::ok);
  CHECK_EQ(hold(first, fresh(2, ClaimMode::shared), 9), Code::ok);
  CHECK_EQ(hold(second, fresh(3, ClaimMode::own), 8), Code::ok);
  CHECK_EQ(hold(first, fresh(4, ClaimMode::shared), 99), Code::closed);
  Key forged = first;
  forged.capability[0] ^= 1;
  CHECK_EQ(hold(forged, fresh(5, ClaimMode::shared), 9), Code::denied);
  CHECK_EQ(owner->release(forged.object_id, forged.capability, 2).code(), Code::denied);
  owner->leave(7);
  CHECK_EQ(state_of(*owner, second), Code::ok);
  owner->leave(8);
  CHECK_EQ(state_of(*owner, second), Code::evicted);
  CHECK_EQ(state_of(*owner, first), Code::ok);
  CHECK(owner->release(first.object_id, first.capability, 2).ok());
  CHECK_EQ(state_of(*owner, first), Code::evicted);
  CHECK(owner->release(first.object_id, first.capability, 2).ok());
  CHECK_EQ(hold(first, fresh(6, ClaimMode::shared), 9), Code::evicted);
  CHECK_EQ(state_of(*owner, never), Code::ok);
  CHECK_EQ(owner->stats().references, 0u);
}

TEST(owner_loans_end_by_themselves) {
  auto owner = new_owner();
  owner->join(1, party(1));
  const Key lost = must_put(*owner, Bytes(10));
  const Key loaded = must_put(*owner, Bytes(10));
  for (const Key& key : {lost, loaded}) {
    CHECK(owner->hold(key.object_id, key.capability, fresh(1, ClaimMode::own)).ok());
    CHECK(
        owner->hold(key.object_id, key.capability, lent(1, ClaimMode::own, 5 * kMillisecond)).ok());
  }
  CHECK(owner->hold(loaded.object_id, loaded.capability, taken(1, ClaimMode::own), 1).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(6));
  // Before the timer came by.
  CHECK_EQ(owner->hold(lost.object_id, lost.capability, taken(1, ClaimMode::own), 1).code(),
           Code::evicted);
  owner->tend();
  CHECK_EQ(state_of(*owner, loaded), Code::ok);
  CHECK_EQ(owner->hold(loaded.object_id, loaded.capability, taken(1, ClaimMode::own), 1).code(),
           Code::moved);
}

TEST(owner_an_object_that_is_updated) {
  auto owner = new_owner();
  const Key key = must_put(*owner, Bytes{1});
  CHECK_EQ(owner->put(2, {}, {}, Into(key.object_id, 1)).status().code(), Code::moved);
  REQUIRE(owner->hold(key.object_id, key.capability, fresh(1, ClaimMode::own)).ok());
  const Bytes bytes{2, 2};
  auto now = owner->put(2, {{0, bytes}}, {}, Into(key.object_id, 1));
  REQUIRE(now.ok());
  CHECK_EQ(now->object_id, key.object_id);
  CHECK(now->generation != key.generation);
  CHECK(seen_through(*owner, now.value()) == bytes);
  CHECK(seen_through(*owner, key).empty());
  CHECK_EQ(owner->validate(key.object_id, key.capability, key.generation).code(), Code::changed);
  CHECK(owner->validate(key.object_id, key.capability, now->generation).ok());
  CHECK_EQ(owner->stats().objects, 1u);
  // A failure leaves what there is.
  CHECK(!owner->put(1, {{0, bytes}}, {}, Into(key.object_id, 1)).ok());
  CHECK(seen_through(*owner, now.value()) == bytes);
  CHECK(owner->release(key.object_id, key.capability, 1).ok());
  CHECK_EQ(owner->validate(key.object_id, key.capability, now->generation).code(), Code::evicted);
  CHECK_EQ(owner->stats().arena.used, 0u);
}

TEST(owner_a_longer_and_a_shorter_life) {
  auto owner = new_owner();
  const Key longer = must_put(*owner, Bytes(1), {5 * kMillisecond, 0});
  const Key shorter = must_put(*owner, Bytes(1));
  const Key endless = must_put(*owner, Bytes(1), {5 * kMillisecond, 0});
  CHECK(owner->extend(longer.object_id, longer.capability, kSecond).ok());
  CHECK(owner->extend(shorter.object_id, shorter.capability, kMillisecond).ok());
  CHECK(owner->extend(endless.object_id, endless.capability, 0).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(6));
  owner->tend();
  CHECK_EQ(state_of(*owner, longer), Code::ok);
  CHECK_EQ(state_of(*owner, shorter), Code::evicted);
  CHECK_EQ(state_of(*owner, endless), Code::ok);
  CHECK_EQ(owner->extend(shorter.object_id, shorter.capability, kSecond).code(), Code::evicted);
}

// Instances that hold, lend, take over and release at the same time: in the end nothing is left.
TEST(claims_stress) {
  auto owner = open_instance();
  constexpr std::size_t kObjects = 64;
  std::vector<Key> keys;
  for (std::size_t i = 0; i < kObjects; ++i) {
    keys.push_back(store(*owner, Bytes(100)));
    REQUIRE(owner->reader().hold(keys.back(), fresh(1, ClaimMode::own), in_time()).ok());
  }
  std::atomic<std::uint64_t> next{2};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      auto mine = open_instance(t == 0 ? std::vector<std::string>{"socket"}
                                       : std::vector<std::string>{"shm"});
      auto other = open_instance({"shm"});
      Random random(t);
      std::vector<std::pair<Key, std::uint64_t>> held;
      for (int step = 0; step < 400; ++step) {
        const Key& key = keys[random.below(kObjects)];
        const std::uint64_t claim = next.fetch_add(1);
        auto& reader = mine->reader();
        if (!reader.hold(key, fresh(claim, ClaimMode::shared), in_time()).ok()) ++wrong;
        if (random.below(2) == 0) {
          if (!reader.hold(key, lent(claim, ClaimMode::shared, kSecond * 20), in_time()).ok())
            ++wrong;
          if (!other->reader().hold(key, taken(claim, ClaimMode::shared), in_time()).ok()) ++wrong;
          if (reader.hold(key, taken(claim, ClaimMode::shared), in_time()).code() != Code::moved)
            ++wrong;
        }
        // Half of them end with their instance.
        if (random.below(2) == 0) reader.release(key, claim);
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0u);
  CHECK(eventually([&] { return owner->owner()->stats().references == kObjects; }));
  CHECK_EQ(owner->owner()->stats().objects, kObjects);
  for (const Key& key : keys) owner->reader().release(key, 1);
  CHECK_EQ(owner->owner()->stats().objects, 0u);
}

TEST(instance_reads_what_was_updated_since_its_key_was_made) {
  for (const char* door : {"shm", "socket"}) {
    auto owner = open_instance();
    auto writer = open_instance({door});
    auto reader = open_instance({door});
    const Key key = store(*owner, patterned(1000));
    REQUIRE(writer->reader().hold(key, fresh(5, ClaimMode::exclusive), in_time()).ok());
    CHECK(holds(reader->reader().get(key, {}, in_time()), patterned(1000)));
    for (std::uint8_t round = 1; round < 5; ++round) {
      const Bytes bytes = patterned(1000u * round, round);
      auto now = writer->reader().put_into(key, 5, bytes.size(), {{0, bytes}}, {}, in_time());
      REQUIRE(now.ok());
      auto seen = reader->reader().get(key, {}, in_time());
      CHECK(holds(seen, bytes));
      CHECK_EQ(seen->generation, now->generation);
      CHECK(reader->reader().validate({key}, {now->generation}, in_time()).front().ok());
      CHECK_EQ(reader->reader().validate({key}, {key.generation}, in_time()).front().code(),
               Code::changed);
    }
    CHECK_EQ(reader->reader().put_into(key, 6, 1, {}, {}, in_time()).status().code(), Code::moved);
  }
}
