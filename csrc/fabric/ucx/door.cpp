#include "fabric/ucx/door.h"

#include "fabric/ucx/inspect.h"

namespace pshpc::fabric::ucx {
namespace {

// A forced close needs some progress to bring back what was in flight.
constexpr Nanoseconds kCloseTime = 200 * kMillisecond;

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}  // namespace

Expected<std::shared_ptr<UcxDoor>> UcxDoor::create(const Options& options) {
  auto context = Context::create(options);
  if (!context) return context.status();
  auto worker = Worker::create(std::move(context).value());
  if (!worker) return worker.status();
  return std::shared_ptr<UcxDoor>(new UcxDoor(std::move(worker).value()));
}

UcxDoor::~UcxDoor() { stop(); }

Status UcxDoor::start(Progress& progress, Receiver& receiver) {
  worker_->inbox().set_receiver(&receiver);
  const Status added = progress.add(worker_.get());
  if (!added.ok()) return added;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    progress_ = &progress;
  }
  worker_->set_progress(&progress);
  return {};
}

void UcxDoor::stop() {
  Progress* progress = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    progress = std::exchange(progress_, nullptr);
  }
  if (progress == nullptr) return;
  worker_->set_progress(nullptr);
  progress->remove(worker_.get());
  worker_->close_channels();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    registrations_.clear();
  }
  worker_->settle(Deadline::after(kCloseTime));
  worker_->inbox().set_receiver(nullptr);
}

Expected<Bytes> UcxDoor::expose(const memory::Region& region) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = registrations_.find(region.id);
  if (found == registrations_.end()) {
    auto made = Registration::create(worker_->context(), region.span);
    if (!made) return made.status();
    found = registrations_.emplace(region.id, std::move(made).value()).first;
  }
  return found->second->remote_handle();
}

void UcxDoor::withdraw(std::uint32_t region_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  registrations_.erase(region_id);
}

Bytes UcxDoor::address() {
  WireWriter writer;
  ProcessId::self().encode(writer);
  const Version ours = version();
  writer.put(static_cast<std::uint16_t>(ours.major)).put(static_cast<std::uint16_t>(ours.minor));
  return writer.put_blob(worker_->address()).take();
}

std::uint64_t UcxDoor::new_token() {
  const Worker::Guard guard(*worker_);
  return guard ? worker_->inbox().new_token() : 0;
}

Expected<Offer> UcxDoor::offer(const Peer&) {
  Offer ours;
  ours.address = address();
  ours.token = new_token();
  return ours;
}

Expected<Door::Accepted> UcxDoor::accept(const Peer&, Offer theirs) {
  Offer answer;
  answer.address = address();
  answer.token = new_token();
  auto channel = reach(theirs.address, answer.token, theirs.token);
  if (!channel) return channel.status();
  return Accepted{std::move(channel).value(), std::move(answer)};
}

Expected<std::shared_ptr<Channel>> UcxDoor::connect(const Peer&, Offer ours, Offer answer) {
  return reach(answer.address, ours.token, answer.token);
}

Expected<std::shared_ptr<Channel>> UcxDoor::reach(ConstSpan address, std::uint64_t local_token,
                                                  std::uint64_t remote_token) {
  WireReader reader(address);
  const ProcessId peer = ProcessId::decode(reader);
  const auto major = reader.get<std::uint16_t>(), minor = reader.get<std::uint16_t>();
  const ConstSpan worker_address = reader.get_blob();
  if (!reader.at_end() || worker_address.empty())
    return Status(Code::protocol, "not an address of a ucx door");
  // They may lay out shared memory differently: the first message would be lost, or kill us.
  const Version ours = version();
  if (major != ours.major || minor != ours.minor)
    return Status(Code::unavailable,
                  "the peer runs UCX " + std::to_string(major) + "." + std::to_string(minor) +
                      ", this process " + version_text() +
                      "; let both use the same, see 'proxystore-hpc info' and UCX_HOME");
  auto channel = UcxChannel::connect(worker_, peer, worker_address, local_token, remote_token);
  if (!channel) return channel.status();
  return std::shared_ptr<Channel>(std::move(channel).value());
}

Status UcxDoor::wait(const Operation& operation, Deadline deadline,
                     const std::function<bool()>& interrupted) {
  return worker_->drive().wait(operation, deadline, interrupted);
}

std::vector<std::pair<std::string, std::string>> UcxDoor::facts() const {
  const Inventory inventory = parse_inventory(worker_->context()->describe());
  std::vector<std::string> transports;
  for (const Transport& transport : inventory.transports)
    transports.push_back(transport.name + "/" + transport.device);
  std::vector<std::string> settings;
  for (const auto& [key, value] : effective_settings(worker_->context()->options()))
    settings.push_back(key + "=" + value);
  return {
      {"version", version_text()},
      {"library", library_path()},
      {"compiled against", headers_version()},
      {"verbs", inventory.has_verbs() ? "yes" : "no"},
      {"transports", join(transports)},
      {"settings", join(settings)},
      {"messages dropped", std::to_string(worker_->inbox().rejected())},
  };
}

Expected<std::shared_ptr<Listener>> UcxDoor::listen(const std::string& ip, std::uint16_t port,
                                                    UcxChannel::Ready accept, bool anywhere) {
  return Listener::open(worker_, ip, port, std::move(accept), anywhere);
}

Expected<std::shared_ptr<Channel>> UcxDoor::dial(const std::string& ip, std::uint16_t port) {
  auto channel = ucx::dial(worker_, ip, port);
  if (!channel) return channel.status();
  return std::shared_ptr<Channel>(std::move(channel).value());
}

}  // namespace pshpc::fabric::ucx
