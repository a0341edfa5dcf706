#include "rpc/host.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"

namespace pshpc::rpc {
namespace {

// Payload bytes in one frame of our sockets.
constexpr std::uint64_t kSocketRoom = fabric::kMaxBody - 64 * 1024;

class SocketResponder : public Responder {
 public:
  SocketResponder(std::shared_ptr<fabric::ServerConnection> connection, std::uint64_t id,
                  bool one_way)
      : connection_(std::move(connection)), id_(id), one_way_(one_way) {}

  using Responder::reply;
  void reply(const Status& status, ConstSpan body, fabric::Payload payload,
             std::vector<Fd> fds) override {
    const std::size_t size = body.size + payload.size();
    count(status, size);
    if (one_way_) return;
    if (size > fabric::kMaxBody - sizeof(ReplyHead))
      return reply({Code::invalid, "an answer of " + std::to_string(size) +
                                       " bytes does not fit into a frame of the node socket"});
    connection_->send(static_cast<std::uint16_t>(FrameKind::reply), id_,
                      encode_reply(status, 0, id_, body, payload), std::move(fds));
  }
  std::uint64_t room() const override { return kSocketRoom; }

 private:
  std::shared_ptr<fabric::ServerConnection> connection_;
  std::uint64_t id_;
  bool one_way_;
};

class SocketRequest final : public Request {
 public:
  SocketRequest(const Caller& caller, const std::shared_ptr<SocketResponder>& responder)
      : Request(caller, *responder), shared_(responder) {}
  std::shared_ptr<Responder> defer() override { return shared_; }

 private:
  std::shared_ptr<SocketResponder> shared_;
};

}  // namespace

struct Host::Guest {
  Tag nonce = random_tag();
  Caller caller;
  fabric::Peer peer;
  bool welcome = false;
  std::vector<std::shared_ptr<fabric::Channel>> channels;
};

Host::Host(Options options, Exposure& exposure, Messenger& messenger, Gate* gate)
    : options_(std::move(options)), exposure_(exposure), messenger_(messenger), gate_(gate) {}

void Host::set_config(std::string config) {
  std::lock_guard<std::mutex> lock(mutex_);
  config_ = std::move(config);
}

void Host::opened(const std::shared_ptr<fabric::ServerConnection>& connection) {
  auto guest = std::make_shared<Guest>();
  guest->caller.local = connection->local();
  if (connection->local()) guest->peer = {true, std::max<pid_t>(connection->credentials().pid, 0)};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    guest->caller.connection = next_connection_++;
  }
  connection->context = guest;
  const Challenge challenge{options_.self, guest->nonce};
  connection->send(static_cast<std::uint16_t>(FrameKind::challenge), 0, challenge.encode());
}

Status Host::frame(const std::shared_ptr<fabric::ServerConnection>& connection,
                   fabric::Frame frame) {
  auto& guest = *std::static_pointer_cast<Guest>(connection->context);
  if (guest.welcome) return serve(connection, guest, std::move(frame));
  const Status greeted = greet(connection, guest, std::move(frame));
  if (!greeted.ok()) turned_away_.fetch_add(1, std::memory_order_relaxed);
  return greeted;
}

Status Host::serve(const std::shared_ptr<fabric::ServerConnection>& connection, Guest& guest,
                   fabric::Frame frame) {
  RequestHead head;
  if (static_cast<FrameKind>(frame.kind) != FrameKind::request || !read_head(frame.body, &head) ||
      head.type != MessageType::request)
    return garbled("request");
  const bool one_way = (head.flags & kOneWay) != 0;
  const auto responder = std::make_shared<SocketResponder>(connection, frame.id, one_way);
  SocketRequest request(guest.caller, responder);
  request.method = head.method;
  request.provider = head.provider;
  request.one_way = one_way;
  request.body = ConstSpan(frame.body).from(sizeof head);
  request.fds = std::move(frame.fds);
  request.budget_us = head.budget_us;
  messenger_.dispatch(request);
  return {};
}

