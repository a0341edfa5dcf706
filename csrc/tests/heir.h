#pragma once
// An owner that can be taken over, and who takes over from it.

#include <fcntl.h>

#include <memory>
#include <utility>

#include "tests/objects_owner.h"

namespace pshpc::test {

inline objects::OwnerOptions kept_options(std::uint64_t capacity = 8 << 20) {
  objects::OwnerOptions options;
  options.arena.capacity = options.arena.first_segment = capacity;
  options.grace = 20 * kMillisecond;
  auto table = memory::BlockTable::create(capacity);
  REQUIRE(table.ok());
  options.table = std::move(table).value();
  auto claims = objects::ClaimTable::create();
  REQUIRE(claims.ok());
  options.claim_table = std::move(claims).value();
  options.secret = random_tag();
  return options;
}

inline std::shared_ptr<objects::Owner> owner_with(const objects::OwnerOptions& options) {
  return std::make_shared<objects::Owner>(objects::OwnerAddress{}, options,
                                          [](const memory::Segment&) { return Status(); });
}

inline Fd copy_of(int fd) {
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  REQUIRE(static_cast<bool>(copy));
  return copy;
}

// Of these descriptors; `former` are the options of the owner that left.
inline Expected<std::shared_ptr<objects::Owner>> heir_of(const objects::OwnerOptions& former,
                                                         Fd table, Fd claims, Fd segment) {
  objects::OwnerOptions options = former;
  options.table.reset();
  options.claim_table.reset();
  auto heir = owner_with(options);
  auto blocks = memory::BlockTable::read(table);
  if (!blocks) return blocks.status();
  auto references = objects::ClaimTable::read(claims);
  if (!references) return references.status();
  objects::Heritage heritage;
  heritage.claims = std::move(references).value();
  heritage.blocks = std::move(blocks).value();
  heritage.segments.push_back({0, std::move(segment)});
  const Status adopted = heir->adopt(std::move(heritage));
  if (!adopted.ok()) return adopted;
  return heir;
}

}  // namespace pshpc::test
