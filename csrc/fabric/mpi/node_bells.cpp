#include "fabric/mpi/node_bells.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

namespace pshpc::fabric::mpi {

Status NodeBells::make(Fd* one, Fd* other) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
    return system_error("making a bell between two ranks");
  *one = Fd(pair[0]);
  *other = Fd(pair[1]);
  return {};
}

void NodeBells::add(int rank, std::uint64_t connection, GuardedFd end) {
  auto guarded = std::make_shared<GuardedFd>(std::move(end));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = connection;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, guarded->get(), &event) != 0) return;
  std::lock_guard<std::mutex> lock(mutex_);
  bells_[connection] = {rank, std::move(guarded)};
  by_rank_[rank] = connection;
}

void NodeBells::remove(std::uint64_t connection) {
  std::shared_ptr<GuardedFd> end;  // closed outside the lock
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = bells_.find(connection);
  if (found == bells_.end()) return;
  end = std::move(found->second.end);
  const int rank = found->second.rank;
  bells_.erase(found);
  const auto latest = by_rank_.find(rank);
  if (latest->second != connection) return;
  by_rank_.erase(latest);
  for (const auto& [other, bell] : bells_)
    if (bell.rank == rank) by_rank_[rank] = other;
}

void NodeBells::clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  bells_.clear();
  by_rank_.clear();
}

std::shared_ptr<GuardedFd> NodeBells::end_of(std::uint64_t connection) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = bells_.find(connection);
  return found == bells_.end() ? nullptr : found->second.end;
}

bool NodeBells::ring(int rank) {
  std::uint64_t connection = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = by_rank_.find(rank);
    if (found == by_rank_.end()) return false;
    connection = found->second;
  }
  const auto end = end_of(connection);
  if (!end) return false;
  const char sound = 0;
  if (::send(end->get(), &sound, sizeof sound, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) return true;
  // One that is full has been rung often enough.
  if (errno == EAGAIN || errno == EINTR) return true;
  remove(connection);
  return false;
}

unsigned NodeBells::answer() {
  std::array<epoll_event, 16> ready;
  const int count = ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), 0);
  unsigned rung = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t connection = ready[static_cast<std::size_t>(i)].data.u64;
    if (connection == 0) continue;
    const auto end = end_of(connection);
    if (!end) continue;
    std::array<char, 256> sounds;
    const ssize_t heard = ::recv(end->get(), sounds.data(), sounds.size(), MSG_DONTWAIT);
    if (heard > 0)
      ++rung;
    else if (heard == 0 || (errno != EAGAIN && errno != EINTR))
      remove(connection);
  }
  return rung;
}

std::size_t NodeBells::count() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return bells_.size();
}

}  // namespace pshpc::fabric::mpi
