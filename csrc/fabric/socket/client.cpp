#include "fabric/socket/client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace pshpc::fabric {
namespace {

Status too_late() { return {Code::timed_out, "no answer within the time allowed"}; }

Status inherited() { return {Code::forked, "the connection belongs to the parent process"}; }

}  // namespace

ClientConnection::ClientConnection(Fd fd) : fd_(std::move(fd)) {}

Expected<Frame> ClientConnection::receive(Deadline deadline) {
  while (!parser_.has_frame()) {
    const Status status = receive_once(deadline);
    if (!status.ok()) return status;
  }
  return parser_.take();
}

Status ClientConnection::receive_once(Deadline deadline) {
  if (!fd_) return inherited();
  auto ready = wait_ready(fd_.get(), POLLIN, deadline);
  if (!ready) return ready.status();
  if (!ready.value()) return too_late();
  std::vector<Fd> fds;
  auto got = receive_some(fd_.get(), parser_.room(), fds);
  if (!got) return got.status();
  return parser_.commit(got.value(), std::move(fds));
}

void ClientConnection::wait_for_change(Lock& lock, Deadline deadline) {
  changed_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
}

// One caller sends at a time; the others wait for their turn no longer than they have time.
Status ClientConnection::send(Lock& lock, ConstSpan frame, const std::vector<int>& fds,
                              Deadline deadline) {
  while (sending_ && broken_.ok()) {
    if (deadline.passed()) return too_late();
    wait_for_change(lock, deadline);
  }
  if (!broken_.ok()) return broken_;
  sending_ = true;
  lock.unlock();
  bool begun = false;
  const Status sent = send_all(frame, fds, deadline, &begun);
  lock.lock();
  sending_ = false;
  changed_.notify_all();
  if (sent.ok()) return sent;
  if (sent.code() != Code::timed_out)
    fail_all(sent);
  else if (begun)
    // Half a frame on the stream would garble everything after it.
    fail_all({Code::peer_lost, "the peer does not take what is sent to it"});
  return sent;
}

Status ClientConnection::send_all(ConstSpan frame, const std::vector<int>& fds, Deadline deadline,
                                  bool* begun) {
  std::size_t done = 0;
  while (done < frame.size) {
    if (!fd_) return inherited();
    auto sent = send_some(fd_.get(), frame.from(done), {}, done == 0 ? fds : std::vector<int>{});
    if (!sent) return sent.status();
    done += sent.value();
    if (sent.value() > 0) {
      *begun = true;
      continue;
    }
    auto ready = wait_ready(fd_.get(), POLLOUT, deadline);
    if (!ready) return ready.status();
    if (!ready.value()) return {Code::timed_out, "the peer does not take what is sent to it"};
  }
  return {};
}

Expected<Frame> ClientConnection::call(std::uint16_t kind, ConstSpan body, Deadline deadline,
                                       const std::vector<int>& fds) {
  Waiter waiter;
  Lock lock(mutex_);
  if (!broken_.ok()) return broken_;
  const std::uint64_t id = next_id_++;
  waiters_[id] = &waiter;
  lock.unlock();
  const Bytes frame = encode_frame(kind, id, body, fds.size());
  lock.lock();
  const Status sent = send(lock, frame, fds, deadline);
  if (!sent.ok()) {
    waiters_.erase(id);
    return sent;
  }
  while (!waiter.done) {
    if (receiving_) {
      // Another caller receives; it hands us our reply, or the receiving when it has its own.
      wait_for_change(lock, deadline);
      if (!waiter.done && deadline.passed()) break;
      continue;
    }
    receiving_ = true;
    lock.unlock();
    const Status status = receive_once(deadline);
    lock.lock();
    hand_out_replies();
    receiving_ = false;
    if (!status.ok() && status.code() != Code::timed_out) fail_all(status);
    changed_.notify_all();
    if (!waiter.done && deadline.passed()) break;
  }
  if (!waiter.done) {
    waiters_.erase(id);
    return too_late();
  }
  if (!waiter.status.ok()) return waiter.status;
  return std::move(waiter.reply);
}

void ClientConnection::hand_out_replies() {
  while (parser_.has_frame()) {
    Frame frame = parser_.take();
    const auto found = waiters_.find(frame.id);
    if (found == waiters_.end()) continue;  // its caller ran out of time
    found->second->reply = std::move(frame);
    found->second->done = true;
    waiters_.erase(found);
  }
}

void ClientConnection::fail_all(const Status& status) {
  if (broken_.ok()) broken_ = status;
  for (auto& [id, waiter] : waiters_) {
    waiter->status = status;
    waiter->done = true;
  }
  waiters_.clear();
  changed_.notify_all();
}

bool ClientConnection::alive() const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!broken_.ok()) return false;
  }
  return fd_ && !hung_up(fd_.get());
}

void ClientConnection::end_calls(const Status& why) {
  std::lock_guard<std::mutex> lock(mutex_);
  fail_all(why);
  // Wakes who receives.
  if (fd_) ::shutdown(fd_.get(), SHUT_RD);
}

}  // namespace pshpc::fabric
