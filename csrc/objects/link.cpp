#include "objects/link.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace pshpc::objects {

Tether::Tether(std::unique_ptr<fabric::ClientConnection> connection,
               std::unique_ptr<memory::PinTable> table)
    : connection_(std::move(connection)) {
  if (!table) return;
  tables_[0] = std::move(table);
  count_ = 1;
}

Tether::Pin Tether::try_pin(std::uint64_t block, std::uint64_t generation) {
  // The newest is the least likely to be full.
  for (std::size_t i = count_.load(std::memory_order_acquire); i-- > 0;) {
    const std::uint32_t slot = tables_[i]->acquire(block, generation);
    if (slot != memory::PinTable::kNone) return {tables_[i].get(), slot};
  }
  return {};
}

Expected<Tether::Pin> Tether::pin(std::uint64_t block, std::uint64_t generation,
                                  Deadline deadline) {
  for (;;) {
    const Pin pin = try_pin(block, generation);
    if (pin.table != nullptr) return pin;
    const std::size_t seen = count_.load();
    std::unique_lock<std::mutex> lock(mutex_);
    if (count_.load() != seen) continue;
    if (opening_) {
      if (deadline.passed()) return Status(Code::timed_out, "no pin within the time allowed");
      changed_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
      continue;
    }
    opening_ = true;
    lock.unlock();
    const Status opened = open_table(deadline);
    lock.lock();
    opening_ = false;
    changed_.notify_all();
    if (!opened.ok()) return opened;
  }
}

Status Tether::open_table(Deadline deadline) {
  const std::size_t count = count_.load();
  if (count == kMaxTables)
    return {Code::full,
            "this process holds as many views of one owner's objects as pins are "
            "possible; drop some of them"};
  auto table = memory::PinTable::create();
  if (!table) return table.status();
  auto reply = connection_->call(static_cast<std::uint16_t>(Kind::pin_table), {}, deadline,
                                 {table.value()->fd()});
  if (!reply) return reply.status();
  ConstSpan body;
  const Status taken = decode_reply(reply->body, &body);
  if (!taken.ok()) return taken;
  tables_[count] = std::move(table).value();
  count_.store(count + 1, std::memory_order_release);
  return {};
}

Link::Link(const LinkContext& context, OwnerAddress address)
    : context_(context), address_(std::move(address)) {}

Link::~Link() {
  for (auto& [door, channel] : channels_) context_.messenger->close(channel);
}

Expected<std::shared_ptr<Link>> Link::open(const LinkContext& context, const OwnerAddress& address,
                                           const Key* hint, Deadline deadline) {
  std::shared_ptr<Link> link(new Link(context, address));
  const auto failed = [&](const Status& status) {
    return status.within("reaching owner " + address.short_name());
  };
  auto local = fabric::connect_abstract(address.node_socket(), deadline);
  if (local) {
    const Status status = link->connect_on_node(std::move(local).value(), hint, deadline);
    if (!status.ok()) return failed(status);
    return link;
  }
  if (local.status().code() != Code::owner_gone) return failed(local.status());
  if (address.host.empty())
    return failed({Code::owner_gone,
                   "no process with its id listens on this node: it ended, or it runs on another "
                   "node and opened no door that reaches further"});
  Status status(Code::denied, "this store has no secret to show");
  if (context.secret != Tag{})
    status = link->connect_off_node(hint, Hello::Proof::secret, deadline);
  // Of another job: the key's own capability still opens the way to its object.
  if (status.code() == Code::denied && hint != nullptr)
    status = link->connect_off_node(hint, Hello::Proof::capability, deadline);
  if (!status.ok()) return failed(status);
  return link;
}

