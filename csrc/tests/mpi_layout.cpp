// The memory of a message window, the words in it, and records that become messages again.

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <vector>

#include "fabric/mpi/api.h"
#include "fabric/mpi/lane.h"
#include "fabric/mpi/layout.h"
#include "fabric/mpi/stream.h"
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

OutgoingPtr message(const Bytes& header, Payload payload) {
  auto out = std::make_shared<Outgoing>();
  out->header = header;
  out->payload_size = payload.size();
  out->payload = PayloadCursor(std::move(payload));
  return out;
}

// Lends parts of some length, and keeps them as the slots would.
class Parts final : public Lender {
 public:
  explicit Parts(std::size_t longest) : longest_(longest) {}

  std::optional<Part> lend(const OutgoingPtr& message) override {
    if (lent.size() == most) return std::nullopt;
    Bytes bytes(std::min(longest_, message->payload.left()));
    message->payload.read(bytes);
    Part part;
    part.slot = kSmallSlots;
    part.address = lent.size();
    part.size = bytes.size();
    lent.push_back(std::move(bytes));
    return part;
  }

  std::vector<Bytes> lent;
  std::size_t most = 1000;

 private:
  const std::size_t longest_;
};

// The records of all that waits to be sent, as they would lie in slots.
std::vector<Bytes> records(Lane& lane, Lender& lender, std::size_t slot_size) {
  std::vector<Bytes> all;
  while (!lane.outgoing.empty()) {
    Bytes slot(slot_size);
    OutgoingPtr finished;
    slot.resize(lane.write_record(slot, lender, &finished));
    if (slot.empty()) break;
    all.push_back(std::move(slot));
  }
  return all;
}

bool deliver(Lane& lane, Notes& notes, const Bytes& record, std::vector<Fetch>* fetches) {
  RecordHead head;
  std::memcpy(&head, record.data(), sizeof head);
  return lane.deliver(&notes, head, record, fetches);
}

