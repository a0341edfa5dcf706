#include "tests/ucx_node.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/wire.h"
#include "fabric/ucx/inspect.h"

namespace pshpc::test {

using fabric::Channel;
using fabric::Operation;

std::uint8_t pattern(std::uint64_t at) {
  return static_cast<std::uint8_t>((at * 2654435761u) >> 13 ^ at >> 20);
}

bool UcxNode::tcp_over_loopback() {
  const auto version = fabric::ucx::version();
  return !(version.major == 1 && version.minor == 20);
}

std::vector<fabric::ucx::Options> shared_memory_and_tcp() {
  std::vector<fabric::ucx::Options> all;
  for (const char* tls : {kSharedMemory, "posix,self", "tcp,self"}) {
    if (std::strcmp(tls, "tcp,self") == 0 && !UcxNode::tcp_over_loopback()) continue;
    all.emplace_back().tls = tls;
  }
  return all;
}

UcxNode::UcxNode(const fabric::ucx::Options& options, std::size_t memory) : progress_({}) {
  memfd_ = Fd(::memfd_create("ucx_node", MFD_CLOEXEC));
  if (!memfd_ || ::ftruncate(memfd_.get(), static_cast<off_t>(memory)) != 0) {
    failure_ = "no memory";
    return;
  }
  mapping_ = std::move(Mapping::file(memfd_.get(), 0, memory, Mapping::Access::read_write)).value();
  memory_ = {mapping_.data(), memory};
  for (std::size_t i = 0; i < memory; ++i) memory_.data[i] = pattern(i);
  auto door = fabric::ucx::UcxDoor::create(options);
  if (!door) {
    failure_ = door.status().message();
    return;
  }
  door_ = std::move(door).value();
  Status started = progress_.start();
  if (started.ok()) started = door_->start(progress_, *this);
  failure_ = started.message();
}

UcxNode::~UcxNode() {
  if (channel_) channel_->close();
  remote_.reset();
  channel_.reset();
  if (door_) door_->stop();
  progress_.stop();
}

bool UcxNode::holds(std::uint64_t offset, ConstSpan expected) {
  std::lock_guard<std::mutex> lock(mutex_);
  return expected.empty() || std::memcmp(memory_.data + offset, expected.data, expected.size) == 0;
}

Bytes UcxNode::hello() {
  token_ = door_->new_token();
  memory::Region region;
  region.id = 1;
  region.span = memory_;
  region.memfd = memfd_.get();
  auto handle = door_->expose(region);
  return WireWriter()
      .put(token_)
      .put_blob(door_->address())
      .put_blob(handle ? handle.value() : Bytes())
      .take();
}

Status UcxNode::join(const Bytes& hello) {
  WireReader reader(hello);
  const auto remote_token = reader.get<std::uint64_t>();
  const ConstSpan address = reader.get_blob();
  const ConstSpan handle = reader.get_blob();
  if (!reader.at_end()) return {Code::protocol, "not a hello"};
  auto channel = door_->reach(address, token_, remote_token);
  if (!channel) return channel.status();
  channel_ = std::move(channel).value();
  auto region = channel_->import(handle);
  if (!region) return region.status();
  remote_ = std::move(region).value();
  return {};
}

Status UcxNode::finish(Operation& operation, double seconds) {
  const Status waited = door_->wait(operation, Deadline::after_seconds(seconds), nullptr);
  if (waited.ok()) return operation.status();
  // The memory is the caller's: cut the channel, so that the operation ends.
  channel_->close();
  const Status ended = door_->wait(operation, Deadline::after(5 * kSecond), nullptr);
  return ended.ok() ? waited : ended.within("after a forced close");
}

Status UcxNode::read(std::uint64_t offset, Span into, double seconds) {
  Operation operation;
  channel_->read(*remote_, offset, into, &operation);
  return finish(operation, seconds);
}

Status UcxNode::write(std::uint64_t offset, ConstSpan from, double seconds) {
  Operation operation;
  channel_->write(*remote_, offset, from, &operation);
  return finish(operation, seconds);
}

Bytes UcxNode::encode(const Header& header, ConstSpan text) {
  return WireWriter()
      .put(header.kind)
      .put(header.id)
      .put(header.offset)
      .put(header.size)
      .put_raw(text)
      .take();
}

Status UcxNode::call(Kind kind, std::uint64_t offset, std::uint64_t size, ConstSpan payload,
                     const std::string& text, Pending& pending, double seconds) {
  std::uint64_t id;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    id = next_id_++;
    pending_[id] = &pending;
  }
  Sent sent(*this, id);
  channel_->send({encode({kind, id, offset, size}, text), payload}, &sent);
  const Status waited = door_->wait(pending, Deadline::after_seconds(seconds), nullptr);
  if (!waited.ok()) {
    // The memory is the caller's: cut the channel, so that nothing comes any more.
    channel_->close();
    forget(id);
  }
  const Status ended = door_->wait(sent, Deadline::after(5 * kSecond), nullptr);
  if (!ended.ok()) return ended.within("after a forced close");
  return waited.ok() ? pending.status() : waited;
}

