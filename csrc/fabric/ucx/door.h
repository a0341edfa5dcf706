#pragma once
// The ucx door: one context, one worker, the memory exposed through them.

#include <map>
#include <mutex>

#include "fabric/door.h"
#include "fabric/ucx/config.h"
#include "fabric/ucx/listener.h"
#include "fabric/ucx/memory.h"
#include "fabric/ucx/worker.h"

namespace pshpc::fabric::ucx {

class UcxDoor final : public Door {
 public:
  static Expected<std::shared_ptr<UcxDoor>> create(const Options& options);
  ~UcxDoor() override;

  std::string name() const override { return worker_->context()->options().name; }
  Status start(Progress& progress, Receiver& receiver) override;
  void stop() override;

  Expected<Bytes> expose(const memory::Region& region) override;
  void withdraw(std::uint32_t region_id) override;

  Expected<Offer> offer(const Peer& peer) override;
  Expected<Accepted> accept(const Peer& peer, Offer theirs) override;
  Expected<std::shared_ptr<Channel>> connect(const Peer& peer, Offer ours, Offer answer) override;
  Status wait(const Operation& operation, Deadline deadline,
              const std::function<bool()>& interrupted) override;
  std::vector<std::pair<std::string, std::string>> facts() const override;

  // The parts of offers, for peers that meet in another way.
  Bytes address();
  std::uint64_t new_token();
  Expected<std::shared_ptr<Channel>> reach(ConstSpan address, std::uint64_t local_token,
                                           std::uint64_t remote_token);

  // By host and port: see Listener.
  Expected<std::shared_ptr<Listener>> listen(const std::string& ip, std::uint16_t port,
                                             UcxChannel::Ready accept, bool anywhere = false);
  Expected<std::shared_ptr<Channel>> dial(const std::string& ip, std::uint16_t port);

 private:
  explicit UcxDoor(std::shared_ptr<Worker> worker) : worker_(std::move(worker)) {}

  std::shared_ptr<Worker> worker_;
  std::mutex mutex_;  // everything below
  Progress* progress_ = nullptr;
  std::map<std::uint32_t, std::unique_ptr<Registration>> registrations_;
};

}  // namespace pshpc::fabric::ucx
