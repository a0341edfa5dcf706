#pragma once
// The mpi door: memory through a dynamic window, messages through mailboxes in another.
//
// All calls of MPI are made by one thread at a time, which has the turn; none of them waits, but
// for the flush after a write. What others want done meanwhile is queued. What comes of it is
// published outside the turn.

#include <sys/epoll.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fabric/door.h"
#include "fabric/drive.h"
#include "fabric/mpi/attachments.h"
#include "fabric/mpi/lane.h"
#include "fabric/mpi/mailbox.h"
#include "fabric/mpi/neighbour.h"
#include "fabric/mpi/node_bells.h"
#include "fabric/poll_gauge.h"
#include "fabric/turn.h"

namespace pshpc::fabric::mpi {

struct Options {
  // The longest that the progress thread sleeps, which is how late it notices a first access.
  Nanoseconds idle = 2 * kMillisecond;
  // How long it polls without a pause after it was called upon.
  Nanoseconds hot = kMillisecond;
};

class MpiDoor final : public Door,
                      private Source,
                      private Drivable,
                      private Mailbox::Owner,
                      private Lender,
                      public std::enable_shared_from_this<MpiDoor> {
 public:
  static constexpr const char* kName = "mpi";

  static Expected<std::shared_ptr<MpiDoor>> create(const Port& port, const Options& options);
  ~MpiDoor() override;

  std::string name() const override { return kName; }
  Status start(Progress& progress, Receiver& receiver) override;
  void stop() override;

  Expected<Bytes> expose(const memory::Region& region) override;
  void withdraw(std::uint32_t region_id) override;

  Expected<Offer> offer(const Peer& peer) override;
  Expected<Accepted> accept(const Peer& peer, Offer theirs) override;
  Expected<std::shared_ptr<Channel>> connect(const Peer& peer, Offer ours, Offer answer) override;

  // Members are ranks.
  void introduce(const Tag& id, std::uint32_t rank) override;
  Expected<Fd> dial(const Tag& id) override;
  void take_calls(const std::function<void(Fd)>& taker) override;

  Status wait(const Operation& operation, Deadline deadline,
              const std::function<bool()>& interrupted) override;
  std::vector<std::pair<std::string, std::string>> facts() const override;

 private:
  friend class MpiChannel;
  enum class Kind { read, write, send, fetch, stream, close };
  struct Command {
    Kind kind;
    std::shared_ptr<Lane> lane;
    Aint address = 0;
    Span span;
    OutgoingPtr message;
    Operation* operation = nullptr;
    Fetch fetch;
  };
  // A read or write under way.
  struct Transfer {
    std::shared_ptr<Lane> lane;
    Operation* operation = nullptr;
    bool writes = false;
    std::size_t pieces = 0, size = 0;
    Aint last = 0;  // of its bytes over there
    Status status;
  };
  struct News {
    Operation* operation = nullptr;
    Status status;
    OutgoingPtr sent;  // whose memory is not needed any more
    Fetch fetched;
    std::shared_ptr<Lane> broken;
    int rank = -1;
    Bytes record;
  };

  MpiDoor(const Port& port, const Options& options);
  static Status closed_here();
  bool may_call() const;
  bool watch(int fd) const;
  void unwatch(int fd) const { ::epoll_ctl(watched_.get(), EPOLL_CTL_DEL, fd, nullptr); }
  bool in_background() const { return port_.threads == ThreadLevel::multiple; }
  Bytes address() const;
  Expected<std::shared_ptr<Channel>> add_lane(ConstSpan address, std::uint64_t local,
                                              std::uint64_t remote, GuardedFd bell);
  Offer answer();

  void submit(Command command);
  bool try_at_once(Command& command);
  void discard(Command& command);
  void nudge();
  void tell(News news);
  void complete(Operation* operation, const Status& status);

  // With the turn.
  unsigned work();
  unsigned run_commands();
  void begin(Command& command);
  void move(Command& command);
  void fetch(const Fetch& fetch);
  void tell_of(const Fetch& fetch, const Status& how);
  void acknowledge(const Fetch& fetch, const Status& status);
  void moving(int rank, std::size_t size);
  void moved(int rank);
  Status lock(int rank);
  void finish(const OutgoingPtr& message);
  void take_loans_back();
  void give_up(const std::shared_ptr<Lane>& lane, const Status& why);
  void flush(const std::shared_ptr<Transfer>& transfer);
  void arrive(const std::shared_ptr<Transfer>& transfer);
  void piece_done(const std::shared_ptr<Transfer>& transfer, const Status& status);
  void close_lane(const std::shared_ptr<Lane>& lane);
  void list(const std::shared_ptr<Lane>& lane);
  unsigned pump_streams();
  unsigned pump();
  unsigned listen();
  void heard();
  bool served(Nanoseconds took, Nanoseconds time);
  Neighbour& neighbour(int rank);
  void answered(int rank);
  void ring(Neighbour& neighbour, Nanoseconds time);
  void wake_for_transfer(Neighbour& neighbour, Nanoseconds time);
  void keep_peers_awake();

  void record_came(int rank, Bytes record) override;
  void rank_failed(int rank, const Status& why) override;
  void noticed(int rank) override { ring(neighbour(rank), now()); }
  void loan_ended(unsigned slot) override;
  std::optional<Part> lend(const OutgoingPtr& message) override;

  void publish();
  void publish_and_wake();
  void run(News& news);
  std::shared_ptr<Lane> take_call(const RecordHead& head, const News& news);

  // Source and Drivable.
  int fd() const override { return watched_.get(); }
  unsigned progress() override;
  bool arm() override;
  bool driven() const override { return drive_.active(); }
  unsigned try_progress() override;
  void left() override;
  void sleeping() override { nudge(); }
  void rest();
  bool hot(Nanoseconds time) const;
  void wake_after(Nanoseconds delay) const;

  const Port port_;
  const Options options_;
  const std::uint32_t birth_;
  const std::thread::id maker_;
  GuardedFd timer_;
  GuardedFd watched_;  // an epoll of the timer and the streams
  Drive drive_;
  std::atomic<Receiver*> receiver_{nullptr};
  std::atomic<bool> turn_{false};
  std::atomic<bool> armed_{false};   // the progress thread sleeps
  std::atomic<bool> nudged_{false};  // and will wake up soon
  std::atomic<bool> stopped_{true};

  mutable std::mutex mutex_;  // everything up to lanes_
  Progress* progress_ = nullptr;
  std::deque<Command> commands_;
  bool ended_ = false;  // commands are discarded
  std::atomic<bool> has_commands_{false};
  std::uint64_t next_token_;
  std::map<Tag, std::uint32_t> members_;
  std::function<void(Fd)> taker_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Lane>> lanes_;

  // Of whoever has the turn.
  Flights flights_;
  Mailbox mailbox_;
  std::deque<std::shared_ptr<Lane>> sending_;
  struct Loan {
    std::shared_ptr<Lane> lane;
    OutgoingPtr message;
    ConstSpan memory;
  };
  std::map<unsigned, Loan> loans_;  // by slot
  std::shared_ptr<Lane> writing_;   // the lane whose record is being written
  std::vector<std::shared_ptr<Lane>> streams_;
  unsigned streams_at_ = 0;
  std::atomic<bool> look_at_streams_{false};
  std::unordered_map<int, Neighbour> neighbours_;
  std::vector<Neighbour*> moving_;  // those whose memory is moved now
  Attachments attachments_;
  NodeBells node_bells_;
  unsigned polls_ = 0;
  // Until then the thread polls: for others who rang, and for transfers of this rank.
  std::atomic<Nanoseconds> heard_until_{0}, moving_until_{0};

  // Of the progress thread.
  Nanoseconds last_active_ = 0;
  Nanoseconds contended_until_ = 0;
  Nanoseconds serving_until_ = 0;
  PollGauge gauge_{2 * kMicrosecond};
  unsigned idle_polls_ = 0;

  std::mutex news_mutex_;
  std::vector<News> news_;
  std::atomic<bool> has_news_{false};
  std::atomic<bool> publishing_{false};
  std::vector<News> published_;  // of who publishes

  std::atomic<std::uint64_t> dropped_{0};
};

}  // namespace pshpc::fabric::mpi
