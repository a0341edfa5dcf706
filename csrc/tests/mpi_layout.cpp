// The memory of a message window, the words in it, and records that become messages again.

#include <cstring>
#include <optional>
#include <set>
#include <vector>

#include "fabric/mpi/api.h"
#include "fabric/mpi/lane.h"
#include "fabric/mpi/layout.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::fabric;
using namespace pshpc::fabric::mpi;

namespace {

class NoChannel final : public Channel {
 public:
  std::uint64_t token() const override { return 0; }
  bool one_sided() const override { return false; }
  bool alive() const override { return true; }
  std::string describe() const override { return ""; }
  void send(Message, Operation*) override {}
  Expected<std::shared_ptr<RemoteRegion>> import(ConstSpan) override {
    return Status(Code::unavailable, "none");
  }
  void read(const RemoteRegion&, std::uint64_t, Span, Operation*) override {}
  void write(const RemoteRegion&, std::uint64_t, ConstSpan, Operation*) override {}
  void close() override {}
};

struct Noted {
  Bytes header, payload;
  Code code;
};

class Notes final : public Receiver {
 public:
  Span destination(const std::shared_ptr<Channel>&, ConstSpan, std::size_t size) override {
    if (refuse) return {};
    landing = Bytes(size);
    return landing;
  }
  void arrived(const std::shared_ptr<Channel>&, ConstSpan header, Span payload,
               Status status) override {
    all.push_back({header.copy(), ConstSpan(payload).copy(), status.code()});
  }
  void lost(const std::shared_ptr<Channel>&, Status) override { ++losses; }

  bool refuse = false;
  Bytes landing;
  std::vector<Noted> all;
  int losses = 0;
};

Outgoing message(const Bytes& header, Payload payload) {
  Outgoing out;
  out.header = header;
  out.payload_size = payload.size();
  out.payload = PayloadCursor(std::move(payload));
  return out;
}

// The records of all that waits to be sent, as they would lie in slots.
std::vector<Bytes> records(Lane& lane, std::size_t slot_size) {
  std::vector<Bytes> all;
  while (!lane.outgoing.empty()) {
    Bytes slot(slot_size);
    std::optional<Outgoing> finished;
    slot.resize(lane.write_record(slot, &finished));
    all.push_back(std::move(slot));
  }
  return all;
}

bool deliver(Lane& lane, Notes& notes, const Bytes& record) {
  RecordHead head;
  std::memcpy(&head, record.data(), sizeof head);
  return lane.deliver(&notes, head, record);
}

struct Pair {
  Lane sender{1, true, 5, 7}, receiver{0, true, 7, 5};
  std::shared_ptr<Channel> channel = std::make_shared<NoChannel>();
  Notes notes;
  Pair() { receiver.channel = channel; }
};

}  // namespace

TEST(the_parts_of_a_message_window_do_not_overlap) {
  CHECK(kTailAt + kWord <= kHeadAt);
  CHECK(kHeadAt + kWord <= kRingAt);
  CHECK(ring_at(kRing - 1) + kWord <= ack_at(0));
  CHECK(ack_at(kSlots - 1) + kWord <= slot_at(0));
  for (unsigned slot = 0; slot + 1 < kSlots; ++slot)
    CHECK_EQ(slot_at(slot) + slot_size(slot), slot_at(slot + 1));
  CHECK_EQ(slot_at(kSlots - 1) + slot_size(kSlots - 1), kWindowSize);
  CHECK_EQ(ring_at(kRing + 3), ring_at(3));
}

TEST(a_notice_is_a_word_that_is_never_zero) {
  std::set<std::uint64_t> seen;
  for (std::uint32_t rank : {0u, 1u, 9999u, (1u << 24) - 3})
    for (unsigned slot : {0u, kSmallSlots, kSlots - 1})
      for (std::uint32_t size : {0u, 24u, 262144u}) {
        const std::uint64_t word = Notice{rank, slot, size}.encode();
        CHECK(word != 0);
        CHECK(seen.insert(word).second);
        const Notice back = Notice::decode(word);
        CHECK_EQ(back.rank, rank);
        CHECK_EQ(back.slot, slot);
        CHECK_EQ(back.size, size);
      }
  CHECK((Notice{3, 0, 24}).plausible(4, 24));
  CHECK(!(Notice{4, 0, 24}).plausible(4, 24));
  CHECK(!(Notice{3, kSlots, 24}).plausible(4, 24));
  CHECK(!(Notice{3, 0, 23}).plausible(4, 24));
  CHECK(!(Notice{3, 0, kSmallSlot + 1}).plausible(4, 24));
}

