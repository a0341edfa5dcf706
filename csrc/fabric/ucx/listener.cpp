#include "fabric/ucx/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>

#include "base/log.h"
#include "fabric/ucx/errors.h"

namespace pshpc::fabric::ucx {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  bool anywhere = false;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Expected<Address> parse(const std::string& ip, std::uint16_t port) {
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof *v4;
    address.anywhere = v4->sin_addr.s_addr == htonl(INADDR_ANY);
    return address;
  }
  address.storage = {};
  if (::inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof *v6;
    address.anywhere = IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
    return address;
  }
  return Status(Code::invalid, "\"" + ip + "\" is not a numeric IP address");
}

std::uint16_t port_of(const sockaddr_storage& storage) {
  return ntohs(storage.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

}  // namespace

Expected<std::shared_ptr<Listener>> Listener::open(const std::shared_ptr<Worker>& worker,
                                                   const std::string& ip, std::uint16_t port,
                                                   UcxChannel::Ready accept, bool anywhere) {
  auto address = parse(ip, port);
  if (!address) return address.status();
  if (address->anywhere && !anywhere)
    return Status(Code::denied, "listening on " + ip +
                                    " would open this process' memory to every network; name the "
                                    "address of one interface");
  std::shared_ptr<Listener> listener(new Listener(worker, std::move(accept)));
  const Worker::Guard guard(*worker);
  if (!guard) return Status(Code::forked, "this UCX worker belongs to the parent process");

  ucp_listener_params_t params{};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr.addr = address->get();
  params.sockaddr.addrlen = address->size;
  params.conn_handler.cb = on_request;
  params.conn_handler.arg = listener.get();
  const std::string attempted = "listening on " + ip + ":" + std::to_string(port);
  ucs_status_t status = ucp_listener_create(worker->handle(), &params, &listener->handle_);
  if (status != UCS_OK) return to_status(status, attempted);

  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  status = ucp_listener_query(listener->handle_, &attributes);
  if (status != UCS_OK) return to_status(status, attempted);
  listener->port_ = port_of(attributes.sockaddr);
  return listener;
}

Listener::Listener(std::shared_ptr<Worker> worker, UcxChannel::Ready accept)
    : worker_(std::move(worker)), accept_(std::move(accept)) {}

Listener::~Listener() {
  const Worker::Guard guard(*worker_);
  if (guard && handle_ != nullptr) ucp_listener_destroy(handle_);
}

// Under the lock, inside ucp_worker_progress().
void Listener::on_request(ucp_conn_request_h request, void* self) {
  Listener& listener = *static_cast<Listener*>(self);
  if (auto alive = listener.weak_from_this().lock())
    listener.worker_->inbox().later([alive, request] { alive->answer(request); });
  else
    ucp_listener_reject(listener.handle_, request);
}

void Listener::answer(ucp_conn_request_h request) {
  // The channel lives in its own greeting until `accept` takes it over.
  auto ready = [listener = shared_from_this()](std::shared_ptr<Channel> channel) {
    listener->accept_(std::move(channel));
  };
  auto channel = UcxChannel::accept(worker_, request, std::move(ready));
  if (!channel) log_warn("ucx: a connection was not accepted: " + channel.status().message());
}

Expected<std::shared_ptr<UcxChannel>> dial(const std::shared_ptr<Worker>& worker,
                                           const std::string& ip, std::uint16_t port) {
  auto address = parse(ip, port);
  if (!address) return address.status();
  return UcxChannel::dial(worker, address->get(), address->size);
}

}  // namespace pshpc::fabric::ucx
