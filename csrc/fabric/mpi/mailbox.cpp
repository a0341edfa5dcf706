#include "fabric/mpi/mailbox.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

namespace pshpc::fabric::mpi {
namespace {

// Records fetched at the same time; further notices stay in the ring.
constexpr unsigned kFetches = 32;
// Empty words that are passed in search of notices, and how often all are looked at.
constexpr unsigned kLookahead = 8;
constexpr unsigned kPollsPerFullLook = 64;
// Others learn of this rank's progress once it has come so far.
constexpr std::uint64_t kTellEvery = kRing / 4;
constexpr Nanoseconds kFirstPause = 20 * kMicrosecond;
constexpr Nanoseconds kLastPause = 2 * kMillisecond;

}  // namespace

Mailbox::Mailbox(const Port& port, Flights& flights, Owner& owner)
    : port_(port), api_(*port.api), flights_(flights), owner_(owner) {
  for (unsigned i = kAcks; i-- > 0;) free_like(i).push_back(i);
}

std::uint64_t Mailbox::peek(std::size_t at) const {
  const auto* word = reinterpret_cast<const std::uint64_t*>(port_.base + at);
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

// Sending.

std::vector<unsigned>& Mailbox::free_like(unsigned slot) {
  if (slot >= kSlots) return free_loans_;
  return slot < kSmallSlots ? free_small_ : free_large_;
}

std::optional<unsigned> Mailbox::take_slot(int rank, std::size_t size) {
  const bool small = size <= kSmallSlot;
  Share& share = shares_[rank];
  if (small ? share.small >= kSmallSlots / 2 : share.large >= kLargeSlots / 2) return std::nullopt;
  const auto slot = take_from(small ? free_small_ : free_large_);
  if (!slot) return slot;
  ++(small ? share.small : share.large);
  taken_by_[*slot] = rank;
  return slot;
}

std::optional<unsigned> Mailbox::take_loan() { return take_from(free_loans_); }

std::optional<unsigned> Mailbox::take_from(std::vector<unsigned>& free) {
  if (free.empty()) return std::nullopt;
  const unsigned slot = free.back();
  free.pop_back();
  ++used_;
  return slot;
}

void Mailbox::give_back(unsigned slot) {
  --used_;
  if (slot < kSlots) {
    const auto share = shares_.find(taken_by_[slot]);
    --(slot < kSmallSlots ? share->second.small : share->second.large);
    if (share->second.small + share->second.large == 0) shares_.erase(share);
  }
  free_like(slot).push_back(slot);
}

std::uint32_t Mailbox::expect(unsigned slot) {
  uses_[slot].posted = true;
  return static_cast<std::uint32_t>(++uses_[slot].acks);
}

void Mailbox::take_back(unsigned slot) {
  Use& use = uses_[slot];
  use.taken_back = true;
  ++use.asking;
  ++use.acks;
  flights_.atomic("taking a loan back", port_.messages, port_.rank, ack_at(slot),
                  api_.constants.sum, 1, [this, slot](const Status&, std::uint64_t) {
                    --uses_[slot].asking;
                    owner_.loan_ended(slot);
                  });
}

void Mailbox::post(int rank, unsigned slot, std::size_t size) {
  // What this processor wrote is to be seen by a transport that reads it.
  const Status synced = api_.check(api_.win_sync(port_.messages), "MPI_Win_sync");
  if (!synced.ok()) return fail(rank, synced);
  expect(slot);
  const Notice notice{static_cast<std::uint32_t>(port_.rank), slot,
                      static_cast<std::uint32_t>(size)};
  claim(rank, notice.encode());
}

void Mailbox::claim(int rank, std::uint64_t word) {
  ++tickets_;
  owner_.noticed(rank);
  flights_.atomic("taking a ticket", port_.messages, rank, kTailAt, api_.constants.sum, 1,
                  [this, rank, word](const Status& status, std::uint64_t number) {
                    if (!status.ok()) return fail(rank, status);
                    const Ticket ticket{rank, word, number, 0, kFirstPause};
                    if (number - heads_[rank] < kRing)
                      fill(ticket);
                    else
                      wait_for_room(ticket);
                  });
}

void Mailbox::fill(const Ticket& ticket) {
  flights_.atomic("posting a notice", port_.messages, ticket.rank, ring_at(ticket.number),
                  api_.constants.replace, ticket.word,
                  [this, rank = ticket.rank](const Status& status, std::uint64_t displaced) {
                    if (!status.ok()) return fail(rank, status);
                    --tickets_;
                    if (displaced != 0) claim(rank, displaced);
                    owner_.noticed(rank);
                  });
}

void Mailbox::wait_for_room(Ticket ticket) {
  ticket.again = now() + ticket.pause;
  ticket.pause = std::min(2 * ticket.pause, kLastPause);
  waiting_.push_back(ticket);
}

unsigned Mailbox::ask_for_room() {
  const Nanoseconds time = now();
  unsigned asked = 0;
  for (std::size_t left = waiting_.size(); left > 0; --left) {
    const Ticket ticket = waiting_.front();
    waiting_.pop_front();
    if (time < ticket.again) {
      waiting_.push_back(ticket);
      continue;
    }
    owner_.noticed(ticket.rank);
    flights_.atomic("looking for room", port_.messages, ticket.rank, kHeadAt, api_.constants.no_op,
                    0, [this, ticket](const Status& status, std::uint64_t head) {
                      if (!status.ok()) return fail(ticket.rank, status);
                      std::uint64_t& seen = heads_[ticket.rank];
                      seen = std::max(seen, head);
                      if (ticket.number - seen < kRing)
                        fill(ticket);
                      else
                        wait_for_room(ticket);
                    });
    ++asked;
  }
  return asked;
}

void Mailbox::fail(int rank, const Status& why) {
  if (tickets_ > 0) --tickets_;
  owner_.rank_failed(rank, why);
}

unsigned Mailbox::confirm_acks() {
  if (used_ == 0) return 0;
  unsigned asked = 0;
  for (unsigned slot = 0; slot < kAcks; ++slot) {
    Use& use = uses_[slot];
    if (!use.posted || use.asking > 0 || peek(ack_at(slot)) != use.acks) continue;
    ++use.asking;
    ++asked;
    flights_.atomic("looking for an acknowledgement", port_.messages, port_.rank, ack_at(slot),
                    api_.constants.no_op, 0,
                    [this, slot](const Status& status, std::uint64_t acks) {
                      Use& done = uses_[slot];
                      --done.asking;
                      if (!status.ok() || acks != done.acks) return;
                      done.posted = false;
                      const bool taken_back = std::exchange(done.taken_back, false);
                      give_back(slot);
                      if (slot >= kSlots && !taken_back) owner_.loan_ended(slot);
                    });
  }
  return asked;
}

// Receiving.

unsigned Mailbox::poll() {
  ++polls_;
  unsigned events = take_notices() + confirm_acks();
  if (!waiting_.empty()) events += ask_for_room();
  return events;
}

unsigned Mailbox::take_notices() {
  const bool everywhere = ahead_ > 0 || polls_ % kPollsPerFullLook == 0;
  unsigned taken = 0, empty = 0;
  for (std::uint64_t i = 0; i < kRing && fetching_ < kFetches; ++i) {
    const std::uint64_t position = head_ + i;
    if (words_[position % kRing] != Word::open) continue;
    if (peek(ring_at(position)) != 0) {
      take(position);
      ++taken;
    } else if (++empty > kLookahead && !everywhere) {
      break;
    }
  }
  if (ahead_ == 0) {
    hole_since_ = 0;
  } else if (hole_since_ == 0) {
    hole_since_ = now();
  } else if (words_[head_ % kRing] == Word::open && now() - hole_since_ > kHolePatience) {
    words_[head_ % kRing] = Word::consumed;
    ++ahead_;
    ++tombstones_;
    advance_head();
  }
  return taken;
}

void Mailbox::take(std::uint64_t position) {
  words_[position % kRing] = Word::taking;
  ++fetching_;
  flights_.atomic(
      "taking a notice", port_.messages, port_.rank, ring_at(position), api_.constants.replace, 0,
      [this, position](const Status& status, std::uint64_t word) {
        if (!status.ok() || word == 0) {
          words_[position % kRing] = Word::open;
          --fetching_;
          return;
        }
        words_[position % kRing] = Word::consumed;
        ++ahead_;
        advance_head();
        const Notice notice = Notice::decode(word);
        if (notice.plausible(static_cast<std::uint32_t>(port_.ranks), sizeof(RecordHead)))
          fetch(notice);
        else
          --fetching_;
      });
}

void Mailbox::advance_head() {
  while (words_[head_ % kRing] == Word::consumed) {
    words_[head_ % kRing] = Word::open;
    --ahead_;
    ++head_;
    hole_since_ = 0;
  }
  if (head_ - told_head_ < kTellEvery) return;
  told_head_ = head_;
  flights_.atomic("telling of room", port_.messages, port_.rank, kHeadAt, api_.constants.replace,
                  head_, [](const Status&, std::uint64_t) {});
}

void Mailbox::fetch(const Notice& notice) {
  auto record = std::make_shared<Bytes>(notice.size);
  const int rank = static_cast<int>(notice.rank);
  const int size = static_cast<int>(notice.size);
  flights_.start(
      "fetching a message",
      [&](Flights::Flight& flight) {
        return api_.rget(record->data(), size, api_.constants.byte, rank,
                         static_cast<Aint>(slot_at(notice.slot)), size, api_.constants.byte,
                         port_.messages, &flight.request);
      },
      [this, record, rank, slot = notice.slot](const Status& status, std::uint64_t) {
        --fetching_;
        if (!status.ok()) return owner_.rank_failed(rank, status);
        flights_.atomic("acknowledging a message", port_.messages, rank, ack_at(slot),
                        api_.constants.sum, 1, [](const Status&, std::uint64_t) {});
        owner_.record_came(rank, std::move(*record));
      });
}

}  // namespace pshpc::fabric::mpi
