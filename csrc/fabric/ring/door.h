#pragma once
// The ring door: messages between processes of one node through memory that each two of them share.
//
// No queue is common to several senders, so that one who is killed in the middle of a message holds
// up nobody. It carries messages only; memory is read and written by mapping it, or by the kernel.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "fabric/door.h"
#include "fabric/drive.h"
#include "fabric/ring/lane.h"
#include "fabric/turn.h"

namespace pshpc::fabric::ring {

class RingDoor final : public Door, private Source, private Drivable {
 public:
  static constexpr const char* kName = "ring";

  // `lends`: peers may fetch payloads out of the memory of the process that they take us for.
  static Expected<std::shared_ptr<RingDoor>> create(bool lends = true);
  ~RingDoor() override;

  std::string name() const override { return kName; }
  Status start(Progress& progress, Receiver& receiver) override;
  void stop() override;

  bool moves_memory() const override { return false; }
  Expected<Bytes> expose(const memory::Region& region) override;
  void withdraw(std::uint32_t) override {}

  Expected<Offer> offer(const Peer& peer) override;
  Expected<Accepted> accept(const Peer& peer, Offer theirs) override;
  Expected<std::shared_ptr<Channel>> connect(const Peer& peer, Offer ours, Offer answer) override;

  Status wait(const Operation& operation, Deadline deadline,
              const std::function<bool()>& interrupted) override {
    return drive_.wait(operation, deadline, interrupted);
  }
  std::vector<std::pair<std::string, std::string>> facts() const override;

 private:
  explicit RingDoor(bool lends);
  Status open();
  Expected<std::shared_ptr<Channel>> add(Shared shared, GuardedFd bell, pid_t peer);
  unsigned poll_lanes(const Turn& turn);
  void look_at_bells(bool drain);
  void adopt();

  int fd() const override { return bells_.get(); }
  unsigned progress() override;
  unsigned try_progress() override;
  bool arm() override;
  bool driven() const override { return drive_.active(); }
  void left() override;

  const std::uint32_t birth_;
  const bool lends_;
  GuardedFd bells_;  // an epoll over the bells of all lanes and over the nudge
  const std::shared_ptr<Nudge> nudge_ = std::make_shared<Nudge>();
  Drive drive_;
  std::atomic<Receiver*> receiver_{nullptr};
  std::atomic<bool> polling_{false};

  mutable std::mutex mutex_;  // everything up to has_added_
  bool stopped_ = true;
  Progress* progress_ = nullptr;
  std::vector<std::shared_ptr<Lane>> added_;
  std::atomic<bool> has_added_{false};

  // Of whoever has the turn.
  std::vector<std::shared_ptr<Lane>> lanes_;
  std::atomic<std::size_t> count_{0};
  unsigned polls_ = 0;
};

}  // namespace pshpc::fabric::ring
