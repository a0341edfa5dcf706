// Owners whose keys say that something else than the doors leads to them.

#include "fabric/socket/socket.h"
#include "tests/objects_instance.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

TEST(outside_ways_are_told_from_the_end) {
  auto owner = open_instance();
  REQUIRE(owner->owner()->set_outside(Bytes(8)).ok());
  const Key near = store(*owner, Bytes(10));
  Key far = near;
  far.owner.id = random_tag();
  auto reader = open_instance();
  const auto code = [](Instance& asker, const Key& key) {
    return code_of(asker.reader().get(key, {}, in_time()));
  };
  CHECK_EQ(code(*reader, far), Code::unreached);
  CHECK_EQ(code(*reader, far), Code::unreached);
  CHECK_EQ(reader->reader().exists({far}, in_time()).front().code(), Code::unreached);
  CHECK_EQ(code(*open_instance({"shm"}), far), Code::owner_gone);
  CHECK_EQ(code(*open_instance({"tcp"}), near), Code::unavailable);
  Key bare = far;
  bare.outside.clear();
  CHECK_EQ(code(*reader, bare), Code::owner_gone);
  // Of an owner that was reached the end is told.
  CHECK_EQ(code(*reader, near), Code::ok);
  owner.reset();
  CHECK_EQ(reader->reader().exists({near}, in_time()).front().code(), Code::owner_gone);
}

TEST(outside_ways_bound_the_first_contact) {
  auto silent = fabric::listen_tcp("127.0.0.1", 0);
  REQUIRE(silent.ok());
  Key key;
  key.owner.id = random_tag();
  key.owner.host = "127.0.0.1";
  key.owner.port = fabric::local_port(silent.value().get()).value();
  key.outside = Bytes(8);
  auto reader = open_instance();
  // Somebody in a hurry learns nothing of the owner.
  const auto hasty = reader->reader().exists({key}, Deadline::after(20 * kMillisecond));
  CHECK_EQ(hasty.front().code(), Code::timed_out);
  const Nanoseconds begin = now();
  CHECK_EQ(reader->reader().exists({key}, in_time()).front().code(), Code::unavailable);
  const Nanoseconds noticed = now();
  CHECK(noticed - begin > 500 * kMillisecond);
  CHECK(noticed - begin < 10 * kSecond);
  for (int i = 0; i < 100; ++i)
    CHECK_EQ(reader->reader().exists({key}, in_time()).front().code(), Code::unavailable);
  CHECK(now() - noticed < 10 * kSecond);
}
