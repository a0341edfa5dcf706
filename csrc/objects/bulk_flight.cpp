#include "objects/bulk_flight.h"

#include <utility>

namespace pshpc::objects {
namespace {

// What is asked for at once must not hold up other messages for long; several such pieces keep the
// transport busy while the owner finds the next.
constexpr std::size_t kAskedAtOnce = 8u << 20;
constexpr std::size_t kAskedInFlight = 4;
// A device splits by itself.
constexpr std::size_t kDirectAtOnce = std::size_t{1} << 30;
constexpr std::size_t kDirectInFlight = 16;

}  // namespace

class BulkFlight::Asked final : public rpc::Call {
 public:
  Asked(std::shared_ptr<BulkFlight> flight, Span into, std::size_t expected)
      : rpc::Call(into), flight_(std::move(flight)), expected_(expected) {}

 private:
  void on_complete() override {
    if (status().ok() && received() != expected_)
      flight_->landed({Code::protocol, "fewer bytes came than were asked for"});
    else
      flight_->landed(status());
  }

  const std::shared_ptr<BulkFlight> flight_;
  const std::size_t expected_;
};

class BulkFlight::Direct final : public fabric::Operation {
 public:
  explicit Direct(std::shared_ptr<BulkFlight> flight) : flight_(std::move(flight)) {}

 private:
  void on_complete() override { flight_->landed(status()); }

  const std::shared_ptr<BulkFlight> flight_;
};

BulkFlight::BulkFlight(Plan plan, Landed landed)
    : plan_(std::move(plan)), landed_(std::move(landed)) {
  const bool direct = !plan_.regions.empty();
  plan_.stretches = cut(plan_.stretches, direct ? kDirectAtOnce : kAskedAtOnce);
  window_ = direct ? kDirectInFlight : kAskedInFlight;
}

std::shared_ptr<BulkFlight> BulkFlight::create(Plan plan, Landed landed) {
  return std::shared_ptr<BulkFlight>(new BulkFlight(std::move(plan), std::move(landed)));
}

// One thread at a time launches, so that pieces which complete at once do not recurse.
void BulkFlight::pump() {
  const auto self = shared_from_this();
  std::unique_lock<std::mutex> lock(mutex_);
  if (pumping_) return;
  pumping_ = true;
  while (in_flight_ < window_ && next_ < plan_.stretches.size() && failed_.ok()) {
    const Stretch stretch = plan_.stretches[next_++];
    ++in_flight_;
    lock.unlock();
    launch(stretch);
    lock.lock();
  }
  pumping_ = false;
  if (in_flight_ > 0) return;
  // Nobody else ends it: nothing is in flight that could.
  pumping_ = true;
  Status status = failed_;
  lock.unlock();
  complete(std::move(status));
}

void BulkFlight::landed(const Status& status) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    --in_flight_;
    if (!status.ok() && failed_.ok()) failed_ = status;
  }
  pump();
}

void BulkFlight::launch(const Stretch& stretch) {
  const bool pull = plan_.direction == Direction::pull;
  fabric::Channel& channel = *plan_.channel;
  if (!plan_.regions.empty()) {
    const fabric::RemoteRegion& region = *plan_.regions[stretch.piece];
    auto direct = std::make_unique<Direct>(shared_from_this());
    if (pull)
      channel.read(region, stretch.at, stretch.local, direct.get());
    else
      channel.write(region, stretch.at, stretch.local, direct.get());
    return fabric::Operation::abandon(std::move(direct));
  }
  rpc::Messenger& messenger = plan_.link->messenger();
  WireWriter request = ask_about(plan_.bulk);
  request.put(stretch.offset);
  if (pull) request.put(static_cast<std::uint64_t>(stretch.local.size));
  const rpc::Target target = target_of(pull ? BulkKind::fetch : BulkKind::deliver);
  fabric::Payload payload;
  if (!pull) payload = fabric::Payload(stretch.local, plan_.keep);
  auto asked = std::make_unique<Asked>(shared_from_this(), pull ? stretch.local : Span(),
                                       pull ? stretch.local.size : 0);
  messenger.start(plan_.channel, target, request.bytes(), std::move(payload), plan_.deadline, false,
                  asked.get());
  fabric::Operation::abandon(std::move(asked));
}

void BulkFlight::on_complete() {
  plan_.hold.reset();
  if (landed_) std::exchange(landed_, nullptr)(status());
}

}  // namespace pshpc::objects
