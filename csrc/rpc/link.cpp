#include "rpc/link.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace pshpc::rpc {

Link::Link(LinkContext context, Address address)
    : context_(std::move(context)), address_(std::move(address)) {}

Link::~Link() {
  for (auto& [door, channel] : channels_) context_.messenger->close(channel);
}

Expected<std::shared_ptr<Link>> Link::open(const LinkContext& context, const Address& address,
                                           const Options& options, Deadline deadline) {
  std::shared_ptr<Link> link(new Link(context, address));
  const auto failed = [&](const Status& status) {
    return status.within("reaching " + address.short_name());
  };
  if (!address.anyone()) {
    auto local = fabric::connect_abstract(address.node_socket(), deadline);
    if (local) {
      const Status status = link->connect_on_node(std::move(local).value(), options, deadline);
      if (!status.ok()) return failed(status);
      return link;
    }
    if (local.status().code() != Code::owner_gone) return failed(local.status());
    if (auto stream = link->dial()) {
      const Status status =
          link->greet_off_node(std::move(stream).value(), options, Hello::Proof::secret, deadline);
      if (!status.ok()) return failed(status);
      return link;
    }
    if (address.host.empty())
      return failed({Code::owner_gone,
                     "no process with its id listens on this node: it ended, or it runs on another "
                     "node and opened no door that reaches further"});
  }
  Status status(Code::denied,
                "off its node a peer wants the secret of the job, and this process was given none; "
                "pass the same secret= on both sides");
  if (context.secret != Tag{})
    status = link->connect_off_node(options, Hello::Proof::secret, deadline);
  // Of another job: a ticket still opens the way to what it is for.
  if (status.code() == Code::denied && options.ticket != nullptr)
    status = link->connect_off_node(options, Hello::Proof::ticket, deadline);
  if (!status.ok()) return failed(status);
  return link;
}

Status Link::connect_on_node(Fd fd, const Options& options, Deadline deadline) {
  auto peer = fabric::peer_credentials(fd.get());
  if (!peer) return peer.status();
  if (peer->uid != address_.uid)
    return {Code::denied, "the process at its node socket belongs to user " +
                              std::to_string(peer->uid) + ", not " + std::to_string(address_.uid)};
  on_node_ = true;
  pid_ = peer->pid;
  auto connection = std::make_shared<fabric::ClientConnection>(std::move(fd));
  const auto proof = context_.secret != Tag{}    ? Hello::Proof::secret
                     : options.ticket != nullptr ? Hello::Proof::ticket
                                                 : Hello::Proof::none;
  const Status said = say_hello(*connection, options, proof, deadline);
  if (!said.ok()) return said;
  connection_ = std::move(connection);
  return {};
}

Status Link::connect_off_node(const Options& options, Hello::Proof proof, Deadline deadline) {
  auto fd = fabric::connect_tcp(address_.host, address_.port, deadline);
  if (!fd) {
    const bool slow = fd.status().code() == Code::timed_out;
    return {slow ? Code::timed_out : Code::owner_gone, fd.status().message()};
  }
  return greet_off_node(std::move(fd).value(), options, proof, deadline);
}

Status Link::greet_off_node(Fd fd, const Options& options, Hello::Proof proof, Deadline deadline) {
  auto connection = std::make_shared<fabric::ClientConnection>(std::move(fd));
  const Status said = say_hello(*connection, options, proof, deadline);
  if (!said.ok()) return said;
  connection_ = std::move(connection);
  return {};
}

Expected<Fd> Link::dial() const {
  for (const auto& door : context_.exposure->doors()) {
    auto stream = door->dial(address_.id);
    if (stream || stream.status().code() != Code::unavailable) return stream;
  }
  return Status(Code::unavailable, "no door carries the hello there");
}

