#include "objects/host.h"

#include <utility>

#include "base/log.h"

namespace pshpc::objects {
namespace {

class SocketResponder : public Responder {
 public:
  SocketResponder(std::shared_ptr<fabric::ServerConnection> connection, std::uint64_t id)
      : connection_(std::move(connection)), id_(id) {}

  using Responder::reply;
  void reply(const Status& status, ConstSpan body, ConstSpan payload, std::shared_ptr<const void>,
             std::vector<Fd> fds) override {
    Bytes frame = encode_reply(status, body);
    frame.insert(frame.end(), payload.data, payload.data + payload.size);
    connection_->send(static_cast<std::uint16_t>(Kind::reply), id_, frame, std::move(fds));
  }
  std::uint64_t room() const override { return kChunk; }

 private:
  std::shared_ptr<fabric::ServerConnection> connection_;
  std::uint64_t id_;
};

}  // namespace

struct Host::Guest {
  Tag nonce = random_tag();
  Caller caller;
  bool welcome = false;
  std::vector<std::shared_ptr<fabric::Channel>> channels;
};

Host::Host(std::shared_ptr<Owner> owner, Exposure& exposure, Service& service, Messenger& messenger,
           std::string store, Tag secret)
    : owner_(std::move(owner)),
      exposure_(exposure),
      service_(service),
      messenger_(messenger),
      store_(std::move(store)),
      secret_(secret) {}

void Host::set_config(std::string config) {
  std::lock_guard<std::mutex> lock(mutex_);
  config_ = std::move(config);
}

void Host::opened(const std::shared_ptr<fabric::ServerConnection>& connection) {
  auto guest = std::make_shared<Guest>();
  guest->caller.local = connection->local();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    guest->caller.connection = next_connection_++;
  }
  connection->context = guest;
  const Challenge challenge{owner_->self().owner, guest->nonce};
  connection->send(static_cast<std::uint16_t>(Kind::challenge), 0, challenge.encode());
}

Status Host::frame(const std::shared_ptr<fabric::ServerConnection>& connection,
                   fabric::Frame frame) {
  auto& guest = *std::static_pointer_cast<Guest>(connection->context);
  if (!guest.welcome) return greet(connection, guest, std::move(frame));
  service_.handle(static_cast<Kind>(frame.kind), frame.body, {}, std::move(frame.fds), guest.caller,
                  std::make_shared<SocketResponder>(connection, frame.id));
  return {};
}

// The key that the guest has shown to know, which the answer proves in turn.
Expected<Tag> Host::proven(const fabric::ServerConnection& connection, const Guest& guest,
                           const Hello& hello, bool* trusted) const {
  const auto shown = [&](const Tag& key) {
    return equal_tags(hello.proof, prove(key, guest.nonce, hello.client, "hello"));
  };
  // The kernel vouches for a unix socket's user, who could attach a debugger to us anyway.
  *trusted = connection.local();
  if (hello.proof_kind == Hello::Proof::secret && secret_ != Tag{} && shown(secret_)) {
    *trusted = true;
    return secret_;
  }
  if (hello.proof_kind == Hello::Proof::capability) {
    const Tag capability = owner_->capability(hello.object_id);
    if (shown(capability)) return capability;
  }
  if (connection.local()) return Tag{};
  return Status(Code::denied,
                "neither the job's secret nor the key of an object of this owner was shown");
}

Status Host::greet(const std::shared_ptr<fabric::ServerConnection>& connection, Guest& guest,
                   fabric::Frame frame) {
  if (static_cast<Kind>(frame.kind) != Kind::hello)
    return {Code::protocol, "a peer began without a hello"};
  SocketResponder answer(connection, frame.id);
  auto hello = Hello::parse(frame.body);
  if (!hello) {
    answer.reply(hello.status(), {}, {}, nullptr, {});
    return hello.status();
  }
  auto key = proven(*connection, guest, hello.value(), &guest.caller.trusted);
  if (!key) {
    answer.reply(key.status(), {}, {}, nullptr, {});
    return key.status();
  }
  owner_->join(guest.caller.connection);
  if (hello->has_pin_table && connection->local() && !frame.fds.empty()) {
    auto table = memory::PinTableView::open(std::move(frame.fds.front()));
    const Status added = table
                             ? owner_->add_reader(guest.caller.connection, std::move(table).value())
                             : table.status();
    if (!added.ok()) {
      answer.reply(added, {}, {}, nullptr, {});
      return added;
    }
  }
  Welcome welcome;
  welcome.store = store_;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    welcome.config = config_;
  }
  welcome.trusted = guest.caller.trusted;
  welcome.proof = prove(key.value(), guest.nonce, hello->client, "welcome");
  // Who has shown no more than the key of one object gets that: a transport's address and handles
  // would open all of our memory.
  if (guest.caller.trusted) welcome.offers = accept_offers(guest, hello->offers);
  guest.welcome = true;
  connection->admit();
  answer.reply({}, welcome.encode(), {}, nullptr, {});
  return {};
}

std::vector<DoorOffer> Host::accept_offers(Guest& guest, const std::vector<DoorOffer>& offers) {
  std::vector<DoorOffer> accepted;
  for (const DoorOffer& offer : offers) {
    const auto door = exposure_.door(offer.door);
    if (!door) continue;
    const std::uint64_t token = door->new_token();
    auto channel = door->connect(offer.address, token, offer.token);
    if (!channel) {
      log_debug("a peer's offer of the " + offer.door +
                " door was declined: " + channel.status().message());
      continue;
    }
    messenger_.add_peer(channel.value(), guest.caller);
    guest.channels.push_back(std::move(channel).value());
    accepted.push_back({offer.door, door->address(), token});
  }
  return accepted;
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
  owner_->leave(guest->caller.connection);
}

}  // namespace pshpc::objects
