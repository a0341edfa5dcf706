#include "objects/instance.h"

#include <unistd.h>

#include <chrono>
#include <thread>
#include <utility>

#include "base/fork_guard.h"
#include "base/log.h"

namespace pshpc::objects {
namespace {

constexpr Nanoseconds kTendPeriod = 100 * kMillisecond;

// Regions that peers have no key to must not take the ids of those that they have.
struct LiveRegion {
  Exposure& exposure;
  std::uint32_t id;

  LiveRegion(Exposure& e, std::uint32_t i) : exposure(e), id(i) {}
  LiveRegion(const LiveRegion&) = delete;
  LiveRegion& operator=(const LiveRegion&) = delete;
  ~LiveRegion() { exposure.remove(id); }
};

}  // namespace

LiveMemory::LiveMemory(std::shared_ptr<Owner> owner, Key key,
                       std::shared_ptr<const memory::Registration> registration)
    : owner_(std::move(owner)), key_(std::move(key)), registration_(std::move(registration)) {}

LiveMemory::~LiveMemory() { close(); }

void LiveMemory::close() {
  if (!registration_) return;
  const Status ignored = owner_->evict(key_.object_id, key_.capability, true);
  // The progress thread may be in the middle of sending from it; memory that goes away under a send
  // would be sent as garbage, or crash.
  while (owner_->sending(key_)) std::this_thread::sleep_for(std::chrono::microseconds(100));
  registration_.reset();
}

Instance::Instance(InstanceOptions options)
    : options_(std::move(options)), birth_(fork_generation()), progress_(options_.progress) {}

Expected<std::unique_ptr<Instance>> Instance::create(InstanceOptions options) {
  std::unique_ptr<Instance> instance(new Instance(std::move(options)));
  const Status status = instance->start();
  if (!status.ok()) return status.within("opening store '" + instance->options_.store + "'");
  return instance;
}

Status Instance::start() {
  Status status = progress_.start();
  if (!status.ok()) return status;

  OwnerAddress self;
  self.owner = random_tag();
  self.uid = ::geteuid();
  owner_ = std::make_shared<Owner>(self, options_.owner, [this](const memory::Segment& segment) {
    exposure_.add(segment.region());
    return Status();
  });
  pool_ = memory::Pool::create(options_.pool);
  service_ = std::make_unique<Service>(owner_, exposure_);
  messenger_ = std::make_unique<Messenger>(*service_);
  registrations_ = std::make_unique<memory::RegistrationCache>(
      [this](Span span) -> Expected<std::shared_ptr<void>> {
        const std::uint32_t id = exposure_.next_live_region();
        exposure_.add({id, span, -1, memory::MemoryType::host});
        return std::shared_ptr<void>(std::make_shared<LiveRegion>(exposure_, id));
      });
  host_ = std::make_unique<Host>(owner_, exposure_, *service_, *messenger_, options_.store,
                                 options_.secret);
  server_ = std::make_unique<fabric::SocketServer>(progress_, *host_);
  auto local = fabric::listen_abstract(self.node_socket());
  if (!local) return local.status();
  status = server_->listen(std::move(local).value(), true);
  if (!status.ok()) return status;
  if (!options_.host.empty()) {
    auto remote = fabric::listen_tcp(options_.host, options_.port);
    if (!remote) return remote.status();
    auto port = fabric::local_port(remote.value().get());
    if (!port) return port.status();
    status = server_->listen(std::move(remote).value(), false);
    if (!status.ok()) return status;
    owner_->set_contact(options_.host, port.value());
  }
  LinkContext context{self.owner, options_.secret, &exposure_, messenger_.get()};
  reader_ = std::make_unique<Reader>(owner_, context, pool_, DoorChoice(options_.doors));

  std::weak_ptr<Owner> weak = owner_;
  progress_.every(kTendPeriod, [weak] {
    const auto owner = weak.lock();
    if (owner) owner->tend();
    return owner != nullptr;
  });
  return {};
}

Instance::~Instance() { close(); }

Status Instance::open_door(fabric::DoorHandle door) {
  const Status started = door->start(progress_, *messenger_);
  if (!started.ok()) return started.within("starting the " + door->name() + " door");
  exposure_.add_door(std::move(door));
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

void Instance::close() {
  if (std::exchange(closed_, true) || birth_ != fork_generation()) return;
  if (owner_) owner_->close();
  if (reader_) reader_->close();
  if (server_) server_->stop();
  for (const auto& door : exposure_.doors()) door->stop();
  progress_.stop();
}

}  // namespace pshpc::objects
