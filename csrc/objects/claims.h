#pragma once
// Who holds references to objects that live for as long as somebody does (docs/protocol.md,
// References). Bookkeeping only: no locks, no time of its own, no memory of objects.

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "objects/claim_table.h"
#include "rpc/address.h"

namespace pshpc::objects {

// What a reference entitles to.
enum class ClaimMode : std::uint8_t {
  own = 1,    // one at most
  shared,     // any number, but none beside an exclusive one
  exclusive,  // one, and no shared one
};
inline constexpr ClaimMode kLastClaimMode = ClaimMode::exclusive;

struct ClaimRequest {
  std::uint64_t claim = 0;  // its number, random, chosen by who made it
  ClaimMode mode = ClaimMode::shared;
  bool fresh = false;     // it is not known yet; else it is taken over or sent on its way
  Nanoseconds lease = 0;  // > 0: nobody holds it meanwhile, and it ends after that time
  bool on_node = false;   // who asks is a process of this node
};

class Claims {
 public:
  // A process that holds references: the id of its instance, all zero for this one.
  using Party = rpc::EngineId;
  // References of one party.
  static constexpr std::size_t kMaxClaims = 1'000'000;

  // References are entered there from now on.
  void use(std::shared_ptr<ClaimTable> table) { table_ = std::move(table); }
  // One that another owner counted. Those of that process itself have ended: false.
  bool restore(const ClaimTable::Entry& entry);
  bool has(std::uint64_t object) const { return objects_.count(object) != 0; }
  // Who holds some, on this node.
  std::vector<Party> parties_on_node() const;

  // Code::borrowed: other references exclude this one. Code::moved: it ended, or is somebody
  // else's.
  Status hold(std::uint64_t object, const ClaimRequest& request, const Party& party,
              Nanoseconds time);
  // Whether it was the object's last one. Unknown ones are none.
  bool release(std::uint64_t object, std::uint64_t claim);
  // Code::ok if who shows this claim may change the object.
  Status may_write(std::uint64_t object, std::uint64_t claim) const;
  // The object is gone.
  void forget(std::uint64_t object);
  // The objects that nobody refers to any more since the party ended, or time went by.
  std::vector<std::uint64_t> end(const Party& party);
  std::vector<std::uint64_t> expire(Nanoseconds time);
  void clear();

  std::size_t size() const { return size_; }

 private:
  struct Claim {
    ClaimMode mode = ClaimMode::shared;
    Party party{};
    Nanoseconds expires = 0;  // 0: it is held by its party
    bool on_node = false;     // the party is
    ClaimTable::Slot slot = ClaimTable::kNone;
  };
  struct Object {
    std::unordered_map<std::uint64_t, Claim> claims;
    std::size_t modes[static_cast<std::size_t>(kLastClaimMode) + 1] = {};

    std::size_t& count_of(ClaimMode mode) { return modes[static_cast<std::size_t>(mode)]; }
    std::size_t count(ClaimMode mode) const { return modes[static_cast<std::size_t>(mode)]; }
  };
  struct PartyHash {
    std::size_t operator()(const Party& party) const {
      std::size_t hash;
      static_assert(sizeof hash <= sizeof party);
      std::memcpy(&hash, party.data(), sizeof hash);
      return hash;
    }
  };
  struct Held {
    std::unordered_map<std::uint64_t, std::size_t> objects;  // how many claims to each
    std::size_t size = 0;
    bool on_node = false;
  };
  using Objects = std::unordered_map<std::uint64_t, Object>;

  Status add(Object& object, std::uint64_t id, const ClaimRequest& request, const Party& party,
             Nanoseconds time);
  void attach(std::uint64_t object, std::uint64_t number, Claim& claim, const Party& party,
              Nanoseconds expires);
  void detach(std::uint64_t object, std::uint64_t number, const Claim& claim);

  void leave_table(const Claim& claim);

  std::shared_ptr<ClaimTable> table_;
  Objects objects_;
  std::unordered_map<Party, Held, PartyHash> parties_;
  std::set<std::tuple<Nanoseconds, std::uint64_t, std::uint64_t>> leases_;
  std::size_t size_ = 0;
};

}  // namespace pshpc::objects