Status Link::say_hello(fabric::ClientConnection& connection, const Options& options,
                       Hello::Proof proof, Deadline deadline) {
  auto first = connection.receive(deadline);
  if (!first) return first.status();
  if (static_cast<FrameKind>(first->kind) != FrameKind::challenge)
    return {Code::protocol, "the other side is no proxystore_hpc"};
  auto challenge = Challenge::parse(first->body);
  if (!challenge) return challenge.status();
  if (address_.anyone()) address_.id = challenge->id;
  if (challenge->id != address_.id)
    return {Code::replaced,
            "another process answers at its address now: it ended and was replaced"};

  Hello hello;
  hello.client = context_.self;
  hello.proof_kind = proof;
  Tag key{};
  if (proof == Hello::Proof::secret) key = context_.secret;
  if (proof == Hello::Proof::ticket) {
    hello.ticket = options.ticket->number;
    key = options.ticket->key;
  }
  hello.proof = prove(key, challenge->nonce, hello.client.id, "hello");
  std::vector<int> fds;
  if (on_node_ && options.attach) {
    auto attached = options.attach();
    if (!attached) return attached.status();
    fds = std::move(attached).value();
    hello.attached = static_cast<std::uint8_t>(fds.size());
  }
  const fabric::Peer peer{on_node_, std::max<pid_t>(pid_, 0)};
  std::map<std::string, fabric::Offer> offers;
  for (const auto& door : context_.exposure->doors()) {
    auto offer = door->offer(peer);
    if (!offer) {
      log_debug("the " + door->name() + " door is not offered: " + offer.status().message());
      continue;
    }
    for (const GuardedFd& fd : offer->fds) fds.push_back(fd.get());
    hello.offers.push_back(
        {door->name(), offer->address, offer->token, static_cast<std::uint8_t>(offer->fds.size())});
    offers[door->name()] = std::move(offer).value();
  }
  auto answer =
      connection.call(static_cast<std::uint16_t>(FrameKind::hello), hello.encode(), deadline, fds);
  if (!answer) return answer.status();
  ConstSpan body;
  const Status greeted = decode_reply(answer->body, &body);
  if (!greeted.ok()) return greeted;
  auto welcome = Welcome::parse(body);
  if (!welcome) return welcome.status();
  // The kernel vouches for the node socket's other end; anyone may listen at a host and port.
  if (!on_node_ &&
      !equal_tags(welcome->proof, prove(key, challenge->nonce, hello.client.id, "welcome")))
    return {Code::denied, "the process at its address does not know the job's secret"};
  welcome_ = std::move(welcome).value();

  for (const DoorOffer& theirs : welcome_.offers) {
    const auto door = context_.exposure->door(theirs.door);
    const auto ours = offers.find(theirs.door);
    if (!door || ours == offers.end()) continue;
    fabric::Offer told;
    told.address = theirs.address;
    told.token = theirs.token;
    auto channel = door->connect(peer, std::move(ours->second), std::move(told));
    offers.erase(ours);
    if (channel)
      channels_[theirs.door] = std::move(channel).value();
    else
      log_warn_once("the " + theirs.door + " door to " + address_.short_name() +
                    " cannot be opened: " + channel.status().message());
  }
  return {};
}

std::shared_ptr<fabric::Channel> Link::channel(const std::string& door) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = channels_.find(door);
  if (found == channels_.end() || !found->second->alive()) return nullptr;
  return found->second;
}

bool Link::worn() const {
  if (worn_.load(std::memory_order_relaxed)) return true;
  std::lock_guard<std::mutex> lock(mutex_);
  return std::any_of(channels_.begin(), channels_.end(),
                     [](const auto& each) { return !each.second->alive(); });
}

void Link::drop_channel(const std::string& door) {
  std::shared_ptr<fabric::Channel> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = channels_.find(door);
    if (found == channels_.end()) return;
    dropped = std::move(found->second);
    channels_.erase(found);
  }
  worn_ = true;
  context_.messenger->close(dropped);
}

std::shared_ptr<fabric::Channel> Link::best_channel(fabric::DoorHandle* door) const {
  for (const auto& candidate : context_.exposure->doors()) {
    auto channel = this->channel(candidate->name());
    if (!channel || !channel->serves_messages()) continue;
    if (door != nullptr) *door = candidate;
    return channel;
  }
  return nullptr;
}

Status Link::wait(fabric::Door& door, const fabric::Operation& operation, Deadline deadline) const {
  Status waited = door.wait(operation, deadline, [this] { return !alive(); });
  return waited.ok() ? operation.status() : waited;
}

Expected<Reply> Link::ask(const Target& target, ConstSpan body, Deadline deadline) {
  fabric::DoorHandle door;
  while (const auto channel = best_channel(&door)) {
    auto call = std::make_unique<Call>();
    context_.messenger->start(channel, target, body, {}, deadline, false, call.get());
    const Status status = wait(*door, *call, deadline);
    if (!call->done()) {
      fabric::Operation::abandon(std::move(call));
      return status;
    }
    // The channel broke but the peer lives: our own connection still leads there.
    if (status.code() == Code::peer_lost && alive()) {
      drop_channel(door->name());
      continue;
    }
    if (!status.ok()) return status;
    return Reply{call->reply(), {}};
  }
  auto frame = ask_socket(target, body, deadline);
  if (!frame) return frame.status();
  return Reply{std::move(frame->body), {}};
}

Expected<fabric::Frame> Link::ask_socket(const Target& target, ConstSpan body, Deadline deadline,
                                         const std::vector<int>& fds, Bytes* raised) {
  RequestHead head;
  head.method = target.method;
  head.provider = target.provider;
  head.budget_us = to_budget(deadline);
  auto frame = connection_->call(static_cast<std::uint16_t>(FrameKind::request),
                                 encode_request(head, body), deadline, fds);
  if (!frame) return frame.status().within("asking " + address_.short_name());
  ConstSpan rest;
  const Status status = decode_reply(frame->body, &rest);
  if (status.code() == Code::raised && raised != nullptr) *raised = rest.copy();
  if (!status.ok()) return status;
  frame->body = rest.copy();
  return frame;
}

}  // namespace pshpc::rpc