Status Link::connect_on_node(Fd fd, const Key* hint, Deadline deadline) {
  auto peer = fabric::peer_credentials(fd.get());
  if (!peer) return peer.status();
  if (peer->uid != address_.uid)
    return {Code::denied, "the process at its node socket belongs to user " +
                              std::to_string(peer->uid) + ", not " + std::to_string(address_.uid)};
  on_node_ = true;
  pid_ = peer->pid;
  auto table = memory::PinTable::create();
  if (!table) return table.status();
  auto connection = std::make_unique<fabric::ClientConnection>(std::move(fd));
  const auto proof = context_.secret != Tag{} ? Hello::Proof::secret
                     : hint != nullptr        ? Hello::Proof::capability
                                              : Hello::Proof::none;
  const Status said = say_hello(*connection, hint, proof, table.value().get(), deadline);
  if (!said.ok()) return said;
  tether_ = std::make_shared<Tether>(std::move(connection), std::move(table).value());
  return {};
}

Status Link::connect_off_node(const Key* hint, Hello::Proof proof, Deadline deadline) {
  auto fd = fabric::connect_tcp(address_.host, address_.port, deadline);
  if (!fd) {
    const bool slow = fd.status().code() == Code::timed_out;
    return {slow ? Code::timed_out : Code::owner_gone, fd.status().message()};
  }
  auto connection = std::make_unique<fabric::ClientConnection>(std::move(fd).value());
  const Status said = say_hello(*connection, hint, proof, nullptr, deadline);
  if (!said.ok()) return said;
  tether_ = std::make_shared<Tether>(std::move(connection), nullptr);
  return {};
}

Status Link::say_hello(fabric::ClientConnection& connection, const Key* hint, Hello::Proof proof,
                       const memory::PinTable* table, Deadline deadline) {
  auto first = connection.receive(deadline);
  if (!first) return first.status();
  if (static_cast<Kind>(first->kind) != Kind::challenge)
    return {Code::protocol, "the other side is no proxystore_hpc"};
  auto challenge = Challenge::parse(first->body);
  if (!challenge) return challenge.status();
  if (challenge->owner != address_.owner)
    return {Code::owner_gone,
            "another process answers at its address now: it ended and was replaced"};

  Hello hello;
  hello.client = context_.self;
  hello.proof_kind = proof;
  Tag key{};
  if (proof == Hello::Proof::secret) key = context_.secret;
  if (proof == Hello::Proof::capability) {
    hello.object_id = hint->object_id;
    key = hint->capability;
  }
  hello.proof = prove(key, challenge->nonce, hello.client, "hello");
  std::vector<int> fds;
  if (table != nullptr) {
    hello.has_pin_table = 1;
    fds.push_back(table->fd());
  }
  for (const auto& door : context_.exposure->doors())
    hello.offers.push_back({door->name(), door->address(), door->new_token()});
  auto answer =
      connection.call(static_cast<std::uint16_t>(Kind::hello), hello.encode(), deadline, fds);
  if (!answer) return answer.status();
  ConstSpan body;
  const Status greeted = decode_reply(answer->body, &body);
  if (!greeted.ok()) return greeted;
  auto welcome = Welcome::parse(body);
  if (!welcome) return welcome.status();
  // The kernel vouches for the node socket's other end; anyone may listen at a host and port.
  if (!on_node_ &&
      !equal_tags(welcome->proof, prove(key, challenge->nonce, hello.client, "welcome")))
    return {Code::denied, "the process at its address does not know the job's secret"};
  welcome_ = std::move(welcome).value();

  for (const DoorOffer& theirs : welcome_.offers) {
    const auto door = context_.exposure->door(theirs.door);
    if (!door) continue;
    for (const DoorOffer& ours : hello.offers) {
      if (ours.door != theirs.door) continue;
      auto channel = door->connect(theirs.address, ours.token, theirs.token);
      if (channel)
        channels_[theirs.door] = std::move(channel).value();
      else
        log_warn_once("the " + theirs.door + " door to owner " + address_.short_name() +
                      " cannot be opened: " + channel.status().message());
    }
  }
  return {};
}

std::shared_ptr<fabric::Channel> Link::channel(const std::string& door) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = channels_.find(door);
  if (found == channels_.end() || !found->second->alive()) return nullptr;
  return found->second;
}

void Link::drop_channel(const std::string& door) {
  std::shared_ptr<fabric::Channel> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = channels_.find(door);
    if (found == channels_.end()) return;
    dropped = std::move(found->second);
    channels_.erase(found);
    for (auto at = regions_.begin(); at != regions_.end();)
      at = at->first.first == door ? regions_.erase(at) : std::next(at);
  }
  worn_ = true;
  context_.messenger->close(dropped);
}

