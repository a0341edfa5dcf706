#pragma once
// The serving side of connections: checks who comes, then takes their requests.

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fabric/socket/server.h"
#include "rpc/exposure.h"
#include "rpc/hello.h"
#include "rpc/messenger.h"

namespace pshpc::rpc {

// What stands behind a host and has a say in who comes in.
class Gate {
 public:
  virtual ~Gate() = default;
  // The key that opens one thing, for those who do not know the secret.
  virtual std::optional<Tag> ticket(std::uint64_t number) = 0;
  // A connection begins; `attached` came with its hello. A failure turns it away.
  virtual Status joined(const Caller& caller, std::vector<Fd> attached) = 0;
  // After it no message of the connection arrives any more.
  virtual void left(const Caller& caller) = 0;
};

class Host : public fabric::FrameHandler {
 public:
  struct Options {
    EngineId self{};
    std::string name;  // told to peers
    Tag secret{};      // of the job; all zero: none
    // Whoever runs as the same user on the same node is trusted, secret or not.
    bool trust_user = true;
  };

  Host(Options options, Exposure& exposure, Messenger& messenger, Gate* gate);

  // Told to processes that have no store of this name yet (JSON).
  void set_config(std::string config);
  std::uint64_t turned_away() const { return turned_away_.load(std::memory_order_relaxed); }

  void opened(const std::shared_ptr<fabric::ServerConnection>& connection) override;
  Status frame(const std::shared_ptr<fabric::ServerConnection>& connection,
               fabric::Frame frame) override;
  void closed(const std::shared_ptr<fabric::ServerConnection>& connection) override;

 private:
  struct Guest;

  Status greet(const std::shared_ptr<fabric::ServerConnection>& connection, Guest& guest,
               fabric::Frame frame);
  Status serve(const std::shared_ptr<fabric::ServerConnection>& connection, Guest& guest,
               fabric::Frame frame);
  Expected<Tag> proven(const fabric::ServerConnection& connection, const Guest& guest,
                       const Hello& hello, bool* trusted) const;
  std::vector<DoorOffer> accept_offers(Guest& guest, const std::vector<DoorOffer>& offers,
                                       std::vector<Fd> fds);

  const Options options_;
  Exposure& exposure_;
  Messenger& messenger_;
  Gate* const gate_;
  std::atomic<std::uint64_t> turned_away_{0};

  std::mutex mutex_;
  std::string config_;
  std::uint64_t next_connection_ = 1;
};

}  // namespace pshpc::rpc