UcxNode::Pending* UcxNode::forget(std::uint64_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pending_.find(id);
  if (found == pending_.end()) return nullptr;
  Pending* pending = found->second;
  pending_.erase(found);
  return pending;
}

void UcxNode::give_up(std::uint64_t id, const Status& why) {
  if (Pending* pending = forget(id)) pending->complete(why);
}

Status UcxNode::echo(const std::string& text, std::string* answer, double seconds) {
  Pending pending;
  const Status status = call(Kind::echo, 0, 0, {}, text, pending, seconds);
  answer->assign(pending.answer.begin(), pending.answer.end());
  return status;
}

Status UcxNode::fetch(std::uint64_t offset, Span into, double seconds) {
  Pending pending;
  pending.into = into;
  return call(Kind::fetch, offset, into.size, {}, "", pending, seconds);
}

Status UcxNode::push(std::uint64_t offset, ConstSpan payload, double seconds) {
  Pending pending;
  return call(Kind::push, offset, payload.size, payload, "", pending, seconds);
}

void UcxNode::tell(std::uint32_t number, std::size_t payload, std::size_t padding) {
  const std::string text(padding, 'x');
  channel_->send(
      {encode({Kind::tell, number, 0, payload}, text), ConstSpan(memory_.slice(0, payload))},
      nullptr);
}

std::vector<std::uint32_t> UcxNode::heard() {
  std::lock_guard<std::mutex> lock(mutex_);
  return heard_;
}

bool UcxNode::await_heard(std::size_t count, double seconds) {
  const Deadline deadline = Deadline::after_seconds(seconds);
  while (heard().size() < count && !deadline.passed()) ::usleep(1000);
  return heard().size() >= count;
}

bool UcxNode::await_lost(double seconds) {
  const Deadline deadline = Deadline::after_seconds(seconds);
  while (!deadline.passed()) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (lost_) return true;
    }
    ::usleep(1000);
  }
  return false;
}

bool UcxNode::await_landed(double seconds) {
  const Deadline deadline = Deadline::after_seconds(seconds);
  while (!deadline.passed()) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (landing_ == 0) return true;
    }
    ::usleep(1000);
  }
  return false;
}

Status UcxNode::lost_because() {
  std::lock_guard<std::mutex> lock(mutex_);
  return why_;
}

void UcxNode::answer(const std::shared_ptr<Channel>& to, std::uint64_t id, ConstSpan payload,
                     ConstSpan text) {
  to->send({encode({Kind::answer, id, 0, payload.size}, text), payload}, nullptr);
}

namespace {

struct Decoded {
  std::uint8_t kind;
  std::uint64_t id, offset, size;
  ConstSpan text;
};

Decoded decode(ConstSpan bytes) {
  WireReader reader(bytes);
  Decoded header{};
  header.kind = reader.get<std::uint8_t>();
  header.id = reader.get<std::uint64_t>();
  header.offset = reader.get<std::uint64_t>();
  header.size = reader.get<std::uint64_t>();
  header.text = reader.rest();
  return header;
}

}  // namespace

Span UcxNode::destination(const std::shared_ptr<Channel>&, ConstSpan bytes, std::size_t size) {
  const Decoded header = decode(bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  ++landing_;
  if (static_cast<Kind>(header.kind) == Kind::answer) {
    const auto found = pending_.find(header.id);
    return found == pending_.end() ? Span{} : found->second->into;
  }
  if (header.offset > memory_.size || size > memory_.size - header.offset) return {};
  return memory_.slice(header.offset, size);
}

void UcxNode::arrived(const std::shared_ptr<Channel>& from, ConstSpan bytes, Span payload,
                      Status status) {
  const Decoded header = decode(bytes);
  if (!payload.empty() || !status.ok()) {
    std::lock_guard<std::mutex> lock(mutex_);
    --landing_;
  }
  switch (static_cast<Kind>(header.kind)) {
    case Kind::echo: return answer(from, header.id, {}, header.text);
    case Kind::fetch: return answer(from, header.id, memory_.slice(header.offset, header.size), {});
    case Kind::push: return answer(from, header.id, {}, {});
    case Kind::tell: {
      std::lock_guard<std::mutex> lock(mutex_);
      heard_.push_back(static_cast<std::uint32_t>(header.id));
      return;
    }
    case Kind::answer: break;
  }
  Pending* pending = forget(header.id);
  if (pending == nullptr) return;
  if (status.ok() && payload.size != pending->into.size)
    status = {Code::protocol, "fewer bytes than asked for"};
  pending->answer = header.text.copy();
  pending->complete(std::move(status));
}

void UcxNode::lost(const std::shared_ptr<Channel>&, Status why) {
  std::map<std::uint64_t, Pending*> pending;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    lost_ = true;
    why_ = why;
    pending.swap(pending_);
  }
  for (auto& [id, waiting] : pending) waiting->complete(why);
}

}  // namespace pshpc::test
