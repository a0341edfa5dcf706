#include "fabric/ucx/worker.h"

#include <sched.h>

#include "base/fork_guard.h"
#include "base/log.h"
#include "fabric/ucx/errors.h"

namespace pshpc::fabric::ucx {
namespace {

// Before it sleeps the progress thread looks anyway.
constexpr unsigned kPollsPerDeathCheck = 1024;

// The worker whose operations this thread completes: what they post in turn is completed by the
// loop that is already running, not one call deeper each time.
thread_local const Worker* completing = nullptr;

}  // namespace

Expected<std::shared_ptr<Worker>> Worker::create(std::shared_ptr<Context> context) {
  std::shared_ptr<Worker> worker(new Worker(std::move(context)));
  Status opened = worker->open();
  if (!opened.ok()) return opened;
  return worker;
}

Worker::Worker(std::shared_ptr<Context> context)
    : context_(std::move(context)), birth_(fork_generation()), drive_(*this), inbox_(*this) {}

Status Worker::open() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_EVENTS;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  params.events = UCP_WAKEUP_RMA | UCP_WAKEUP_TX | UCP_WAKEUP_RX;
  ucs_status_t status = ucp_worker_create(context_->handle(), &params, &handle_);
  if (status != UCS_OK) return to_status(status, "creating a UCX worker");
  int fd = -1;
  status = ucp_worker_get_efd(handle_, &fd);
  if (status != UCS_OK) return to_status(status, "asking UCX for a descriptor to sleep on");
  Status watched = deaths_.open(fd);
  if (!watched.ok()) return watched;

  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  status = ucp_worker_query(handle_, &attributes);
  if (status != UCS_OK) return to_status(status, "asking a UCX worker for its limits");
  max_header_ = attributes.max_am_header;
  return inbox_.open();
}

Worker::~Worker() {
  if (handle_ == nullptr || birth_ != fork_generation()) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    inbox_.drop_all();
    ucp_worker_destroy(handle_);
  }
  // UCX touches their memory no more.
  for (Flight& flight : in_flight_)
    if (flight.operation != nullptr) flight.operation->complete({Code::closed, "the door closed"});
}

Bytes Worker::address() {
  Guard guard(*this);
  if (!guard) return {};
  ucp_address_t* address = nullptr;
  std::size_t size = 0;
  if (ucp_worker_get_address(handle_, &address, &size) != UCS_OK) return {};
  Bytes copy = ConstSpan(address, size).copy();
  ucp_worker_release_address(handle_, address);
  return copy;
}

Worker::Guard::Guard(Worker& worker) : worker_(worker) {
  if (worker.birth_ == fork_generation()) lock_ = std::unique_lock<std::mutex>(worker.mutex_);
}

Worker::Guard::~Guard() {
  if (!lock_) return;
  if (wake_ && worker_.armed_) {
    worker_.armed_ = false;
    ucp_worker_signal(worker_.handle_);
  }
  worker_.complete_pending(lock_);
}

Flight& Worker::Guard::depart(Operation* operation, const char* verb, std::uint64_t token) {
  auto& in_flight = worker_.in_flight_;
  if (worker_.landed_.empty()) worker_.landed_.emplace_back();
  in_flight.splice(in_flight.end(), worker_.landed_, worker_.landed_.begin());
  Flight& flight = in_flight.back();
  flight.worker = &worker_;
  flight.operation = operation;
  flight.verb = verb;
  flight.token = token;
  flight.is_send = false;
  flight.self = std::prev(in_flight.end());
  return flight;
}

void Worker::Guard::settle(Flight& flight, ucs_status_ptr_t posted) {
  if (UCS_PTR_IS_PTR(posted))
    wake_ = true;
  else
    worker_.land(flight, UCS_PTR_RAW_STATUS(posted));
}

void Worker::Guard::abandon_sends(std::uint64_t token, const Status& why) {
  for (Flight& flight : worker_.in_flight_) {
    if (flight.token != token || !flight.is_send) continue;
    worker_.completions_.push_back({flight.operation, why, std::move(flight.keep)});
    flight.operation = nullptr;
    flight.keep.reset();
  }
}

