// An instance tells a keeper what it has, and another one takes its place.

#include <sys/socket.h>

#include <map>
#include <thread>

#include "base/wire.h"
#include "fabric/socket/frame.h"
#include "fabric/socket/socket.h"
#include "tests/eventually.h"
#include "tests/objects_instance.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

// The other end of a handover.
class Heir {
 public:
  // For the options of an instance.
  std::shared_ptr<Handover> line() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    mine_ = Fd(ends[0]);
    return std::make_shared<Handover>(Fd(ends[1]));
  }

  // What has arrived by the end of the connection, or by now.
  Estate estate() {
    for (;;) {
      std::vector<Fd> fds;
      auto got = fabric::receive_some(mine_.get(), parser_.room(), fds);
      if (!got || got.value() == 0) break;
      REQUIRE(parser_.commit(got.value(), std::move(fds)).ok());
    }
    Estate estate;
    std::map<std::uint64_t, std::vector<Fd>> tables;
    while (parser_.has_frame()) {
      fabric::Frame frame = parser_.take();
      WireReader in(frame.body);
      switch (static_cast<HandoverKind>(frame.kind)) {
        case HandoverKind::identity: {
          auto identity = Identity::parse(frame.body);
          REQUIRE(identity.ok() && frame.fds.size() >= 3);
          estate.identity = std::move(identity).value();
          estate.table = std::move(frame.fds[0]);
          estate.claims = std::move(frame.fds[1]);
          for (std::size_t i = 2; i < frame.fds.size(); ++i)
            estate.listeners.push_back(std::move(frame.fds[i]));
          break;
        }
        case HandoverKind::segment:
          estate.segments.push_back({in.get<std::uint32_t>(), std::move(frame.fds.at(0))});
          break;
        case HandoverKind::pin_table:
          tables[in.get<std::uint64_t>()].push_back(std::move(frame.fds.at(0)));
          break;
        case HandoverKind::left: tables.erase(in.get<std::uint64_t>()); break;
        case HandoverKind::config:
          estate.config.assign(frame.body.begin(), frame.body.end());
          break;
        case HandoverKind::outside: estate.outside = frame.body; break;
      }
    }
    for (auto& [connection, fds] : tables)
      for (Fd& fd : fds) estate.pin_tables.push_back(std::move(fd));
    return estate;
  }
  void leave() { mine_.reset(); }

 private:
  Fd mine_;
  fabric::FrameParser parser_;
};

InstanceOptions options_with(Heir& heir) {
  InstanceOptions options = small_options();
  options.rings = true;
  options.handover = heir.line();
  return options;
}

}  // namespace

TEST(handover_goes_on_for_readers) {
  Heir heir;
  auto owner = open_with(options_with(heir));
  owner->set_config("{\"name\": \"test\"}");
  REQUIRE(owner->set_outside(Bytes{1, 2, 3}).ok());
  InstanceOptions with_rings = small_options({"shm"});
  with_rings.rings = true;
  auto reader = open_with(with_rings);
  auto gone = open_instance({"shm"});
  const Bytes large = patterned(3 << 20), small = patterned(100);
  const Key first = store(*owner, large), second = store(*owner, small);
  auto view = reader->reader().get(first, {}, in_time());
  REQUIRE(holds(view, large));
  REQUIRE(holds(gone->reader().get(second, {}, in_time()), small));
  gone->close();
  REQUIRE(eventually([&] { return owner->owner()->stats().readers == 1; }));
  owner->close();

  Estate estate = heir.estate();
  CHECK_EQ(estate.config, std::string("{\"name\": \"test\"}"));
  CHECK_EQ(estate.segments.size(), 1u);
  CHECK_EQ(estate.pin_tables.size(), 1u);
  CHECK(estate.identity.self.id == first.owner.id);
  // Who comes meanwhile waits.
  std::thread early([&] { CHECK(holds(reader->reader().get(second, {}, in_time()), small)); });
  InstanceOptions options;
  options.pool = small_options().pool;
  auto adopted = Instance::adopt(std::move(estate), options);
  if (!adopted.ok()) note_failure(__FILE__, __LINE__, adopted.status().message());
  REQUIRE(adopted.ok());
  REQUIRE(adopted.value()->resume().ok());
  early.join();
  CHECK(holds(reader->reader().get(first, {}, in_time()), large));
  auto located = reader->reader().locate(first, in_time());
  REQUIRE(located.ok());
  CHECK(located->outside == Bytes({1, 2, 3}));
  CHECK(reader->reader().evict({first}, false, in_time()).front().ok());
  CHECK_EQ(reader->reader().exists({first}, in_time()).front().code(), Code::evicted);
  CHECK_EQ(adopted.value()->owner()->stats().objects, 1u);
  adopted.value()->owner()->tend();
  CHECK(holds(view, large));
  view = Status(Code::closed, "");
  CHECK(eventually([&] {
    adopted.value()->owner()->tend();
    return adopted.value()->owner()->stats().arena.used < large.size();
  }));
  auto through_socket = open_instance({"socket"});
  CHECK(holds(through_socket->reader().get(second, {}, in_time()), small));
  const std::vector<Part> parts{{0, small}};
  CHECK_EQ(reader->reader().put_to(first.owner, small.size(), parts, {}, in_time()).status().code(),
           Code::owner_gone);
}

TEST(handover_knows_who_is_looking) {
  Heir heir;
  auto owner = open_with(options_with(heir));
  auto reader = open_instance({"shm"});
  auto gone = open_instance({"shm"});
  const Bytes bytes = patterned(1000);
  const Key key = store(*owner, bytes);
  REQUIRE(holds(reader->reader().get(key, {}, in_time()), bytes));
  REQUIRE(holds(gone->reader().get(key, {}, in_time()), bytes));
  gone->close();
  REQUIRE(eventually([&] { return owner->owner()->stats().readers == 1; }));
  // As if it were killed: it has said no more than this.
  CHECK_EQ(heir.estate().pin_tables.size(), 1u);
}

TEST(handover_to_nobody_ends_with_a_warning) {
  Heir heir;
  auto owner = open_with(options_with(heir));
  heir.leave();
  const Bytes bytes = patterned(1000);
  const Key key = store(*owner, bytes);
  auto reader = open_instance({"shm"});
  CHECK(holds(reader->reader().get(key, {}, in_time()), bytes));
  owner->close();
  CHECK_EQ(reader->reader().exists({key}, in_time()).front().code(), Code::owner_gone);
}

TEST(handover_may_be_declined_at_the_end) {
  Heir heir;
  auto owner = open_with(options_with(heir));
  static_cast<void>(store(*owner, patterned(1000)));
  owner->close(true);
  auto adopted = Instance::adopt(heir.estate(), {});
  REQUIRE(adopted.ok());
  CHECK_EQ(adopted.value()->owner()->stats().objects, 0u);
}

TEST(handover_tells_versions_apart) {
  Bytes other = Identity{}.encode();
  other[0] ^= 1;
  CHECK_EQ(Identity::parse(other).status().code(), Code::protocol);
  other[0] ^= 1;
  CHECK(Identity::parse(other).ok());
  other.pop_back();
  CHECK_EQ(Identity::parse(other).status().code(), Code::protocol);
}
