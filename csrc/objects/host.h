#pragma once
// The serving side of connections: checks who comes, then answers their requests.

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "fabric/socket/server.h"
#include "objects/messenger.h"
#include "objects/service.h"

namespace pshpc::objects {

class Host : public fabric::FrameHandler {
 public:
  Host(std::shared_ptr<Owner> owner, Exposure& exposure, Service& service, Messenger& messenger,
       std::string store, Tag secret);

  // Told to processes that have no store of this name yet (JSON).
  void set_config(std::string config);

  void opened(const std::shared_ptr<fabric::ServerConnection>& connection) override;
  Status frame(const std::shared_ptr<fabric::ServerConnection>& connection,
               fabric::Frame frame) override;
  void closed(const std::shared_ptr<fabric::ServerConnection>& connection) override;

 private:
  struct Guest;

  Status greet(const std::shared_ptr<fabric::ServerConnection>& connection, Guest& guest,
               fabric::Frame frame);
  Expected<Tag> proven(const fabric::ServerConnection& connection, const Guest& guest,
                       const Hello& hello, bool* trusted) const;
  std::vector<DoorOffer> accept_offers(Guest& guest, const std::vector<DoorOffer>& offers);

  std::shared_ptr<Owner> owner_;
  Exposure& exposure_;
  Service& service_;
  Messenger& messenger_;
  const std::string store_;
  const Tag secret_;

  std::mutex mutex_;
  std::string config_;
  std::uint64_t next_connection_ = 1;
};

}  // namespace pshpc::objects
