// An owner that takes over from another one, in one process.

#include "base/mapping.h"
#include "tests/heir.h"
#include "tests/objects_instance.h"

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

std::shared_ptr<Owner> must_take_over(Owner& former, const OwnerOptions& options) {
  auto heir = heir_of(options, copy_of(options.table->fd()), copy_of(options.claim_table->fd()),
                      copy_of(former.arena().segment(0)->fd()));
  if (!heir.ok()) note_failure(__FILE__, __LINE__, heir.status().message());
  REQUIRE(heir.ok());
  return heir.value();
}

}  // namespace

TEST(keeping_takes_over_what_was_published) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  std::vector<std::pair<Key, Bytes>> stored;
  for (const std::size_t size : {0, 1, 100, 4000, 65536, 1 << 20}) {
    stored.emplace_back(Key{}, patterned(size, static_cast<std::uint8_t>(size)));
    stored.back().first = must_put(*former, stored.back().second);
  }
  const Key evicted = must_put(*former, patterned(300));
  REQUIRE(evict(*former, evicted).ok());
  const Key deferred = former->new_key();
  auto reserved = former->reserve(500);
  REQUIRE(reserved.ok());
  const Key pinned = must_put(*former, patterned(10), {0, kPinned});

  const auto heir = must_take_over(*former, options);
  for (const auto& [key, bytes] : stored) {
    CHECK_EQ(state_of(*heir, key), Code::ok);
    CHECK(seen_through(*heir, key) == bytes);
    auto located = heir->locate(key.object_id, key.capability);
    REQUIRE(located.ok());
    CHECK(located->encode() == key.encode());
  }
  CHECK_EQ(heir->stats().objects, stored.size() + 1);
  CHECK_EQ(state_of(*heir, evicted), Code::evicted);
  CHECK_EQ(state_of(*heir, deferred), Code::evicted);
  Key wrong = stored.front().first;
  wrong.capability = random_tag();
  CHECK_EQ(state_of(*heir, wrong), Code::denied);
  CHECK_EQ(evict(*heir, pinned).code(), Code::pinned);
  CHECK(evict(*heir, pinned, true).ok());
  CHECK_EQ(state_of(*heir, pinned), Code::evicted);
  CHECK(seen_through(*heir, pinned).empty());
}

TEST(keeping_stores_nothing_new) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Key deferred = former->new_key();
  static_cast<void>(must_put(*former, patterned(10)));
  const auto heir = must_take_over(*former, options);
  CHECK_EQ(put(*heir, patterned(10)).status().code(), Code::owner_gone);
  CHECK_EQ(heir->reserve(10, 0, {deferred.object_id}).status().code(), Code::owner_gone);
  CHECK_EQ(heir->may_store_into({deferred.object_id}, deferred.capability).code(),
           Code::owner_gone);
}

TEST(keeping_honours_times_to_live) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Key brief = must_put(*former, patterned(10), {30 * kMillisecond, 0});
  const Key longer = must_put(*former, patterned(10), {30 * kMillisecond, 0});
  const Key ever = must_put(*former, patterned(10), {30 * kMillisecond, 0});
  const Key renewed = must_put(*former, patterned(10));
  REQUIRE(former->extend(longer.object_id, longer.capability, 1000 * kSecond).ok());
  REQUIRE(former->extend(ever.object_id, ever.capability, 0).ok());
  REQUIRE(former->extend(renewed.object_id, renewed.capability, 30 * kMillisecond).ok());
  const auto heir = must_take_over(*former, options);
  const Deadline over = Deadline::after(60 * kMillisecond);
  while (!over.passed()) heir->tend();
  CHECK_EQ(state_of(*heir, brief), Code::evicted);
  CHECK_EQ(state_of(*heir, renewed), Code::evicted);
  CHECK_EQ(state_of(*heir, longer), Code::ok);
  CHECK_EQ(state_of(*heir, ever), Code::ok);
}

TEST(keeping_leaves_live_memory_behind) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  Bytes live = patterned(1000);
  auto key = former->publish_live(patterned(10), 64, live, 1u << 31, 0);
  REQUIRE(key.ok());
  const auto heir = must_take_over(*former, options);
  CHECK_EQ(state_of(*heir, key.value()), Code::evicted);
  const auto* at =
      reinterpret_cast<const ObjectHeader*>(former->arena().segment(0)->data() + key->offset);
  CHECK(!at->is(key->object_id, key->generation));
}

