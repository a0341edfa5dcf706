#include <memory>
#include <string>

#include "base/wire.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace pshpc;
using pshpc::test::Random;

TEST(wire_what_is_written_is_read) {
  const Tag tag = random_tag();
  WireWriter out;
  out.put(std::uint8_t{7}).put(std::uint16_t{65535}).put(std::int64_t{-5}).put_tag(tag);
  out.put_text("a name").put_blob(Bytes{1, 2, 3}).put_blob({}).put_raw(Bytes{9});
  const Bytes bytes = out.take();
  WireReader in(bytes);
  CHECK_EQ(in.get<std::uint8_t>(), 7);
  CHECK_EQ(in.get<std::uint16_t>(), 65535);
  CHECK_EQ(in.get<std::int64_t>(), -5);
  CHECK(in.get_tag() == tag);
  CHECK_EQ(in.get_text(), std::string("a name"));
  CHECK((in.get_blob().copy() == Bytes{1, 2, 3}));
  CHECK(in.get_blob().empty());
  CHECK(!in.at_end());
  CHECK_EQ(in.get<std::uint8_t>(), 9);
  CHECK(in.at_end());
}

TEST(wire_is_little_endian) {
  CHECK((WireWriter().put(std::uint32_t{0x01020304}).bytes() == Bytes{4, 3, 2, 1}));
}

TEST(wire_after_a_short_read_everything_is_zero) {
  const Bytes bytes{1, 2, 3};
  WireReader in(bytes);
  CHECK_EQ(in.get<std::uint32_t>(), 0u);
  CHECK(!in.ok());
  CHECK_EQ(in.get<std::uint8_t>(), 0);
  CHECK(in.get_tag() == Tag{});
  CHECK(in.get_text().empty());
  CHECK(!in.at_end());
}

// A length that is longer than what follows, in every form.
TEST(wire_lying_lengths) {
  for (const std::uint32_t length : {5u, 1u << 20, ~0u}) {
    const Bytes bytes = WireWriter().put(length).put_raw(Bytes{1, 2, 3, 4}).take();
    WireReader blob(bytes);
    CHECK(blob.get_blob().empty());
    CHECK(!blob.ok());
    WireReader text(bytes);
    CHECK(text.get_text().empty());
    CHECK(!text.ok());
  }
}

// Whatever the bytes and the order of reads: nothing outside is touched (the buffer ends where its
// allocation ends, so that a sanitizer sees a step too far).
TEST(wire_reader_never_reads_past_the_end) {
  Random random(1);
  for (int round = 0; round < 20000; ++round) {
    const std::size_t size = random.below(64);
    auto exact = std::make_unique<std::uint8_t[]>(size);
    for (std::size_t i = 0; i < size; ++i)
      exact[i] = random.below(3) == 0 ? random.byte() : static_cast<std::uint8_t>(random.below(4));
    WireReader in({exact.get(), size});
    std::uint64_t sum = 0;
    while (in.ok() && !in.at_end()) {
      switch (random.below(6)) {
        case 0: sum += in.get<std::uint8_t>(); break;
        case 1: sum += in.get<std::uint64_t>(); break;
        case 2: sum += in.get_tag()[15]; break;
        case 3: sum += in.get_text().size(); break;
        case 4:
          for (const std::uint8_t byte : in.get_blob().copy()) sum += byte;
          break;
        default:
          for (const std::uint8_t byte : in.get_raw(random.below(9)).copy()) sum += byte;
      }
      const ConstSpan rest = in.rest();
      CHECK(rest.size <= size);
      for (std::size_t i = 0; i < rest.size; ++i) sum += rest.data[i];
    }
    CHECK(sum < ~std::uint64_t{0});
  }
}
