#pragma once
// Bytes that travel behind a message's header.

#include <memory>
#include <utility>
#include <vector>

#include "base/span.h"

namespace pshpc::fabric {

// `first`, then the others, as one; sent without a copy where the transport can. `keep` holds their
// memory until it is sent.
struct Payload {
  ConstSpan first;
  std::vector<ConstSpan> more;
  std::shared_ptr<const void> keep;

  Payload() = default;
  Payload(ConstSpan bytes, std::shared_ptr<const void> holder = nullptr)
      : first(bytes), keep(std::move(holder)) {}

  std::size_t size() const {
    std::size_t sum = first.size;
    for (const ConstSpan& piece : more) sum += piece.size;
    return sum;
  }
  // Behind what there is so far.
  void append(ConstSpan piece) {
    if (piece.empty()) return;
    if (first.empty())
      first = piece;
    else
      more.push_back(piece);
  }
  void append(const Payload& other) {
    append(other.first);
    for (const ConstSpan& piece : other.more) append(piece);
  }
  void copy_to(std::uint8_t* into) const {
    copy_bytes(into, first);
    into += first.size;
    for (const ConstSpan& piece : more) {
      copy_bytes(into, piece);
      into += piece.size;
    }
  }
};

}  // namespace pshpc::fabric