TEST(keeping_minds_pins_that_were_there_before) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Bytes bytes = patterned(1 << 20, 3);
  const Key viewed = must_put(*former, bytes);   // by a process of its own
  const Key at_home = must_put(*former, bytes);  // by the one that closes its store
  const Key retired = must_put(*former, bytes);  // evicted while it was looked at
  auto table = memory::PinTable::create();
  REQUIRE(table.ok());
  const auto open_view = [&] {
    auto view = memory::PinTableView::open(copy_of(table.value()->fd()));
    REQUIRE(view.ok());
    return std::shared_ptr<memory::PinTableView>(std::move(view).value());
  };
  former->join(1);
  REQUIRE(former->add_reader(1, open_view()).ok());
  const auto pin = [&](const Key& key) {
    return table.value()->acquire(memory::block_word(key.segment, key.offset), key.generation);
  };
  const auto first = pin(viewed), second = pin(retired);
  REQUIRE(former->pin(at_home.object_id, at_home.capability).ok());
  REQUIRE(evict(*former, retired).ok());

  OwnerOptions theirs = options;
  theirs.table.reset();
  theirs.claim_table.reset();
  auto heir = owner_with(theirs);
  Heritage heritage;
  heritage.segments.push_back({0, copy_of(former->arena().segment(0)->fd())});
  heritage.blocks = memory::BlockTable::read(copy_of(options.table->fd())).value();
  heritage.tables.push_back(open_view());
  REQUIRE(heir->adopt(std::move(heritage)).ok());
  heir->arena().trim();
  for (const Key& key : {viewed, at_home}) REQUIRE(evict(*heir, key).ok());
  heir->tend();
  const auto whole = [&](const Key& key) {
    const auto* at = former->arena().segment(0)->data() + key.offset + kHeaderSize;
    return std::memcmp(at, bytes.data(), bytes.size()) == 0;
  };
  for (const Key& key : {viewed, at_home, retired}) CHECK(whole(key));
  table.value()->release(first);
  table.value()->release(second);
  heir->tend();
  CHECK(!whole(viewed));
  CHECK(!whole(retired));
  CHECK(whole(at_home));
}

TEST(keeping_begins_where_a_closed_owner_ends) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Key stays = must_put(*former, patterned(100));
  const Key own = must_put(*former, patterned(100));
  const Key theirs = must_put(*former, patterned(100));
  REQUIRE(former->hold(own.object_id, own.capability, {1, ClaimMode::own, true, 0}).ok());
  former->join(5, random_tag());
  REQUIRE(
      former->hold(theirs.object_id, theirs.capability, {2, ClaimMode::shared, true, 0}, 5).ok());
  auto reserved = former->reserve(100);
  REQUIRE(reserved.ok());
  former->begin_hand_over();
  former->leave(5);
  former->hand_over();
  // It touches nothing any more.
  former->abort(reserved->object_id);
  CHECK(evict(*former, stays).ok());
  CHECK_EQ(put(*former, patterned(1)).status().code(), Code::closed);
  const auto heir = must_take_over(*former, options);
  CHECK_EQ(state_of(*heir, stays), Code::ok);
  CHECK_EQ(state_of(*heir, theirs), Code::ok);
  CHECK_EQ(state_of(*heir, own), Code::evicted);
  CHECK_EQ(heir->stats().objects, 2u);
}

