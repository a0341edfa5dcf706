#pragma once
// A UCP worker behind one mutex, and the rule for everything that touches it: UCX is called under
// a Guard; what ends meanwhile is published after unlocking, never inside UCX's callbacks. A waiter
// woken with the lock held would preempt its holder and cost a scheduler tick.

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <ucp/api/ucp.h>

#include "base/span.h"
#include "fabric/drive.h"
#include "fabric/operation.h"
#include "fabric/progress.h"
#include "fabric/ucx/context.h"
#include "fabric/ucx/inbox.h"
#include "fabric/ucx/process.h"

namespace pshpc::fabric::ucx {

class Worker;

// What a posted operation needs until UCX calls back. Recycled, so that posting allocates nothing.
struct Flight {
  Worker* worker = nullptr;
  Operation* operation = nullptr;  // may be null
  const char* verb = "";           // "reading from", for messages
  bool is_send = false;
  std::uint64_t token = 0;  // of the channel
  Bytes header;
  std::vector<ucp_dt_iov_t> pieces;  // of a payload that lies in several places
  std::shared_ptr<const void> keep;
  std::list<Flight>::iterator self;
};

class Worker final : public Source, public Drivable, public std::enable_shared_from_this<Worker> {
 public:
  static Expected<std::shared_ptr<Worker>> create(std::shared_ptr<Context> context);
  ~Worker() override;

  // Exclusive use of the worker; false in a forked child, where nothing of it may be touched.
  class Guard {
   public:
    explicit Guard(Worker& worker);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    explicit operator bool() const { return lock_.owns_lock(); }

    Flight& depart(Operation* operation, const char* verb, std::uint64_t token);
    // `posted` is what the UCX call returned for `flight`.
    void settle(Flight& flight, ucs_status_ptr_t posted);
    // After a channel's endpoint was closed by force: completes its sends. UCX since 1.20 ends a
    // rendezvous only when its memory is withdrawn, which may be never. Nothing is sent from it any
    // more, while reads wait for UCX, since it writes into their memory.
    void abandon_sends(std::uint64_t token, const Status& why);
    // Completes `operation` (may be null) after unlocking.
    void complete(Operation* operation, Status status);
    // There is work for whoever progresses.
    void wake() { wake_ = true; }

   private:
    Worker& worker_;
    std::unique_lock<std::mutex> lock_;
    bool wake_ = false;
  };

  ucp_worker_h handle() const { return handle_; }
  const std::shared_ptr<Context>& context() const { return context_; }
  Inbox& inbox() { return inbox_; }
  Drive& drive() { return drive_; }
  DeathWatch& deaths() { return deaths_; }
  Bytes address();
  // Longest header of an active message.
  std::size_t max_header() const { return max_header_; }

  // Who takes over when no caller drives any more; null: nobody.
  void set_progress(Progress* progress) {
    const std::lock_guard<std::mutex> lock(progress_mutex_);
    progress_ = progress;
  }

  // The callback of posted sends, reads and flushes; user_data is the Flight.
  static void on_sent(void* request, ucs_status_t status, void* user_data);

  // All of them, by force.
  void close_channels();
  // Progresses until nothing is in flight and nobody publishes, or until the deadline.
  void settle(Deadline deadline);

  int fd() const override { return deaths_.fd(); }
  unsigned progress() override;
  unsigned try_progress() override;
  void left() override;
  bool arm() override;
  bool driven() const override { return drive_.active(); }

 private:
  struct Completion {
    Operation* operation;
    Status status;
    std::shared_ptr<const void> keep;
  };

  explicit Worker(std::shared_ptr<Context> context);
  Status open();
  void land(Flight& flight, ucs_status_t status);
  unsigned progress_locked(std::unique_lock<std::mutex> lock);
  void complete_pending(std::unique_lock<std::mutex>& lock);

  std::shared_ptr<Context> context_;
  ucp_worker_h handle_ = nullptr;
  std::size_t max_header_ = 0;
  std::uint32_t birth_;

  std::mutex mutex_;
  bool armed_ = false;  // the progress thread sleeps or is about to
  bool publishing_ = false;
  unsigned polls_ = 0;
  std::list<Flight> in_flight_;
  std::list<Flight> landed_;
  std::vector<Completion> completions_;

  std::mutex progress_mutex_;  // held while it is called, so that it can be taken away
  Progress* progress_ = nullptr;
  Drive drive_;
  Inbox inbox_;
  DeathWatch deaths_;
};

}  // namespace pshpc::fabric::ucx