TEST(records_become_messages_in_whatever_order_they_come) {
  Pair pair;
  const Bytes whole = test::Random(1).bytes(10'000);
  Payload payload(ConstSpan(whole).slice(0, 10));
  payload.append(ConstSpan(whole).slice(10, 7000));
  payload.append(ConstSpan(whole).from(7010));
  pair.sender.outgoing.push_back(message({1, 2, 3}, {}));
  pair.sender.outgoing.push_back(message({4}, payload));
  pair.sender.outgoing.push_back(message({5, 6}, {}));
  std::vector<Bytes> sent = records(pair.sender, 1024);
  CHECK(sent.size() > 10);
  for (std::size_t i = sent.size(); i-- > 0;) CHECK(deliver(pair.receiver, pair.notes, sent[i]));
  REQUIRE(pair.notes.all.size() == 3);
  CHECK(pair.notes.all[0].header == Bytes({1, 2, 3}));
  CHECK(pair.notes.all[1].header == Bytes({4}));
  CHECK(pair.notes.all[1].payload == whole);
  CHECK(pair.notes.all[2].header == Bytes({5, 6}));
}

TEST(a_payload_that_is_refused_is_passed_over) {
  Pair pair;
  const Bytes whole(5000);
  pair.notes.refuse = true;
  pair.sender.outgoing.push_back(message({1}, ConstSpan(whole)));
  pair.sender.outgoing.push_back(message({2}, {}));
  for (const Bytes& record : records(pair.sender, 1024)) deliver(pair.receiver, pair.notes, record);
  REQUIRE(pair.notes.all.size() == 2);
  CHECK_EQ(pair.notes.all[0].code, Code::invalid);
  CHECK_EQ(pair.notes.all[1].code, Code::ok);
}

TEST(a_farewell_ends_what_was_arriving) {
  Pair pair;
  const Bytes whole(5000);
  pair.sender.outgoing.push_back(message({1}, ConstSpan(whole)));
  Bytes slot(1024);
  std::optional<Outgoing> finished;
  pair.sender.write_record(slot, &finished);
  CHECK(!finished);
  CHECK(deliver(pair.receiver, pair.notes, slot));
  RecordHead bye;
  bye.sequence = 1;
  bye.kind = RecordKind::farewell;
  Bytes record(sizeof bye);
  std::memcpy(record.data(), &bye, sizeof bye);
  CHECK(!deliver(pair.receiver, pair.notes, record));
  REQUIRE(pair.notes.all.size() == 1);
  CHECK_EQ(pair.notes.all[0].code, Code::peer_lost);
  CHECK_EQ(pair.notes.losses, 1);
  CHECK(!pair.receiver.alive);
}

TEST(records_that_cannot_be_meant_end_the_connection) {
  for (const RecordKind kind : {RecordKind::piece, static_cast<RecordKind>(99)}) {
    Pair pair;
    RecordHead head;
    head.kind = kind;
    head.header_size = 500;
    Bytes record(sizeof head + 8);
    std::memcpy(record.data(), &head, sizeof head);
    CHECK(!deliver(pair.receiver, pair.notes, record));
    CHECK_EQ(pair.notes.losses, 1);
  }
}

TEST(a_library_that_is_no_mpi_is_refused) {
  auto none = Api::load("libnothing.so.7", {});
  CHECK_EQ(none.status().code(), Code::unavailable);
  auto libc = Api::load("libc.so.6", {});
  CHECK_EQ(libc.status().code(), Code::unavailable);
  CHECK(libc.status().message().find("neither Open MPI nor MPICH") != std::string::npos);
}
