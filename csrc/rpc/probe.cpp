#include "rpc/probe.h"

#include <deque>
#include <memory>
#include <utility>

#include "rpc/diagnostics.h"

namespace pshpc::rpc {
namespace {

// The calls that a probe has in flight, oldest first.
class Window {
 public:
  Window(Link& link, const ProbeOptions& options, Deadline deadline)
      : link_(link),
        target_{method_id(options.size == 0 ? kPing : kEcho), 0},
        deadline_(deadline),
        bytes_(std::make_shared<const Bytes>(options.size)) {
    channel_ = link.best_channel(&door_);
  }
  ~Window() {
    for (auto& call : calls_)
      if (!call->done()) fabric::Operation::abandon(std::move(call));
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  bool open() const { return channel_ != nullptr; }
  std::size_t size() const { return calls_.size(); }
  void start() {
    calls_.push_back(std::make_unique<Call>(Call::Payload::pooled));
    const ConstSpan bytes(*bytes_);
    const bool large = bytes.size > kInBody;
    fabric::Payload payload;
    if (large) payload = {bytes, bytes_};
    link_.messenger().start(channel_, target_, large ? ConstSpan() : bytes, std::move(payload),
                            deadline_, false, calls_.back().get());
  }
  Status finish() {
    Call& oldest = *calls_.front();
    const Status status = link_.wait(*door_, oldest, deadline_);
    if (!oldest.done()) return status;
    calls_.pop_front();
    return status;
  }

 private:
  static constexpr std::size_t kInBody = 1024;

  Link& link_;
  const Target target_;
  const Deadline deadline_;
  const std::shared_ptr<const Bytes> bytes_;  // may be sent from after the end of this
  fabric::DoorHandle door_;
  std::shared_ptr<fabric::Channel> channel_;
  std::deque<std::unique_ptr<Call>> calls_;
};

}  // namespace

Expected<ProbeResult> probe(Link& link, const ProbeOptions& options, Deadline deadline) {
  Window window(link, options, deadline);
  if (!window.open())
    return Status(Code::unavailable, "no door that carries messages leads to the peer");
  ProbeResult result;
  if (options.window == 1) result.latencies.reserve(options.calls);
  const Nanoseconds begin = now();
  Nanoseconds last = begin;
  std::uint64_t started = 0;
  while (started < options.calls || window.size() > 0) {
    if (started < options.calls && window.size() < options.window) {
      window.start();
      ++started;
      continue;
    }
    const Status status = window.finish();
    if (!status.ok()) return status;
    if (options.window == 1) {
      const Nanoseconds time = now();
      result.latencies.push_back(time - last);
      last = time;
    }
  }
  result.total = now() - begin;
  return result;
}

}  // namespace pshpc::rpc
