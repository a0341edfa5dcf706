#include "fabric/ucx/channel.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fabric/ucx/errors.h"
#include "fabric/ucx/inspect.h"
#include "fabric/ucx/memory.h"

namespace pshpc::fabric::ucx {
namespace {

// From here on two processors that copy at the same time win over one that also looks up each page.
constexpr std::size_t kLargeForKernel = 16 << 20;

Status forked() {
  return {Code::forked, "this UCX endpoint belongs to the parent of this process"};
}

ucp_request_param_t callback_params(Flight& flight) {
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.send = Worker::on_sent;
  params.user_data = &flight;
  return params;
}

}  // namespace

UcxChannel::UcxChannel(std::shared_ptr<Worker> worker, std::uint64_t local_token)
    : worker_(std::move(worker)),
      local_token_(local_token),
      endpoint_(*this, worker_->context()->options().error_handling) {}

UcxChannel::~UcxChannel() { close(); }

Expected<std::shared_ptr<UcxChannel>> UcxChannel::connect(const std::shared_ptr<Worker>& worker,
                                                          const ProcessId& peer, ConstSpan address,
                                                          std::uint64_t local_token,
                                                          std::uint64_t remote_token) {
  if (peer.gone())
    return Status(Code::peer_lost, "process " + std::to_string(peer.pid) + " has ended");
  Fd process = peer.open();
  auto channel = std::make_shared<UcxChannel>(worker, local_token);
  Status made;
  {
    Worker::Guard guard(*worker);
    if (!guard) return forked();
    channel->remote_token_ = remote_token;
    made = channel->endpoint_.connect_locked(worker->handle(), address);
    if (made.ok()) {
      channel->open_locked(guard);
      worker->deaths().add(std::move(process), *channel);
    }
  }
  if (!made.ok()) return made;
  return channel;
}

Expected<std::shared_ptr<UcxChannel>> UcxChannel::dial(const std::shared_ptr<Worker>& worker,
                                                       const sockaddr* address, socklen_t size) {
  std::shared_ptr<UcxChannel> channel;
  Status made;
  {
    Worker::Guard guard(*worker);
    if (!guard) return forked();
    channel = std::make_shared<UcxChannel>(worker, worker->inbox().new_token());
    made = channel->endpoint_.dial_locked(worker->handle(), address, size);
    if (made.ok()) {
      channel->open_locked(guard);
      channel->greet_locked(guard);
    }
  }
  if (!made.ok()) return made;
  return channel;
}

Expected<std::shared_ptr<UcxChannel>> UcxChannel::accept(const std::shared_ptr<Worker>& worker,
                                                         ucp_conn_request_h request, Ready ready) {
  std::shared_ptr<UcxChannel> channel;
  Status made;
  {
    Worker::Guard guard(*worker);
    if (!guard) return forked();
    channel = std::make_shared<UcxChannel>(worker, worker->inbox().new_token());
    channel->ready_ = std::move(ready);
    made = channel->endpoint_.accept_locked(worker->handle(), request);
    if (made.ok()) {
      channel->self_ = channel;
      channel->open_locked(guard);
      channel->greet_locked(guard);
    }
  }
  if (!made.ok()) return made;
  return channel;
}

void UcxChannel::open_locked(Worker::Guard& guard) {
  worker_->inbox().attach(local_token_, shared_from_this());
  look_at_lanes_locked();
  guard.wake();
}

void UcxChannel::look_at_lanes_locked() {
  lanes_ = parse_lanes(endpoint_.describe_locked());
  one_sided_ = reads_one_sided(lanes_, version().at_least(1, 16));
  if (!one_sided_)
    message_from_ = 0;
  else
    message_from_ = reads_by_kernel(lanes_) ? kLargeForKernel : SIZE_MAX;
}

std::string UcxChannel::describe() const {
  const Worker::Guard guard(*worker_);
  return guard ? ucx::describe(lanes_) : "";
}

Status UcxChannel::usable_locked(const Worker::Guard& guard) const {
  if (!guard) return forked();
  if (endpoint_ && ended_.ok()) return {};
  return ended_.ok() ? Status(Code::peer_lost, "the ucx channel is closed") : ended_;
}

void UcxChannel::post_locked(Worker::Guard& guard, MessageKind kind, ConstSpan header,
                             Payload payload, Operation* operation) {
  Flight& flight = guard.depart(operation, "sending to", local_token_);
  flight.is_send = true;
  flight.keep = std::move(payload.keep);
  const std::uint64_t token = kind == MessageKind::greeting ? local_token_ : remote_token_;
  const std::uint32_t sequence = kind == MessageKind::greeting ? 0 : sequence_++;
  const Prefix prefix{token, sequence, kind};
  flight.header.resize(sizeof prefix + header.size);
  std::memcpy(flight.header.data(), &prefix, sizeof prefix);
  copy_bytes(flight.header.data() + sizeof prefix, header);

  ucp_request_param_t params = callback_params(flight);
  if (kind != MessageKind::message) {
    params.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_AM_SEND_FLAG_EAGER;
    if (kind == MessageKind::greeting) params.flags |= UCP_AM_SEND_FLAG_REPLY;
  }
  const void* what = payload.first.data;
  std::size_t count = payload.first.size;
  if (!payload.more.empty()) {
    flight.pieces.clear();
    const auto add = [&](ConstSpan piece) {
      flight.pieces.push_back({const_cast<std::uint8_t*>(piece.data), piece.size});
    };
    add(payload.first);
    for (const ConstSpan& piece : payload.more) add(piece);
    params.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
    params.datatype = ucp_dt_make_iov();
    what = flight.pieces.data();
    count = flight.pieces.size();
  }
  guard.settle(flight, ucp_am_send_nbx(endpoint_.handle(), kMessageId, flight.header.data(),
                                       flight.header.size(), what, count, &params));
}

void UcxChannel::send_locked(Worker::Guard& guard, Message message, Operation* operation) {
  const auto& options = worker_->context()->options();
  std::size_t room = worker_->max_header() - sizeof(Prefix);
  if (options.max_inline_header > 0) room = std::min(room, options.max_inline_header);
  ConstSpan header(message.header);
  if (header.size > room) {
    auto kept = std::make_shared<const Bytes>(message.header.copy());
    post_locked(guard, MessageKind::long_header, {}, {*kept, kept}, nullptr);
    header = {};
  }
  post_locked(guard, MessageKind::message, header, std::move(message.payload), operation);
}

void UcxChannel::send(Message message, Operation* operation) {
  Worker::Guard guard(*worker_);
  Status bad = usable_locked(guard);
  if (bad.ok() && message.header.size > kMaxHeader)
    bad = {Code::invalid, "a message header of " + std::to_string(message.header.size) +
                              " bytes; at most " + std::to_string(kMaxHeader) + " are allowed"};
  if (!bad.ok())
    guard.complete(operation, std::move(bad));
  else if (remote_token_ == 0 || !unsent_.empty())
    unsent_.push_back({message.header.copy(), std::move(message.payload), operation});
  else
    send_locked(guard, std::move(message), operation);
}

void UcxChannel::greet_locked(Worker::Guard& guard) {
  worker_->inbox().await_greeting(endpoint_.handle(), this);
  post_locked(guard, MessageKind::greeting, {}, {}, nullptr);
}

void UcxChannel::greeted_locked(std::uint64_t remote_token) {
  remote_token_ = remote_token;
  look_at_lanes_locked();
  worker_->inbox().later([self = shared_from_this()] { self->flush_unsent(); });
}

void UcxChannel::flush_unsent() {
  std::shared_ptr<UcxChannel> self;
  Ready ready;
  {
    Worker::Guard guard(*worker_);
    while (guard && endpoint_ && !unsent_.empty()) {
      Unsent next = std::move(unsent_.front());
      unsent_.pop_front();
      send_locked(guard, {next.header, std::move(next.payload)}, next.operation);
    }
    ready.swap(ready_);
    self.swap(self_);
  }
  if (ready) ready(shared_from_this());
}

Expected<std::shared_ptr<RemoteRegion>> UcxChannel::import(ConstSpan handle) {
  const Worker::Guard guard(*worker_);
  const Status bad = usable_locked(guard);
  if (!bad.ok()) return bad;
  return Remote::unpack_locked(worker_, endpoint_.handle(), handle);
}

Status UcxChannel::check_span_locked(const Worker::Guard& guard, const RemoteRegion& region,
                                     std::uint64_t offset, std::uint64_t size) const {
  Status bad = usable_locked(guard);
  const auto& remote = static_cast<const Remote&>(region);
  if (bad.ok() && !remote.covers(offset, size))
    bad = {Code::invalid, std::to_string(size) + " bytes at offset " + std::to_string(offset) +
                              " of a remote region of " + std::to_string(remote.length())};
  return bad;
}

void UcxChannel::read(const RemoteRegion& region, std::uint64_t offset, Span into,
                      Operation* operation) {
  Worker::Guard guard(*worker_);
  Status bad = check_span_locked(guard, region, offset, into.size);
  if (!bad.ok() || into.empty()) return guard.complete(operation, std::move(bad));
  const auto& remote = static_cast<const Remote&>(region);
  Flight& flight = guard.depart(operation, "reading from", local_token_);
  const ucp_request_param_t params = callback_params(flight);
  guard.settle(flight, ucp_get_nbx(endpoint_.handle(), into.data, into.size, remote.address(offset),
                                   remote.key(), &params));
}

void UcxChannel::write(const RemoteRegion& region, std::uint64_t offset, ConstSpan from,
                       Operation* operation) {
  Worker::Guard guard(*worker_);
  Status bad = check_span_locked(guard, region, offset, from.size);
  if (!bad.ok() || from.empty()) return guard.complete(operation, std::move(bad));
  const auto& remote = static_cast<const Remote&>(region);
  Flight& flight = guard.depart(operation, "writing to", local_token_);
  ucp_request_param_t plain{};
  const ucs_status_ptr_t put = ucp_put_nbx(endpoint_.handle(), from.data, from.size,
                                           remote.address(offset), remote.key(), &plain);
  if (UCS_PTR_IS_ERR(put)) return guard.settle(flight, put);
  // The flush below covers it, and fails with it.
  if (UCS_PTR_IS_PTR(put)) ucp_request_free(put);
  const ucp_request_param_t params = callback_params(flight);
  guard.settle(flight, ucp_ep_flush_nbx(endpoint_.handle(), &params));
}

void UcxChannel::close() {
  std::deque<Unsent> unsent;
  std::shared_ptr<UcxChannel> self;
  Ready ready;
  Worker::Guard guard(*worker_);
  alive_ = false;
  if (!guard || !endpoint_) return;
  if (ended_.ok()) ended_ = {Code::peer_lost, "the ucx channel was closed"};
  worker_->deaths().remove(*this);
  worker_->inbox().forget_greeting(endpoint_.handle());
  worker_->inbox().detach(local_token_);
  endpoint_.close_locked();
  guard.abandon_sends(local_token_, ended_);
  if (!uses_rdma(lanes_)) worker_->inbox().abandon_landings(*this, ended_);
  unsent.swap(unsent_);
  ready.swap(ready_);
  self.swap(self_);
  for (const Unsent& message : unsent) guard.complete(message.operation, ended_);
  guard.wake();
}

void UcxChannel::failed_locked(ucs_status_t why) {
  Status ended = to_status(why, "the peer is lost (" + ucx::describe(lanes_) + ")");
  if (shares_memory(lanes_) && !worker_->inbox().heard_of(local_token_))
    // Reachability was judged by namespaces; permissions show only in use.
    end_locked({Code::unavailable,
                ended.message() +
                    "; nothing ever came through, as between different users or pid namespaces: "
                    "a door limited to \"tcp\" may reach it"});
  else
    end_locked({Code::peer_lost, ended.message()});
}

void UcxChannel::died_locked() { end_locked({Code::peer_lost, "the peer's process has ended"}); }

void UcxChannel::end_locked(Status why) {
  if (!alive_.exchange(false)) return;
  ended_ = std::move(why);
  if (auto self = weak_from_this().lock())
    worker_->inbox().later([self] {
      Receiver* receiver = self->worker_->inbox().receiver();
      self->close();
      if (receiver != nullptr) receiver->lost(self, self->ended_);
    });
}

}  // namespace pshpc::fabric::ucx
