#include "objects/instance.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/fork_guard.h"
#include "fabric/ring/door.h"
#include "objects/bulk_service.h"
#include "rpc/diagnostics.h"

namespace pshpc::objects {
namespace {

constexpr Nanoseconds kTendPeriod = 100 * kMillisecond;
// How late a call that nobody waits for learns that its time is up.
constexpr Nanoseconds kExpiryPeriod = 20 * kMillisecond;

// Regions that peers have no key to must not take the ids of those that they have.
struct LiveRegion {
  std::shared_ptr<rpc::Exposure> exposure;
  std::uint32_t id;

  LiveRegion(std::shared_ptr<rpc::Exposure> e, std::uint32_t i) : exposure(std::move(e)), id(i) {}
  LiveRegion(const LiveRegion&) = delete;
  LiveRegion& operator=(const LiveRegion&) = delete;
  ~LiveRegion() { exposure->remove(id); }
};

// Lets in who knows the key of an object, and keeps the pins of readers.
class OwnerGate final : public rpc::Gate {
 public:
  OwnerGate(std::shared_ptr<Owner> owner, std::shared_ptr<Handover> handover)
      : owner_(std::move(owner)), handover_(std::move(handover)) {}

  std::optional<Tag> ticket(std::uint64_t object_id) override {
    return owner_->capability(object_id);
  }
  Status joined(const rpc::Caller& caller, std::vector<Fd> attached) override {
    owner_->join(caller.connection, caller.address ? caller.address->id : Claims::Party{},
                 caller.local);
    if (!caller.local || attached.empty()) return {};
    return adopt_pins(*owner_, handover_.get(), caller.connection, std::move(attached.front()));
  }
  void left(const rpc::Caller& caller) override {
    owner_->leave(caller.connection);
    // Where it is us who end the connection, its views stay.
    if (handover_ && caller.local && !owner_->leaving())
      handover_->drop_pin_tables(caller.connection);
  }