void fetch(const Parts& parts, Notes& notes, const Fetch& fetch, const Status& status = {}) {
  if (status.ok() && !fetch.into.empty())
    copy_bytes(fetch.into.data, parts.lent[static_cast<std::size_t>(fetch.part.address)]);
  Lane::fetched(&notes, fetch, status);
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
  CHECK(ack_at(kAcks - 1) + kWord <= slot_at(0));
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
  for (const std::size_t room : {200u, 1024u, 20'000u}) {
    Pair pair;
    Parts parts(900);
    const Bytes whole = test::Random(1).bytes(10'000);
    Payload payload(ConstSpan(whole).slice(0, 10));
    payload.append(ConstSpan(whole).slice(10, 7000));
    payload.append(ConstSpan(whole).from(7010));
    pair.sender.outgoing.push_back(message({1, 2, 3}, {}));
    pair.sender.outgoing.push_back(message({4}, payload));
    pair.sender.outgoing.push_back(message({5, 6}, {}));
    const std::vector<Bytes> sent = records(pair.sender, parts, room);
    std::vector<Fetch> fetches;
    for (std::size_t i = sent.size(); i-- > 0;)
      CHECK(deliver(pair.receiver, pair.notes, sent[i], &fetches));
    CHECK_EQ(fetches.size(), parts.lent.size());
    CHECK_EQ(fetches.empty(), room > whole.size());
    // The message without a payload did not wait for what came before it.
    CHECK_EQ(pair.notes.all.size(), fetches.empty() ? 3u : 2u);
    for (std::size_t i = fetches.size(); i-- > 0;) fetch(parts, pair.notes, fetches[i]);
    REQUIRE(pair.notes.all.size() == 3);
    CHECK(pair.notes.all.front().header == Bytes({1, 2, 3}));
    const Noted& large = pair.notes.all[fetches.empty() ? 1 : 2];
    CHECK(large.header == Bytes({4}));
    CHECK(large.payload == whole);
  }
}

TEST(a_record_waits_until_something_can_be_lent) {
  Pair pair;
  Parts parts(1000);
  const Bytes whole = test::Random(2).bytes(50'000);
  pair.sender.outgoing.push_back(message({1}, ConstSpan(whole)));
  parts.most = 0;
  CHECK(records(pair.sender, parts, 4096).empty());
  parts.most = 7;
  std::vector<Bytes> sent = records(pair.sender, parts, 4096);
  CHECK_EQ(sent.size(), 1u);
  CHECK(!pair.sender.outgoing.empty());
  parts.most = 1000;
  for (Bytes& record : records(pair.sender, parts, 4096)) sent.push_back(std::move(record));
  std::vector<Fetch> fetches;
  for (const Bytes& record : sent) CHECK(deliver(pair.receiver, pair.notes, record, &fetches));
  for (const Fetch& one : fetches) fetch(parts, pair.notes, one);
  REQUIRE(pair.notes.all.size() == 1);
  CHECK(pair.notes.all[0].payload == whole);
}

TEST(a_payload_that_is_refused_is_passed_over) {
  Pair pair;
  Parts parts(1000);
  const Bytes whole(5000);
  pair.notes.refuse = true;
  pair.sender.outgoing.push_back(message({1}, ConstSpan(whole)));
  pair.sender.outgoing.push_back(message({2}, {}));
  std::vector<Fetch> fetches;
  for (const Bytes& record : records(pair.sender, parts, 1024))
    deliver(pair.receiver, pair.notes, record, &fetches);
  // Its parts are acknowledged all the same.
  CHECK(!fetches.empty());
  for (const Fetch& one : fetches) {
    CHECK(one.into.empty());
    fetch(parts, pair.notes, one);
  }
  REQUIRE(pair.notes.all.size() == 2);
  CHECK_EQ(pair.notes.all[0].code, Code::ok);
  CHECK_EQ(pair.notes.all[1].code, Code::invalid);
}

TEST(a_payload_whose_memory_was_taken_back_has_failed) {
  Pair pair;
  Parts parts(1000);
  const Bytes whole(5000);
  pair.sender.outgoing.push_back(message({1}, ConstSpan(whole)));
  std::vector<Fetch> fetches;
  for (const Bytes& record : records(pair.sender, parts, 1024))
    deliver(pair.receiver, pair.notes, record, &fetches);
  REQUIRE(fetches.size() > 1);
  for (const Fetch& one : fetches) {
    CHECK(pair.notes.all.empty());
    const bool taken = one.part.address == 1;
    fetch(parts, pair.notes, one, taken ? Status(Code::peer_lost, "gone") : Status());
  }
  REQUIRE(pair.notes.all.size() == 1);
  CHECK_EQ(pair.notes.all[0].code, Code::peer_lost);
}

TEST(a_farewell_ends_what_was_arriving_once_nothing_writes_into_it) {
  Pair pair;
  Parts parts(1000);
  const Bytes whole(50'000);
  pair.sender.outgoing.push_back(message({1}, ConstSpan(whole)));
  parts.most = 2;
  std::vector<Fetch> fetches;
  for (const Bytes& record : records(pair.sender, parts, 1024))
    CHECK(deliver(pair.receiver, pair.notes, record, &fetches));
  RecordHead bye;
  bye.sequence = 1;
  bye.kind = RecordKind::farewell;
  Bytes record(sizeof bye);
  std::memcpy(record.data(), &bye, sizeof bye);
  CHECK(!deliver(pair.receiver, pair.notes, record, &fetches));
  CHECK_EQ(pair.notes.losses, 1);
  CHECK(!pair.receiver.alive);
  REQUIRE(fetches.size() == 2);
  CHECK(pair.notes.all.empty());
  fetch(parts, pair.notes, fetches[0]);
  CHECK(pair.notes.all.empty());
  fetch(parts, pair.notes, fetches[1]);
  REQUIRE(pair.notes.all.size() == 1);
  CHECK_EQ(pair.notes.all[0].code, Code::peer_lost);
}

TEST(records_that_cannot_be_meant_end_the_connection) {
  const auto refused = [](const RecordHead& head, const std::vector<Part>& parts) {
    Pair pair;
    Bytes record(sizeof head + parts.size() * sizeof(Part) + 8);
    std::memcpy(record.data(), &head, sizeof head);
    for (std::size_t i = 0; i < parts.size(); ++i)
      std::memcpy(record.data() + sizeof head + i * sizeof(Part), &parts[i], sizeof(Part));
    std::vector<Fetch> fetches;
    return !deliver(pair.receiver, pair.notes, record, &fetches) && pair.notes.losses == 1;
  };
  RecordHead head;
  head.kind = static_cast<RecordKind>(99);
  CHECK(refused(head, {}));
  head.kind = RecordKind::piece;
  CHECK(refused(head, {}));
  head.kind = RecordKind::message;
  head.header_size = 500;
  CHECK(refused(head, {}));
  head.header_size = 0;
  head.payload_size = 1000;
  head.parts = 1;
  CHECK(!refused(head, {Part{0, 100, 0, 0}}));
  CHECK(refused(head, {}));
  CHECK(refused(head, {Part{0, 0, 0, 0}}));
  CHECK(refused(head, {Part{0, 1001, kSlots, 0}}));
  CHECK(refused(head, {Part{0, 100, kAcks, 0}}));
  head.payload_size = std::uint64_t{1} << 20;
  CHECK(refused(head, {Part{0, kSmallSlot + 1, 0, 0}}));
  CHECK(!(Part{0, kLongestPart + 1, kSlots, 0}).plausible());
  CHECK((Part{0, kLongestPart, kSlots, 0}).plausible());
  head.parts = 2;
  head.payload_size = 150;
  CHECK(refused(head, {Part{0, 100, 0, 0}, Part{0, 100, 0, 0}}));
}

TEST(bytes_behind_the_end_of_a_payload_end_the_connection) {
  Pair pair;
  RecordHead head;
  head.payload_size = 4;
  Bytes record(sizeof head + 8);
  std::memcpy(record.data(), &head, sizeof head);
  std::vector<Fetch> fetches;
  CHECK(!deliver(pair.receiver, pair.notes, record, &fetches));
  CHECK_EQ(pair.notes.losses, 1);
}

TEST(tokens_of_streams_say_who_dialled) {
  Tag job{};
  job[0] = 0xff;
  job[3] = 0xff;
  const std::uint64_t first = first_token(job);
  CHECK(first > 0);
  CHECK(!is_dialed(first));
  for (const std::uint32_t rank : {0u, 1u, 9999u, (1u << 24) - 2}) {
    const std::uint64_t token = dialed_token(rank, first + 5);
    CHECK(is_dialed(token));
    CHECK_EQ(dialer_of(token), rank);
    CHECK_EQ(dialers_token(token), first + 5);
  }
  CHECK(dialers_token(dialed_token(1, first)) == first);
}

TEST(a_stream_gives_what_its_user_could_not_take_at_once) {
  Fd user;
  auto made = Stream::create(&user);
  REQUIRE(made.ok());
  Stream& stream = *made.value();
  CHECK(stream.take(100)->empty());
  const Bytes whole = test::Random(3).bytes(3'000'000);
  stream.give(whole);
  stream.end();
  CHECK(!stream.drained());
  Bytes got;
  for (;;) {
    std::uint8_t buffer[65536];
    const ssize_t size = ::recv(user.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (size == 0) break;
    if (size > 0) got.insert(got.end(), buffer, buffer + size);
    stream.flush();
  }
  CHECK(got == whole);
  CHECK(!stream.flush());
  CHECK_EQ(::send(user.get(), "answer", 6, 0), 6);
  CHECK_EQ(stream.take(4)->size(), 4u);
  CHECK_EQ(stream.take(4)->size(), 2u);
  user = Fd();
  CHECK_EQ(stream.take(4).status().code(), Code::peer_lost);
}

TEST(a_library_that_is_no_mpi_is_refused) {
  auto none = Api::load("libnothing.so.7", {});
  CHECK_EQ(none.status().code(), Code::unavailable);
  auto libc = Api::load("libc.so.6", {});
  CHECK_EQ(libc.status().code(), Code::unavailable);
  CHECK(libc.status().message().find("neither Open MPI nor MPICH") != std::string::npos);
}
