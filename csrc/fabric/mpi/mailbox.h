#pragma once
// Records from rank to rank through the message windows. By one thread at a time.
//
// The sender writes a record into a slot of its own window, takes a ticket of the receiver's ring
// with an atomic addition, waits until there is room, and swaps the record's notice into the word
// of that ticket. The receiver swaps it out, fetches the record, and adds one to the sender's
// acknowledgements of that slot. Every word is changed by MPI atomics only, and no step needs a
// flush, which could wait for a rank that does not call MPI.
//
// A sender that dies with a ticket leaves a hole. Others pass it; when the ring comes round to it,
// it is given up after kHolePatience. Should its sender come back, it may swap its notice for that
// of another: then it posts that one again.

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/span.h"
#include "fabric/mpi/flights.h"
#include "fabric/mpi/layout.h"
#include "fabric/mpi/port.h"

namespace pshpc::fabric::mpi {

inline constexpr Nanoseconds kHolePatience = 5 * kSecond;

class Mailbox {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void record_came(int rank, Bytes record) = 0;
    // Nothing can be sent there, or received from there, any more.
    virtual void rank_failed(int rank, const Status& why) = 0;
    // Something lies in that rank's ring.
    virtual void noticed(int rank) = 0;
    // Nobody reads the memory that was lent any more: it was fetched, or taken back.
    virtual void loan_ended(unsigned slot) = 0;
  };

  Mailbox(const Port& port, Flights& flights, Owner& owner);

  // A slot with room for `size` bytes, or the largest there is; none if all such are in use.
  // Ranks that do not come for theirs do not get them all.
  std::optional<unsigned> take_slot(int rank, std::size_t size);
  // One without room, for a loan.
  std::optional<unsigned> take_loan();
  void give_back(unsigned slot);
  Span slot(unsigned slot) const { return {port_.base + slot_at(slot), slot_size(slot)}; }
  void post(int rank, unsigned slot, std::size_t size);
  // What is in the slot, or lent by it, will be fetched; how many acknowledgements there are then.
  std::uint32_t expect(unsigned slot);
  // What is fetched from now on is worth nothing.
  void take_back(unsigned slot);

  // Looks for notices and acknowledgements; how many there were.
  unsigned poll();
  // Nothing is on its way out, and all that was has been fetched.
  bool quiet() const { return used_ == 0 && tickets_ == 0; }
  std::uint64_t tombstones() const { return tombstones_; }

 private:
  struct Ticket {
    int rank = 0;
    std::uint64_t word = 0;
    std::uint64_t number = 0;
    Nanoseconds again = 0;
    Nanoseconds pause = 0;
  };

  void claim(int rank, std::uint64_t word);
  void fill(const Ticket& ticket);
  void wait_for_room(Ticket ticket);
  unsigned ask_for_room();
  void fail(int rank, const Status& why);

  unsigned take_notices();
  void take(std::uint64_t position);
  void advance_head();
  void fetch(const Notice& notice);
  unsigned confirm_acks();

  // A look at a word of ours that only says whether an atomic operation is worth while.
  std::uint64_t peek(std::size_t at) const;

  const Port& port_;
  const Api& api_;
  Flights& flights_;
  Owner& owner_;

  // Sending.
  std::vector<unsigned> free_small_, free_large_, free_loans_;
  std::vector<unsigned>& free_like(unsigned slot);
  std::optional<unsigned> take_from(std::vector<unsigned>& free);
  struct Use {
    bool posted = false;
    unsigned asking = 0;  // operations on its word under way
    bool taken_back = false;
    std::uint64_t acks = 0;  // those expected when it has been fetched
  };
  std::vector<int> taken_by_ = std::vector<int>(kSlots, -1);
  struct Share {
    unsigned small = 0, large = 0;
  };
  std::unordered_map<int, Share> shares_;
  std::vector<Use> uses_ = std::vector<Use>(kAcks);
  unsigned used_ = 0;
  unsigned tickets_ = 0;  // not yet filled
  std::deque<Ticket> waiting_;
  std::unordered_map<int, std::uint64_t> heads_;  // of others, as last seen

  // Receiving: positions [head_, head_ + kRing).
  enum class Word : std::uint8_t { open, taking, consumed };
  std::uint64_t head_ = 0;
  std::uint64_t told_head_ = 0;
  std::vector<Word> words_ = std::vector<Word>(kRing, Word::open);
  unsigned ahead_ = 0;  // consumed behind a hole
  unsigned fetching_ = 0;
  unsigned polls_ = 0;
  Nanoseconds hole_since_ = 0;
  std::uint64_t tombstones_ = 0;
};

}  // namespace pshpc::fabric::mpi