 private:
  std::shared_ptr<Owner> owner_;
  const std::shared_ptr<Handover> handover_;
};

// How long the end of a handle waits for sends before it leaves the memory registered.
constexpr Nanoseconds kLastSends = kSecond;

// Registrations that must not be undone: a peer may still be sent from them, or they are those of
// the process that this one was forked from.
void never_undo(std::shared_ptr<const memory::Registration> registration) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<std::shared_ptr<const memory::Registration>>;
  std::lock_guard<std::mutex> lock(mutex);
  kept.push_back(std::move(registration));
}

// How often an heir looks whether those live who held references and have not come.
constexpr Nanoseconds kRollCallPeriod = 2 * kSecond;

// A process of this node, by its id. Its socket may be a keeper's, too; the kernel then names the
// process that it was.
bool has_ended(const Claims::Party& party, std::uint32_t uid) {
  rpc::Address address;
  address.id = party;
  address.uid = uid;
  auto connected = fabric::connect_abstract(address.node_socket(), Deadline::after(0));
  if (!connected) return connected.status().code() == Code::owner_gone;
  const auto peer = fabric::peer_credentials(connected.value().get());
  return peer && peer.value().pid > 0 && ::kill(peer.value().pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

LiveMemory::LiveMemory(std::shared_ptr<Owner> owner, Key key,
                       std::shared_ptr<const memory::Registration> registration)
    : owner_(std::move(owner)), key_(std::move(key)), registration_(std::move(registration)) {}

LiveMemory::~LiveMemory() {
  if (!close(Deadline::after(kLastSends)).ok()) never_undo(std::move(registration_));
}

Status LiveMemory::close(Deadline deadline) {
  if (!registration_) return {};
  Status evicted = owner_->evict(key_.object_id, key_.capability, true);
  if (!evicted.ok()) return evicted;  // in a forked child
  // The progress thread may be in the middle of sending from it; memory that goes away under a send
  // would be sent as garbage, or crash.
  while (owner_->sending(key_)) {
    if (deadline.passed())
      return {Code::timed_out, "a peer does not take what it asked for of " + key_.describe() +
                                   ", so the memory has to stay; close it again later, or close "
                                   "the store first"};
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  registration_.reset();
  return {};
}

Instance::Instance(InstanceOptions options)
    : options_(std::move(options)), birth_(fork_generation()), progress_(options_.progress) {}

Expected<std::unique_ptr<Instance>> Instance::create(InstanceOptions options) {
  std::unique_ptr<Instance> instance(new Instance(std::move(options)));
  const Status status = instance->start(std::nullopt);
  if (!status.ok()) return status.within("opening store '" + instance->options_.store + "'");
  return instance;
}

Expected<std::unique_ptr<Instance>> Instance::adopt(Estate estate, InstanceOptions options) {
  const Identity& identity = estate.identity;
  options.store = identity.store;
  options.secret = identity.job_secret;
  options.trust_user = identity.trust_user;
  options.owner.secret = identity.owner_secret;
  options.owner.grace = identity.grace;
  options.handover.reset();
  std::unique_ptr<Instance> instance(new Instance(std::move(options)));
  const Status status = instance->start(std::move(estate));
  if (!status.ok()) return status.within("taking over store '" + instance->options_.store + "'");
  return instance;
}

Status Instance::start(std::optional<Estate> estate) {
  Status status = progress_.start();
  if (!status.ok()) return status;

  OwnerAddress self;
  self.id = random_tag();
  self.uid = ::geteuid();
  if (estate) self = estate->identity.self;
  OwnerOptions owner_options = options_.owner;
  if (options_.handover) {
    const std::uint64_t capacity = owner_options.arena.capacity;
    auto table = memory::BlockTable::create(capacity != 0 ? capacity : memory::default_capacity(1));
    if (!table) return table.status();
    table_ = std::move(table).value();
    owner_options.table = table_;
    auto claims = ClaimTable::create();
    if (!claims) return claims.status();
    claim_table_ = std::move(claims).value();
    owner_options.claim_table = claim_table_;
  }
  // Descriptors are sent before a block of the segment is used, and outlive us in the socket.
  owner_ = std::make_shared<Owner>(
      self, owner_options,
      [exposure = exposure_, handover = options_.handover](const memory::Segment& segment) {
        if (handover) handover->add_segment(segment);
        exposure->add(segment.region());
        return Status();
      });
  if (estate) {
    auto blocks = memory::BlockTable::read(estate->table);
    if (!blocks) return blocks.status();
    auto claims = ClaimTable::read(estate->claims);
    if (!claims) return claims.status();
    Heritage heritage;
    heritage.segments = std::move(estate->segments);
    heritage.blocks = std::move(blocks).value();
    heritage.claims = std::move(claims).value();
    for (Fd& fd : estate->pin_tables) {
      auto table = memory::PinTableView::open(std::move(fd));
      if (!table) return table.status();
      heritage.tables.push_back(std::move(table).value());
    }
    status = owner_->adopt(std::move(heritage));
    if (status.ok()) status = owner_->set_outside(std::move(estate->outside));
    if (!status.ok()) return status;
  }
  pool_ = memory::Pool::create(options_.pool);
  messenger_ = std::make_shared<rpc::Messenger>(pool_);
  service_ = std::make_shared<Service>(owner_, *exposure_, options_.handover);
  status = Service::serve(service_, *messenger_);
  if (status.ok()) status = rpc::serve_diagnostics(messenger_);
  if (!status.ok()) return status;
  bulks_ = std::make_shared<BulkTable>(owner_, exposure_);
  status = BulkService::serve(std::make_shared<BulkService>(bulks_), *messenger_);
  if (!status.ok()) return status;
  registrations_ = std::make_unique<memory::RegistrationCache>(
      [exposure = exposure_](Span span) -> Expected<std::shared_ptr<void>> {
        const std::uint32_t id = exposure->next_live_region();
        exposure->add({id, span, -1, memory::MemoryType::host});
        return std::shared_ptr<void>(std::make_shared<LiveRegion>(exposure, id));
      });
  gate_ = std::make_unique<OwnerGate>(owner_, options_.handover);
  host_ = std::make_unique<rpc::Host>(
      rpc::Host::Options{self.id, options_.store, options_.secret, options_.trust_user}, *exposure_,
      *messenger_, gate_.get());
  if (estate) host_->set_config(estate->config);
  server_ = std::make_unique<fabric::SocketServer>(progress_, *host_);
  if (options_.rings) {
    // Of an owner that was taken over, the kernel tells readers the former process: nobody is to
    // read out of the memory of whoever has its number now.
    auto rings = fabric::ring::RingDoor::create(!estate);
    if (!rings) return rings.status();
    status = open_door(std::move(rings).value());
    if (!status.ok()) return status;
  }
  // Before others are told the address, which names the port.
  if (estate)
    listeners_to_serve_ = std::move(estate->listeners);
  else
    status = bind();
  if (!status.ok()) return status;
  rpc::LinkContext context{owner_->self(), options_.secret, exposure_.get(), messenger_};
  reader_ = std::make_unique<Reader>(owner_, context, pool_, DoorChoice(options_.doors));
  bulk_client_ =
      std::make_shared<BulkClient>(bulks_, *reader_, *exposure_, DoorChoice(options_.doors));

  // Last: from here on peers come in.
  if (!estate) status = serve_listeners();
  if (status.ok() && options_.handover) status = introduce_to_keeper();
  if (!status.ok()) return status;

  progress_.every(kExpiryPeriod, [weak = std::weak_ptr<rpc::Messenger>(messenger_)] {
    const auto messenger = weak.lock();
    if (messenger) messenger->expire(now());
    return messenger != nullptr;
  });
  std::weak_ptr<Owner> weak = owner_;
  progress_.every(kTendPeriod, [weak] {
    const auto owner = weak.lock();
    if (owner) owner->tend();
    return owner != nullptr;
  });
  return {};
}

Status Instance::bind() {
  auto local = fabric::listen_abstract(owner_->self().node_socket());
  if (!local) return local.status();
  listeners_to_serve_.push_back(std::move(local).value());
  if (options_.host.empty()) return {};
  auto remote = fabric::listen_tcp(options_.host, options_.port);
  if (!remote) return remote.status();
  auto port = fabric::local_port(remote.value().get());
  if (!port) return port.status();
  owner_->set_contact(options_.host, port.value());
  listeners_to_serve_.push_back(std::move(remote).value());
  return {};
}

Status Instance::serve_listeners() {
  bool local = true;  // the first one is
  for (Fd& fd : listeners_to_serve_) {
    listeners_.push_back(fd.get());
    const Status status = server_->listen(std::move(fd), std::exchange(local, false));
    if (!status.ok()) return status;
  }
  listeners_to_serve_.clear();
  return {};
}

Status Instance::resume() {
  const Status status = serve_listeners();
  if (!status.ok()) return status;
  progress_.every(kRollCallPeriod, [weak = std::weak_ptr<Owner>(owner_)] {
    const auto owner = weak.lock();
    if (!owner) return false;
    for (const auto& party : owner->absent_parties())
      if (has_ended(party, owner->self().uid)) owner->end_party(party);
    return true;
  });
  return {};
}

Status Instance::introduce_to_keeper() {
  Identity identity;
  identity.self = owner_->self();
  identity.owner_secret = owner_->secret();
  identity.job_secret = options_.secret;
  identity.trust_user = options_.trust_user;
  identity.store = options_.store;
  identity.grace = options_.owner.grace;
  options_.handover->begin(identity, *table_, *claim_table_, listeners_);
  if (!options_.handover->broken()) return {};
  return {Code::peer_lost, "the keeper of this node ended while the store was opened"};
}

Instance::~Instance() { close(); }

void Instance::set_config(std::string config) {
  if (options_.handover) options_.handover->set_config(config);
  host_->set_config(std::move(config));
}

Status Instance::set_outside(Bytes outside) {
  if (options_.handover) options_.handover->set_outside(outside);
  return owner_->set_outside(std::move(outside));
}

Status Instance::open_door(const fabric::DoorHandle& door) {
  const Status started = door->start(progress_, *messenger_);
  if (!started.ok()) return started.within("starting the " + door->name() + " door");
  exposure_->add_door(door);
  door->take_calls([this](Fd fd) {
    // On the progress thread, where connections begin.
    progress_.post(
        [this, end = std::make_shared<Fd>(std::move(fd))] { server_->adopt(std::move(*end)); });
  });
  if (!closed_) return {};
  // It came too late to be stopped with the others.
  door->stop();
  return {Code::closed, "store '" + options_.store + "' is closed"};
}

Status Instance::introduce(const std::string& name,
                           const std::map<std::uint32_t, rpc::Address>& members) {
  const auto door = exposure_->door(name);
  if (!door) return {Code::unavailable, "no " + name + " door is open"};
  for (const auto& [number, address] : members) door->introduce(address.id, number);
  return {};
}

Status Instance::usable() const {
  if (birth_ != fork_generation())
    return {Code::forked, "store '" + options_.store +
                              "' was opened before this process was forked; open a new one here, "
                              "or use the 'spawn' start method"};
  if (closed_) return {Code::closed, "store '" + options_.store + "' is closed"};
  return {};
}

Expected<std::unique_ptr<LiveMemory>> Instance::expose_live(ConstSpan prefix,
                                                            std::uint64_t live_offset, Span live) {
  auto registration = registrations_->acquire(live);
  if (!registration) return registration.status();
  const auto& held = *registration.value();
  auto key = owner_->publish_live(prefix, live_offset, live, held.as<LiveRegion>().id,
                                  static_cast<std::uint64_t>(live.data - held.span().data));
  if (!key) return key.status();
  return std::make_unique<LiveMemory>(owner_, std::move(key).value(),
                                      std::move(registration).value());
}

void Instance::close(bool clear) {
  if (closed_.exchange(true) || birth_ != fork_generation()) return;
  const Status closed(Code::closed, "it was closed on this side");
  const bool leave = options_.handover && !clear && !options_.handover->broken();
  if (owner_ && leave) owner_->begin_hand_over();
  if (owner_ && !leave) owner_->close();
  if (bulks_) bulks_->close();
  if (messenger_) messenger_->end_calls(closed);
  if (reader_) reader_->close();
  if (server_) server_->stop();
  for (const auto& door : exposure_->doors()) door->stop();
  // Now that no door completes calls any more.
  if (messenger_) messenger_->close_all(closed);
  if (bulk_client_) bulk_client_->close();
  progress_.stop();
  // Nobody is served here any more, so nothing that was answered is undone.
  if (owner_ && leave) owner_->hand_over();
  if (options_.handover) options_.handover->finish();
}

}  // namespace pshpc::objects
