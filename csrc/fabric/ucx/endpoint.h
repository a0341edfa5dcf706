#pragma once
// A UCP endpoint: made, watched and closed under the worker's lock.

#include <sys/socket.h>

#include <string>

#include <ucp/api/ucp.h>

#include "base/span.h"
#include "base/status.h"

namespace pshpc::fabric::ucx {

class Endpoint {
 public:
  // Told once when UCX gives the peer up; the endpoint is still to be closed.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void failed_locked(ucs_status_t why) = 0;
  };

  Endpoint(Owner& owner, bool error_handling) : owner_(owner), error_handling_(error_handling) {}
  // Closed by then.
  ~Endpoint() = default;
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  Status connect_locked(ucp_worker_h worker, ConstSpan worker_address);
  Status dial_locked(ucp_worker_h worker, const sockaddr* address, socklen_t size);
  Status accept_locked(ucp_worker_h worker, ucp_conn_request_h request);
  // By force. What is in flight ends as canceled, some of it with the next progress.
  void close_locked();

  ucp_ep_h handle() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }
  // UCX's own description, for the parser in lanes.h.
  std::string describe_locked() const;

 private:
  Status create(ucp_worker_h worker, ucp_ep_params_t& params);
  static void on_error(void* self, ucp_ep_h endpoint, ucs_status_t status);

  Owner& owner_;
  bool error_handling_;
  ucp_ep_h handle_ = nullptr;
};

}  // namespace pshpc::fabric::ucx