void Worker::Guard::complete(Operation* operation, Status status) {
  if (operation == nullptr) return;
  if (lock_)
    worker_.completions_.push_back({operation, std::move(status), nullptr});
  else
    operation->complete(std::move(status));
}

void Worker::on_sent(void* request, ucs_status_t status, void* user_data) {
  Flight& flight = *static_cast<Flight*>(user_data);
  ucp_request_free(request);
  flight.worker->land(flight, status);
}

void Worker::land(Flight& flight, ucs_status_t status) {
  if (flight.operation != nullptr || flight.keep) {
    Status outcome;
    if (status != UCS_OK)
      outcome = to_status(status, std::string(flight.verb) + " a peer over ucx");
    completions_.push_back({flight.operation, std::move(outcome), std::move(flight.keep)});
  }
  flight.keep.reset();
  landed_.splice(landed_.begin(), in_flight_, flight.self);
}

void Worker::complete_pending(std::unique_lock<std::mutex>& lock) {
  if (completions_.empty() || completing == this) {
    lock.unlock();
    return;
  }
  const Worker* outer = std::exchange(completing, this);
  std::vector<Completion> batch;
  while (!completions_.empty()) {
    batch.swap(completions_);
    lock.unlock();
    for (Completion& done : batch)
      if (done.operation != nullptr) done.operation->complete(std::move(done.status));
    batch.clear();
    lock.lock();
  }
  lock.unlock();
  completing = outer;
  drive_.notify();
}

unsigned Worker::progress() {
  if (birth_ != fork_generation()) return 0;
  return progress_locked(std::unique_lock<std::mutex>(mutex_));
}

unsigned Worker::try_progress() {
  if (birth_ != fork_generation()) return 0;
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  return lock ? progress_locked(std::move(lock)) : 0;
}

unsigned Worker::progress_locked(std::unique_lock<std::mutex> lock) {
  armed_ = false;
  unsigned events = ucp_worker_progress(handle_);
  if (++polls_ % kPollsPerDeathCheck == 0) events += deaths_.check();
  // Only one thread publishes what arrived, or the order would be lost.
  const bool publish = !publishing_ && inbox_.has_news();
  if (publish) publishing_ = true;
  complete_pending(lock);
  if (!publish) return events;

  std::list<Arrival> batch;
  lock.lock();
  while (inbox_.has_news()) {
    inbox_.take_news(batch);
    lock.unlock();
    for (auto arrival = batch.begin(); arrival != batch.end(); ++events)
      inbox_.publish(batch, arrival++);
    lock.lock();
    inbox_.recycle(batch);
  }
  publishing_ = false;
  lock.unlock();
  drive_.notify();
  return events;
}

void Worker::left() {
  const std::lock_guard<std::mutex> lock(progress_mutex_);
  if (progress_ != nullptr) progress_->take_over();
}

bool Worker::arm() {
  if (birth_ != fork_generation()) return true;
  std::lock_guard<std::mutex> lock(mutex_);
  deaths_.check();
  if (inbox_.has_news() && !publishing_) return false;
  const ucs_status_t status = ucp_worker_arm(handle_);
  armed_ = status != UCS_ERR_BUSY;
  return armed_;
}

void Worker::close_channels() {
  std::vector<std::shared_ptr<Channel>> channels;
  {
    const Guard guard(*this);
    if (!guard) return;
    channels = inbox_.open_channels();
  }
  for (const auto& channel : channels) channel->close();
}

void Worker::settle(Deadline deadline) {
  if (birth_ != fork_generation()) return;
  do {
    progress();
    std::lock_guard<std::mutex> lock(mutex_);
    if (in_flight_.empty() && !publishing_ && inbox_.is_quiet()) return;
  } while (::sched_yield() == 0 && !deadline.passed());
}

}  // namespace pshpc::fabric::ucx
