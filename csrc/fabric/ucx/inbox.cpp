#include "fabric/ucx/inbox.h"

#include <cstring>

#include "base/log.h"
#include "base/siphash.h"
#include "fabric/ucx/errors.h"
#include "fabric/ucx/worker.h"

namespace pshpc::fabric::ucx {
namespace {

// Up to here a copy costs less than keeping UCX's buffer and giving it back under the lock.
constexpr std::size_t kCopied = 2048;

}  // namespace

Status Inbox::open() {
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kMessageId;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG | UCP_AM_FLAG_PERSISTENT_DATA;
  handler.cb = on_message;
  handler.arg = this;
  return to_status(ucp_worker_set_am_recv_handler(worker_.handle(), &handler),
                   "registering the receiver of active messages");
}

std::uint64_t Inbox::new_token() {
  std::uint64_t token = 0;
  while (token == 0 || mailboxes_.count(token) != 0) {
    const Tag random = random_tag();
    std::memcpy(&token, random.data(), sizeof token);
  }
  mailboxes_[token];
  return token;
}

void Inbox::attach(std::uint64_t token, const std::shared_ptr<Channel>& channel) {
  Mailbox& mailbox = mailboxes_[token];
  mailbox.channel = channel;
  mailbox.open = true;
  for (Arrival& arrival : mailbox.early) arrival.channel = channel;
  news_.splice(news_.end(), mailbox.early);
}

void Inbox::detach(std::uint64_t token) {
  const auto found = mailboxes_.find(token);
  if (found == mailboxes_.end()) return;
  for (auto& [sequence, waiting] : found->second.waiting) {
    for (Arrival& arrival : waiting.second) discard(arrival);
    recycle(waiting.second);
  }
  for (Arrival& arrival : found->second.early) discard(arrival);
  recycle(found->second.early);
  mailboxes_.erase(found);
}

bool Inbox::heard_of(std::uint64_t token) const {
  const auto found = mailboxes_.find(token);
  return found != mailboxes_.end() && found->second.next > 0;
}

std::vector<std::shared_ptr<Channel>> Inbox::open_channels() const {
  std::vector<std::shared_ptr<Channel>> channels;
  for (const auto& [token, mailbox] : mailboxes_)
    if (auto channel = mailbox.channel.lock()) channels.push_back(std::move(channel));
  return channels;
}

void Inbox::later(std::function<void()> job) {
  std::list<Arrival> arrival = blank();
  arrival.front().what = Arrival::What::job;
  arrival.front().job = std::move(job);
  news_.splice(news_.end(), arrival);
}

std::list<Arrival> Inbox::blank() {
  std::list<Arrival> node;
  if (spare_.empty())
    node.emplace_back();
  else
    node.splice(node.end(), spare_, spare_.begin());
  node.front().inbox = this;
  return node;
}

void Inbox::recycle(std::list<Arrival>& batch) {
  for (Arrival& arrival : batch) {
    arrival.what = Arrival::What::announced;
    arrival.header.clear();
    arrival.small.clear();
    arrival.data = nullptr;
    arrival.size = 0;
    arrival.rendezvous = false;
    arrival.abandoned = false;
    arrival.into = {};
    arrival.status = {};
    arrival.job = nullptr;
  }
  spare_.splice(spare_.end(), batch);
}

void Inbox::discard(Arrival& arrival) {
  if (arrival.data != nullptr) ucp_am_data_release(worker_.handle(), arrival.data);
  arrival.data = nullptr;
}

void Inbox::abandon_landings(const Channel& channel, const Status& why) {
  for (Arrival& arrival : landing_) {
    if (arrival.channel.get() != &channel) continue;
    std::list<Arrival> node = blank();
    Arrival& ended = node.front();
    ended.what = Arrival::What::landed;
    ended.channel = std::move(arrival.channel);
    ended.header.swap(arrival.header);
    ended.into = arrival.into;
    ended.status = why;
    news_.splice(news_.end(), node);
    arrival.abandoned = true;
  }
}

void Inbox::drop_all() {
  for (auto& [token, mailbox] : mailboxes_) {
    for (auto& [sequence, waiting] : mailbox.waiting)
      for (Arrival& arrival : waiting.second) discard(arrival);
    for (Arrival& arrival : mailbox.early) discard(arrival);
  }
  for (Arrival& arrival : news_) discard(arrival);
  mailboxes_.clear();
  ungreeted_.clear();
}

ucs_status_t Inbox::on_message(void* self, const void* header, std::size_t header_size, void* data,
                               std::size_t size, const ucp_am_recv_param_t* param) {
  Inbox& inbox = *static_cast<Inbox*>(self);
  bool keep = false;
  if (!inbox.take({header, header_size}, data, size, *param, &keep)) {
    inbox.rejected_.fetch_add(1, std::memory_order_relaxed);
    log_warn_once("ucx: a message for nobody here was dropped");
  }
  return keep ? UCS_INPROGRESS : UCS_OK;
}

bool Inbox::take(ConstSpan header, void* data, std::size_t size, const ucp_am_recv_param_t& param,
                 bool* keep) {
  Prefix prefix{};
  if (header.size < sizeof prefix) return false;
  std::memcpy(&prefix, header.data, sizeof prefix);

  const bool rendezvous = (param.recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  if (rendezvous && prefix.kind != MessageKind::message) return false;

  if (prefix.kind == MessageKind::greeting) {
    const auto found = (param.recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0
                           ? ungreeted_.find(param.reply_ep)
                           : ungreeted_.end();
    if (found == ungreeted_.end()) return false;
    Greeted* channel = found->second;
    ungreeted_.erase(found);
    channel->greeted_locked(prefix.token);
    return true;
  }

  const auto found = mailboxes_.find(prefix.token);
  if (found == mailboxes_.end()) return false;
  Mailbox& mailbox = found->second;

  std::list<Arrival> node = blank();
  Arrival& arrival = node.front();
  const ConstSpan rest = header.from(sizeof prefix);
  arrival.header.assign(rest.data, rest.data + rest.size);
  arrival.size = size;
  arrival.rendezvous = rendezvous;
  const bool copied = size <= kCopied || prefix.kind == MessageKind::long_header;
  if (!rendezvous && copied) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    arrival.small.assign(bytes, bytes + size);
  } else {
    arrival.data = data;
    *keep = true;
  }

  if (prefix.sequence != mailbox.next) {
    mailbox.waiting[prefix.sequence] = {prefix.kind, std::move(node)};
    return true;
  }
  admit(mailbox, prefix.kind, node);
  for (auto next = mailbox.waiting.find(mailbox.next); next != mailbox.waiting.end();
       next = mailbox.waiting.find(mailbox.next)) {
    admit(mailbox, next->second.first, next->second.second);
    mailbox.waiting.erase(next);
  }
  return true;
}

void Inbox::admit(Mailbox& mailbox, MessageKind kind, std::list<Arrival>& node) {
  ++mailbox.next;
  Arrival& arrival = node.front();
  if (kind == MessageKind::long_header) {
    mailbox.long_header.swap(arrival.small);
    mailbox.has_long_header = true;
    recycle(node);
    return;
  }
  if (mailbox.has_long_header) {
    arrival.header.swap(mailbox.long_header);
    mailbox.has_long_header = false;
  }
  if (mailbox.open) {
    arrival.channel = mailbox.channel.lock();
    news_.splice(news_.end(), node);
  } else {
    mailbox.early.splice(mailbox.early.end(), node);
  }
}

void Inbox::publish(std::list<Arrival>& batch, std::list<Arrival>::iterator at) {
  Arrival& arrival = *at;
  if (arrival.what == Arrival::What::job) {
    // Moved out: what it holds may end here, and its end may take the lock.
    const std::function<void()> job = std::move(arrival.job);
    job();
    return;
  }
  Receiver* receiver = receiver_.load();
  const std::shared_ptr<Channel> channel = std::move(arrival.channel);
  if (receiver == nullptr || channel == nullptr ||
      (!channel->alive() && arrival.what == Arrival::What::announced)) {
    const Worker::Guard guard(worker_);
    if (guard) discard(arrival);
    return;
  }
  if (arrival.what == Arrival::What::landed) {
    receiver->arrived(channel, arrival.header, arrival.into, std::move(arrival.status));
    return;
  }
  if (arrival.size > 0) {
    const Span offered = receiver->destination(channel, arrival.header, arrival.size);
    if (offered.size < arrival.size)
      arrival.status = {Code::invalid, "a payload of " + std::to_string(arrival.size) +
                                           " bytes was refused by its receiver"};
    else
      arrival.into = offered.slice(0, arrival.size);
  }
  if (arrival.rendezvous && arrival.status.ok()) {
    arrival.channel = channel;
    accept(batch, at);
    return;
  }
  if (!arrival.into.empty()) {
    const void* from = arrival.data != nullptr ? arrival.data : arrival.small.data();
    copy_bytes(arrival.into.data, {from, arrival.size});
  }
  if (arrival.data != nullptr) {
    const Worker::Guard guard(worker_);
    if (guard) discard(arrival);
  }
  receiver->arrived(channel, arrival.header, arrival.into, std::move(arrival.status));
}

void Inbox::accept(std::list<Arrival>& batch, std::list<Arrival>::iterator at) {
  Worker::Guard guard(worker_);
  Arrival& arrival = *at;
  landing_.splice(landing_.end(), batch, at);
  arrival.self = at;
  arrival.what = Arrival::What::landed;
  if (!guard) return;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.recv_am = on_landed;
  params.user_data = &arrival;
  void* data = std::exchange(arrival.data, nullptr);
  const ucs_status_ptr_t posted =
      ucp_am_recv_data_nbx(worker_.handle(), data, arrival.into.data, arrival.size, &params);
  if (UCS_PTR_IS_PTR(posted))
    guard.wake();
  else
    on_landed(nullptr, UCS_PTR_RAW_STATUS(posted), arrival.size, &arrival);
}

void Inbox::on_landed(void* request, ucs_status_t status, std::size_t, void* user_data) {
  Arrival& arrival = *static_cast<Arrival*>(user_data);
  if (request != nullptr) ucp_request_free(request);
  Inbox& inbox = *arrival.inbox;
  if (arrival.abandoned) {
    std::list<Arrival> node;
    node.splice(node.end(), inbox.landing_, arrival.self);
    inbox.recycle(node);
    return;
  }
  if (status != UCS_OK) arrival.status = to_status(status, "receiving a payload over ucx");
  inbox.news_.splice(inbox.news_.end(), inbox.landing_, arrival.self);
}

}  // namespace pshpc::fabric::ucx