// The key that the guest has shown to know, which the answer proves in turn.
Expected<Tag> Host::proven(const fabric::ServerConnection& connection, const Guest& guest,
                           const Hello& hello, bool* trusted) const {
  const auto shown = [&](const Tag& key) {
    return equal_tags(hello.proof, prove(key, guest.nonce, hello.client.id, "hello"));
  };
  // The kernel vouches for a unix socket's user, who could attach a debugger to us anyway.
  *trusted = connection.local() && options_.trust_user;
  if (hello.proof_kind == Hello::Proof::secret && options_.secret != Tag{} &&
      shown(options_.secret)) {
    *trusted = true;
    return options_.secret;
  }
  if (hello.proof_kind == Hello::Proof::ticket && gate_ != nullptr) {
    const auto key = gate_->ticket(hello.ticket);
    if (key && shown(*key)) return *key;
  }
  if (*trusted) return Tag{};
  return Status(Code::denied,
                "neither the job's secret nor the key of an object of this owner was shown");
}

Status Host::greet(const std::shared_ptr<fabric::ServerConnection>& connection, Guest& guest,
                   fabric::Frame frame) {
  if (static_cast<FrameKind>(frame.kind) != FrameKind::hello)
    return {Code::protocol, "a peer began without a hello"};
  SocketResponder answer(connection, frame.id, false);
  auto hello = Hello::parse(frame.body);
  if (!hello) {
    answer.reply(hello.status());
    return hello.status();
  }
  auto key = proven(*connection, guest, hello.value(), &guest.caller.trusted);
  if (!key) {
    answer.reply(key.status());
    return key.status();
  }
  guest.caller.address = std::make_shared<const Address>(hello->client);
  std::size_t announced = hello->attached;
  for (const DoorOffer& offer : hello->offers) announced += offer.attached;
  if (announced != frame.fds.size()) return garbled("hello");
  const auto first = std::make_move_iterator(frame.fds.begin());
  const auto offered = first + hello->attached;
  if (gate_ != nullptr) {
    const Status joined = gate_->joined(guest.caller, {first, offered});
    if (!joined.ok()) {
      answer.reply(joined);
      return joined;
    }
  }
  Welcome welcome;
  welcome.name = options_.name;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    welcome.config = config_;
  }
  welcome.trusted = guest.caller.trusted;
  welcome.proof = prove(key.value(), guest.nonce, hello->client.id, "welcome");
  // Who has shown no more than a ticket gets what that opens: a transport's address and handles
  // would open all of our memory.
  if (guest.caller.trusted)
    welcome.offers =
        accept_offers(guest, hello->offers, {offered, std::make_move_iterator(frame.fds.end())});
  guest.welcome = true;
  connection->admit();
  answer.reply({}, welcome.encode());
  return {};
}

std::vector<DoorOffer> Host::accept_offers(Guest& guest, const std::vector<DoorOffer>& offers,
                                           std::vector<Fd> fds) {
  std::vector<DoorOffer> answers;
  auto next = fds.begin();
  for (const DoorOffer& offer : offers) {
    fabric::Offer theirs;
    theirs.address = offer.address;
    theirs.token = offer.token;
    for (int i = 0; i < offer.attached; ++i) theirs.fds.emplace_back(std::move(*next++));
    const auto door = exposure_.door(offer.door);
    if (!door) continue;
    auto accepted = door->accept(guest.peer, std::move(theirs));
    if (!accepted) {
      log_debug("a peer's offer of the " + offer.door +
                " door was declined: " + accepted.status().message());
      continue;
    }
    messenger_.add_peer(accepted->channel, guest.caller);
    guest.channels.push_back(std::move(accepted->channel));
    answers.push_back({offer.door, accepted->answer.address, accepted->answer.token, 0});
  }
  return answers;
}

void Host::closed(const std::shared_ptr<fabric::ServerConnection>& connection) {
  const auto guest = std::static_pointer_cast<Guest>(connection->context);
  if (!guest) return;
  // First the channels: nothing is to arrive in blocks that are given back.
  for (const auto& channel : guest->channels) {
    messenger_.remove_peer(channel);
    messenger_.close(channel);
  }
  guest->channels.clear();
  if (gate_ != nullptr) gate_->left(guest->caller);
}

}  // namespace pshpc::rpc
