#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "fabric/socket/frame.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using namespace pshpc::fabric;
using pshpc::test::Random;

namespace {

Status feed(FrameParser& parser, ConstSpan bytes, std::vector<Fd> fds = {}) {
  while (!bytes.empty()) {
    const Span room = parser.room();
    const std::size_t size = std::min(room.size, bytes.size);
    std::memcpy(room.data, bytes.data, size);
    const Status status = parser.commit(size, std::move(fds));
    if (!status.ok()) return status;
    fds.clear();
    bytes = bytes.from(size);
  }
  return {};
}

Fd some_fd() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

std::vector<Fd> some_fds(std::size_t count) {
  std::vector<Fd> fds;
  for (std::size_t i = 0; i < count; ++i) fds.push_back(some_fd());
  return fds;
}

}  // namespace

TEST(frame_round_trip) {
  FrameParser parser;
  const Bytes body{1, 2, 3};
  CHECK(feed(parser, encode_frame(7, 99, body, 0)).ok());
  REQUIRE(parser.has_frame());
  const Frame frame = parser.take();
  CHECK_EQ(frame.kind, 7);
  CHECK_EQ(frame.id, 99u);
  CHECK(frame.body == body);
  CHECK(!parser.has_frame());
}

// However the stream is cut, the same frames come out, each with its own descriptors.
TEST(frame_arbitrary_splits) {
  Random random(2);
  for (int round = 0; round < 200; ++round) {
    struct Sent {
      Bytes body;
      std::size_t fds;
    };
    std::vector<Sent> sent;
    FrameParser parser;
    std::size_t received = 0;
    const std::size_t count = 1 + random.below(12);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t size = random.below(4) == 0 ? random.below(200'000) : random.below(100);
      sent.push_back({random.bytes(size), random.below(4)});
      const Bytes frame = encode_frame(1, i, sent.back().body, sent.back().fds);
      std::size_t done = 0;
      while (done < frame.size()) {
        const std::size_t piece = 1 + random.below(frame.size() - done);
        // Descriptors come with the first byte of their frame.
        auto fds = done == 0 ? some_fds(sent.back().fds) : std::vector<Fd>{};
        REQUIRE(feed(parser, ConstSpan(frame).slice(done, piece), std::move(fds)).ok());
        done += piece;
      }
      while (random.below(2) == 0 && parser.has_frame()) {
        const Frame frame_out = parser.take();
        CHECK_EQ(frame_out.id, received);
        CHECK(frame_out.body == sent[received].body);
        CHECK_EQ(frame_out.fds.size(), sent[received].fds);
        ++received;
      }
    }
    for (; parser.has_frame(); ++received) CHECK(parser.take().body == sent[received].body);
    CHECK_EQ(received, sent.size());
  }
}

TEST(frame_refuses_what_is_none) {
  FrameParser magic;
  CHECK_EQ(feed(magic, Bytes(24, 'x')).code(), Code::protocol);
  FrameParser http;
  CHECK_EQ(feed(http, ConstSpan(std::string("GET / HTTP/1.1\r\nHost: here\r\n"))).code(),
           Code::protocol);
  FrameParser large;
  FrameHeader header;
  header.size = kMaxBody + 1;
  CHECK_EQ(feed(large, {&header, sizeof header}).code(), Code::protocol);
  FrameParser missing;
  CHECK_EQ(feed(missing, encode_frame(1, 1, {}, 1)).code(), Code::protocol);
  FrameParser unclaimed;
  CHECK_EQ(feed(unclaimed, Bytes{0x50}, some_fds(65)).code(), Code::protocol);
}

TEST(frame_limit_before_and_after_the_greeting) {
  FrameParser parser(100);
  CHECK(feed(parser, encode_frame(1, 1, Bytes(100), 0)).ok());
  parser.allow(1000);
  CHECK(feed(parser, encode_frame(1, 1, Bytes(1000), 0)).ok());
  CHECK_EQ(feed(parser, encode_frame(1, 1, Bytes(1001), 0)).code(), Code::protocol);
}

// A header that announces much makes nobody reserve it.
TEST(frame_buffer_grows_with_what_came) {
  FrameParser parser;
  FrameHeader header;
  header.size = kMaxBody;
  REQUIRE(feed(parser, {&header, sizeof header}).ok());
  CHECK(parser.room().size <= 64 * 1024);
}

TEST(frame_random_bytes_end_in_an_error_or_wait) {
  Random random(3);
  for (int round = 0; round < 2000; ++round) {
    FrameParser parser;
    Bytes bytes = encode_frame(3, 1, random.bytes(random.below(200)), random.below(2));
    for (std::uint64_t flips = random.below(4); flips > 0; --flips) bytes = random.garbled(bytes);
    bytes.resize(random.below(bytes.size() + 1));
    const Status status = feed(parser, bytes, some_fds(random.below(2)));
    CHECK(status.ok() || status.code() == Code::protocol);
    while (parser.has_frame()) CHECK(parser.take().body.size() <= bytes.size());
  }
}
