#pragma once
// Registered memory on the owner's side, and what a peer holds of it.

#include <memory>

#include <ucp/api/ucp.h>

#include "fabric/door.h"
#include "fabric/ucx/context.h"
#include "fabric/ucx/worker.h"

namespace pshpc::fabric::ucx {

// Registration and release take the context's own lock, not the worker's: pinning a gigabyte for a
// network card must not stop the service.
class Registration {
 public:
  static Expected<std::unique_ptr<Registration>> create(std::shared_ptr<Context> context,
                                                        Span span);
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  // Address, length, rkey.
  const Bytes& remote_handle() const { return remote_handle_; }

 private:
  Registration(std::shared_ptr<Context> context, ucp_mem_h memory);
  Status pack(Span span);

  std::shared_ptr<Context> context_;
  ucp_mem_h memory_;
  std::uint32_t birth_;
  Bytes remote_handle_;
};

// Valid with the endpoint that it was made for.
class Remote final : public RemoteRegion {
 public:
  static Expected<std::shared_ptr<RemoteRegion>> unpack_locked(std::shared_ptr<Worker> worker,
                                                               ucp_ep_h endpoint, ConstSpan handle);
  ~Remote() override;

  ucp_rkey_h key() const { return key_; }
  std::uint64_t address(std::uint64_t offset) const { return base_ + offset; }
  bool covers(std::uint64_t offset, std::uint64_t size) const {
    return offset <= length_ && size <= length_ - offset;
  }
  std::uint64_t length() const { return length_; }

 private:
  Remote(std::shared_ptr<Worker> worker, ucp_rkey_h key, std::uint64_t base, std::uint64_t length)
      : worker_(std::move(worker)), key_(key), base_(base), length_(length) {}

  std::shared_ptr<Worker> worker_;
  ucp_rkey_h key_;
  std::uint64_t base_;
  std::uint64_t length_;
};

}  // namespace pshpc::fabric::ucx
