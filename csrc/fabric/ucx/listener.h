#pragma once
// Connections by host and port, for peers that have no worker address of ours yet.

#include <cstdint>
#include <memory>
#include <string>

#include <ucp/api/ucp.h>

#include "fabric/ucx/channel.h"

namespace pshpc::fabric::ucx {

class Listener : public std::enable_shared_from_this<Listener> {
 public:
  // Binds to one numeric address of this machine; "0.0.0.0" and "::" only if `anywhere` says that
  // the whole network may come: whoever connects can read and write this process' memory.
  // `accept` runs like a Receiver's callbacks, with channels that are ready for use.
  static Expected<std::shared_ptr<Listener>> open(const std::shared_ptr<Worker>& worker,
                                                  const std::string& ip, std::uint16_t port,
                                                  UcxChannel::Ready accept, bool anywhere = false);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // The one that the system chose, if 0 was asked for.
  std::uint16_t port() const { return port_; }

 private:
  Listener(std::shared_ptr<Worker> worker, UcxChannel::Ready accept);
  static void on_request(ucp_conn_request_h request, void* self);
  void answer(ucp_conn_request_h request);

  std::shared_ptr<Worker> worker_;
  UcxChannel::Ready accept_;
  ucp_listener_h handle_ = nullptr;
  std::uint16_t port_ = 0;
};

Expected<std::shared_ptr<UcxChannel>> dial(const std::shared_ptr<Worker>& worker,
                                           const std::string& ip, std::uint16_t port);

}  // namespace pshpc::fabric::ucx
