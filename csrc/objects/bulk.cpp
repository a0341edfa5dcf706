#include "objects/bulk.h"

#include <algorithm>
#include <limits>

namespace pshpc::objects {
namespace {

constexpr std::uint32_t kMagic = 0x324b4c42;  // "BLK2"

Status garbled() { return {Code::invalid, "not a handle of exposed memory, or a damaged one"}; }

}  // namespace

std::string Bulk::describe() const {
  return "bulk " + std::to_string(id) + " of owner " + owner.short_name();
}

std::vector<std::uint64_t> Bulk::segments() const {
  std::vector<std::uint64_t> lengths;
  std::uint64_t start = 0;
  for (const BulkPiece& piece : pieces) {
    const std::uint64_t from = std::max(start, offset);
    const std::uint64_t to = std::min(start + piece.length, offset + length);
    if (from < to) lengths.push_back(to - from);
    start += piece.length;
  }
  return lengths;
}

Expected<Bulk> Bulk::select(std::uint64_t from, std::uint64_t count) const {
  if (from > length || count > length - from)
    return Status(Code::invalid, "bytes " + std::to_string(from) + " to " +
                                     std::to_string(from + count) + " lie outside of " +
                                     describe() + ", which has " + std::to_string(length));
  Bulk part = *this;
  part.offset = offset + from;
  part.length = count;
  return part;
}

Bytes Bulk::encode() const {
  WireWriter out;
  out.put(kMagic).put(mode).put(id).put_tag(capability).put(offset).put(length);
  out.put(gate.segment).put(gate.offset).put(gate.object_id).put(gate.generation);
  out.put(static_cast<std::uint16_t>(pieces.size()));
  for (const BulkPiece& piece : pieces)
    out.put(piece.length).put(piece.place).put(piece.region).put(piece.segment);
  owner.encode(out);
  return out.take();
}

Expected<Bulk> Bulk::parse(ConstSpan bytes) {
  WireReader in(bytes);
  Bulk bulk;
  const auto magic = in.get<std::uint32_t>();
  bulk.mode = in.get<std::uint8_t>();
  bulk.id = in.get<std::uint64_t>();
  bulk.capability = in.get_tag();
  bulk.offset = in.get<std::uint64_t>();
  bulk.length = in.get<std::uint64_t>();
  bulk.gate.segment = in.get<std::uint16_t>();
  bulk.gate.offset = in.get<std::uint64_t>();
  bulk.gate.object_id = in.get<std::uint64_t>();
  bulk.gate.generation = in.get<std::uint64_t>();
  const auto count = in.get<std::uint16_t>();
  if (!in.ok() || magic != kMagic || count > kMaxPieces) return garbled();
  std::uint64_t total = 0;
  for (int i = 0; i < count && in.ok(); ++i) {
    BulkPiece piece;
    piece.length = in.get<std::uint64_t>();
    piece.place = in.get<std::uint64_t>();
    piece.region = in.get<std::uint32_t>();
    piece.segment = in.get<std::uint16_t>();
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
    if (piece.length > kMost - total || piece.length > kMost - piece.place) return garbled();
    total += piece.length;
    bulk.pieces.push_back(piece);
  }
  bulk.owner = OwnerAddress::decode(in);
  const bool ranges = bulk.offset <= total && bulk.length <= total - bulk.offset;
  const bool modes = bulk.mode >= kBulkRead && bulk.mode <= (kBulkRead | kBulkWrite);
  if (!in.at_end() || !ranges || !modes) return garbled();
  return bulk;
}

Expected<std::vector<Stretch>> lay_out(const Bulk& bulk, std::uint64_t offset,
                                       const std::vector<Span>& local) {
  std::uint64_t wanted = 0;
  for (const Span& span : local) wanted += span.size;
  auto part = bulk.select(offset, wanted);
  if (!part) return part.status();
  std::vector<Stretch> stretches;
  std::size_t piece = 0;
  std::uint64_t start = 0;  // of the piece
  std::uint64_t at = part->offset;
  for (Span rest : local) {
    while (!rest.empty()) {
      while (at - start >= bulk.pieces[piece].length) start += bulk.pieces[piece++].length;
      const std::uint64_t left = bulk.pieces[piece].length - (at - start);
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(rest.size, left));
      stretches.push_back({piece, at - start, at, rest.slice(0, size)});
      rest = rest.slice(size, rest.size - size);
      at += size;
    }
  }
  return stretches;
}

std::vector<Stretch> cut(const std::vector<Stretch>& stretches, std::size_t longest) {
  std::vector<Stretch> parts;
  for (const Stretch& whole : stretches) {
    for (std::size_t done = 0; done < whole.local.size; done += longest) {
      const std::size_t size = std::min(longest, whole.local.size - done);
      parts.push_back(
          {whole.piece, whole.at + done, whole.offset + done, whole.local.slice(done, size)});
    }
  }
  return parts;
}

const char* kind_name(BulkKind kind) {
  switch (kind) {
    case BulkKind::check: return "bulk.check";
    case BulkKind::segment: return "bulk.segment";
    case BulkKind::region: return "bulk.region";
    case BulkKind::fetch: return "bulk.fetch";
    case BulkKind::deliver: return "bulk.deliver";
  }
  return "bulk";
}

WireWriter ask_about(const Bulk& bulk) {
  WireWriter request;
  request.put(bulk.id).put_tag(bulk.capability);
  return request;
}

}  // namespace pshpc::objects
