#pragma once
// A door within one process, with the failures of a network at the push of a button. Messages are
// delivered on the receiver's progress thread, reads and writes run on the caller's.

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fabric/door.h"

namespace pshpc::test {

class FakeChannel;

class FakeDoor : public fabric::Door, public std::enable_shared_from_this<FakeDoor> {
 public:
  static std::shared_ptr<FakeDoor> create(bool one_sided);
  ~FakeDoor() override;

  // Reads, writes and messages that go out wait until release().
  std::atomic<bool> hold_out{false};
  // Payloads that come in stop after they were given their destination, until release().
  std::atomic<bool> hold_in{false};
  void release();
  // The next read, write or message takes its channel down with it.
  std::atomic<bool> lose_next{false};
  // Payloads that come in are refused as if they had no destination.
  std::atomic<bool> refuse_payloads{false};
  // Runs before every read or write.
  std::function<void()> before_transfer;

  std::atomic<int> reads{0}, writes{0}, messages{0}, payloads_in{0};
  int exposed() const;
  int connected();

  std::string name() const override { return "fake"; }
  Status start(fabric::Progress& progress, fabric::Receiver& receiver) override;
  void stop() override;
  Expected<Bytes> expose(const memory::Region& region) override;
  void withdraw(std::uint32_t region_id) override;
  Expected<fabric::Offer> offer(const fabric::Peer& peer) override;
  Expected<Accepted> accept(const fabric::Peer& peer, fabric::Offer theirs) override;
  Expected<std::shared_ptr<fabric::Channel>> connect(const fabric::Peer& peer, fabric::Offer ours,
                                                     fabric::Offer answer) override;
  Status wait(const fabric::Operation& operation, Deadline deadline,
              const std::function<bool()>& interrupted) override;
  std::vector<std::pair<std::string, std::string>> facts() const override { return {}; }

 private:
  friend class FakeChannel;
  struct Landing {
    std::shared_ptr<FakeChannel> channel;
    Bytes header;
    Bytes payload;
    Span into;
  };

  explicit FakeDoor(bool one_sided) : one_sided_(one_sided) {}
  void post(std::function<void()> job);
  void flush();
  Span span_of(std::uint32_t region);
  void receive(std::uint64_t token, Bytes header, Bytes payload);
  void land(Landing landing);
  void tell_lost(const std::shared_ptr<FakeChannel>& channel);

  const bool one_sided_;
  std::uint64_t id_ = 0;

  mutable std::mutex mutex_;
  fabric::Progress* progress_ = nullptr;
  fabric::Receiver* receiver_ = nullptr;
  std::map<std::uint32_t, Span> regions_;
  std::map<std::uint64_t, std::weak_ptr<FakeChannel>> channels_;
  std::vector<Landing> landings_;
  std::uint64_t next_token_ = 1;
};

class FakeChannel : public fabric::Channel, public std::enable_shared_from_this<FakeChannel> {
 public:
  FakeChannel(std::shared_ptr<FakeDoor> door, std::weak_ptr<FakeDoor> peer, std::uint64_t token,
              std::uint64_t remote_token);
  ~FakeChannel() override { close(); }

  std::uint64_t token() const override { return token_; }
  bool one_sided() const override { return door_->one_sided_; }
  bool alive() const override { return alive_; }
  std::string describe() const override { return "fake/memory"; }
  void send(fabric::Message message, fabric::Operation* operation) override;
  Expected<std::shared_ptr<fabric::RemoteRegion>> import(ConstSpan handle) override;
  void read(const fabric::RemoteRegion& region, std::uint64_t offset, Span into,
            fabric::Operation* operation) override;
  void write(const fabric::RemoteRegion& region, std::uint64_t offset, ConstSpan from,
             fabric::Operation* operation) override;
  void close() override;

 private:
  friend class FakeDoor;
  using Work = std::function<Status()>;
  struct Pending {
    Work work;
    fabric::Operation* operation;
  };
  void begin(Work work, fabric::Operation* operation);
  void flush();

  const std::shared_ptr<FakeDoor> door_;
  const std::weak_ptr<FakeDoor> peer_;
  const std::uint64_t token_;
  const std::uint64_t remote_token_;
  std::atomic<bool> alive_{true};
  std::mutex mutex_;
  std::deque<Pending> pending_;
};

}  // namespace pshpc::test