TEST(keeping_goes_on_counting_references) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const auto hold = [](Owner& at, const Key& key, const ClaimRequest& request,
                       std::uint64_t connection = 0) {
    return at.hold(key.object_id, key.capability, request, connection);
  };
  const auto release = [](Owner& at, const Key& key, std::uint64_t claim) {
    return at.release(key.object_id, key.capability, claim);
  };
  const Bytes bytes = patterned(100);
  const Key own = must_put(*former, bytes), held = must_put(*former, bytes);
  const Key both = must_put(*former, bytes), lent = must_put(*former, bytes);
  const Key brief = must_put(*former, bytes), released = must_put(*former, bytes);
  const Key free = must_put(*former, bytes), remote = must_put(*former, bytes);
  const Tag near = random_tag(), far = random_tag();
  former->join(1, near, true);
  former->join(2, far, false);
  REQUIRE(hold(*former, own, {1, ClaimMode::own, true, 0}).ok());
  REQUIRE(hold(*former, held, {2, ClaimMode::own, true, 0}, 1).ok());
  REQUIRE(hold(*former, both, {3, ClaimMode::own, true, 0}).ok());
  REQUIRE(hold(*former, both, {4, ClaimMode::shared, true, 0}, 1).ok());
  REQUIRE(hold(*former, lent, {5, ClaimMode::own, true, 0}).ok());
  REQUIRE(hold(*former, lent, {5, ClaimMode::own, false, 1000 * kSecond}).ok());
  REQUIRE(hold(*former, brief, {6, ClaimMode::own, true, 20 * kMillisecond}).ok());
  REQUIRE(hold(*former, released, {7, ClaimMode::own, true, 0}, 1).ok());
  REQUIRE(hold(*former, released, {8, ClaimMode::shared, true, 0}, 1).ok());
  REQUIRE(release(*former, released, 8).ok());
  REQUIRE(hold(*former, remote, {9, ClaimMode::own, true, 0}, 2).ok());

  const auto heir = must_take_over(*former, options);
  // What the former owner held itself has ended.
  CHECK_EQ(state_of(*heir, own), Code::evicted);
  for (const Key& key : {held, both, lent, released, free, remote})
    CHECK_EQ(state_of(*heir, key), Code::ok);
  CHECK_EQ(heir->stats().references, 6u);
  // A reference that was on its way arrives, once.
  heir->join(7, random_tag(), true);
  CHECK(hold(*heir, lent, {5, ClaimMode::own, false, 0}, 7).ok());
  CHECK_EQ(hold(*heir, lent, {5, ClaimMode::own, false, 0}, 7).code(), Code::moved);
  heir->leave(7);
  CHECK_EQ(state_of(*heir, lent), Code::evicted);
  const Deadline over = Deadline::after(40 * kMillisecond);
  while (!over.passed()) heir->tend();
  CHECK_EQ(state_of(*heir, brief), Code::evicted);
  CHECK(release(*heir, released, 7).ok());
  CHECK_EQ(state_of(*heir, released), Code::evicted);
  // Who comes again is seen to leave; who does not is looked for.
  REQUIRE(heir->absent_parties() == std::vector<Tag>{near});
  heir->join(8, near, true);
  CHECK(heir->absent_parties().empty());
  heir->end_party(near);
  CHECK_EQ(state_of(*heir, held), Code::ok);
  heir->leave(8);
  CHECK_EQ(state_of(*heir, held), Code::evicted);
  CHECK_EQ(state_of(*heir, both), Code::evicted);
  CHECK_EQ(state_of(*heir, free), Code::ok);
  CHECK_EQ(state_of(*heir, remote), Code::ok);
}

TEST(keeping_finds_a_reference_that_changed_hands_once) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Key key = must_put(*former, patterned(100));
  const Tag party = random_tag();
  for (const Nanoseconds expires : {Nanoseconds{0}, now() + 1000 * kSecond}) {
    ClaimTable::Entry entry{key.object_id, 4, expires, 1, true, Tag{}};
    if (expires == 0) entry.party = party;
    options.claim_table->enter(entry);
  }
  const auto heir = must_take_over(*former, options);
  CHECK_EQ(heir->stats().references, 1u);
  CHECK_EQ(heir->absent_parties().size(), 1u);
  heir->end_party(party);
  CHECK_EQ(state_of(*heir, key), Code::evicted);
}

TEST(keeping_sheds_the_largest) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Key small = must_put(*former, patterned(1000));
  const Key large = must_put(*former, patterned(2 << 20));
  const Key middle = must_put(*former, patterned(1 << 20));
  const auto heir = must_take_over(*former, options);
  CHECK_EQ(heir->shed(8 << 20).objects, 0u);
  const Shed shed = heir->shed((1 << 20) + (1 << 16));
  CHECK_EQ(shed.objects, 1u);
  CHECK(shed.bytes > (2 << 20));
  CHECK_EQ(state_of(*heir, large), Code::evicted);
  CHECK_EQ(state_of(*heir, middle), Code::ok);
  CHECK_EQ(state_of(*heir, small), Code::ok);
  CHECK_EQ(heir->shed(0).objects, 2u);
}

TEST(keeping_refuses_garbled_tables) {
  const OwnerOptions options = kept_options();
  auto former = owner_with(options);
  const Key key = must_put(*former, patterned(100));
  options.table->enter(memory::block_word(key.segment, key.offset), 64);
  CHECK_EQ(heir_of(options, copy_of(options.table->fd()), copy_of(options.claim_table->fd()),
                   copy_of(former->arena().segment(0)->fd()))
               .status()
               .code(),
           Code::protocol);
}