Status Link::wait(fabric::Door& door, const fabric::Operation& operation, Deadline deadline) const {
  Status waited = door.wait(operation, deadline, [this] { return !alive(); });
  return waited.ok() ? operation.status() : waited;
}

Expected<Reply> Link::ask(Kind kind, ConstSpan body, Deadline deadline) {
  for (const auto& door : context_.exposure->doors()) {
    const auto channel = this->channel(door->name());
    if (!channel) continue;
    auto call = std::make_unique<Call>(Span(), nullptr);
    context_.messenger->start(channel, kind, body, {}, nullptr, call.get());
    const Status status = wait(*door, *call, deadline);
    if (!call->done()) {
      fabric::Operation::abandon(std::move(call));
      return status;
    }
    // The channel broke but the owner lives: our own connection still leads there.
    if (status.code() == Code::peer_lost && alive()) {
      drop_channel(door->name());
      continue;
    }
    if (!status.ok()) return status;
    return Reply{call->reply(), 0};
  }
  auto frame = ask_socket(kind, body, deadline);
  if (!frame) return frame.status();
  return Reply{std::move(frame->body), 0};
}

Expected<fabric::Frame> Link::ask_socket(Kind kind, ConstSpan body, Deadline deadline,
                                         const std::vector<int>& fds) {
  auto frame = tether_->connection().call(static_cast<std::uint16_t>(kind), body, deadline, fds);
  if (!frame) return frame.status().within("asking owner " + address_.short_name());
  ConstSpan rest;
  const Status status = decode_reply(frame->body, &rest);
  if (!status.ok()) return status;
  frame->body = rest.copy();
  return frame;
}

bool Link::answers(Deadline deadline) {
  WireWriter nothing;
  nothing.put(std::uint32_t{0});
  const Nanoseconds patience = std::min(deadline.remaining(), kSecond);
  static_cast<void>(ask_socket(Kind::exists, nothing.bytes(), Deadline::after(patience)));
  return alive();
}

Expected<std::shared_ptr<fabric::MappedSegment>> Link::segment(const Key& key, bool writable,
                                                               Deadline deadline) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = segments_[writable].find(key.segment);
    if (found != segments_[writable].end()) return found->second;
  }
  if (!on_node_) return Status(Code::unavailable, "the owner is not on this node");
  WireWriter request;
  ref_of(key).encode(request);
  request.put(key.segment).put(static_cast<std::uint8_t>(writable));
  auto frame = ask_socket(Kind::segment, request.bytes(), deadline);
  if (!frame) return frame.status();
  if (frame->fds.size() != 1)
    return Status(Code::protocol, "a segment came without its descriptor");
  auto mapped = fabric::MappedSegment::map(std::move(frame->fds.front()), writable);
  std::lock_guard<std::mutex> lock(mutex_);
  if (!mapped) {
    shm_refused_ = mapped.status().message();
    return Status(Code::unavailable, shm_refused_);
  }
  return segments_[writable].emplace(key.segment, std::move(mapped).value()).first->second;
}

Expected<std::shared_ptr<fabric::RemoteRegion>> Link::region(const std::string& door,
                                                             std::uint32_t region, const Key& key,
                                                             Deadline deadline) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = regions_.find({door, region});
    if (found != regions_.end()) return found->second;
  }
  const auto channel = this->channel(door);
  if (!channel) return Status(Code::peer_lost, "the " + door + " door was lost");
  WireWriter request;
  ref_of(key).encode(request);
  request.put(region).put_text(door);
  auto reply = ask(Kind::region, request.bytes(), deadline);
  if (!reply) return reply.status();
  auto imported = channel->import(reply->body);
  if (!imported) return imported.status();
  std::lock_guard<std::mutex> lock(mutex_);
  return regions_.emplace(std::make_pair(door, region), std::move(imported).value()).first->second;
}

std::string Link::shm_refused() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return shm_refused_;
}

}  // namespace pshpc::objects
