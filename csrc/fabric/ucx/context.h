#pragma once
// A UCP context: the transports in use and the memory registered with them.

#include <memory>
#include <string>

#include <ucp/api/ucp.h>

#include "base/status.h"
#include "fabric/ucx/config.h"

namespace pshpc::fabric::ucx {

class Context {
 public:
  static Expected<std::shared_ptr<Context>> create(const Options& options);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  ucp_context_h handle() const { return handle_; }
  const Options& options() const { return options_; }
  // UCX's own description, for the parser in inspect.h.
  std::string describe() const;

 private:
  Context(ucp_context_h handle, const Options& options);

  ucp_context_h handle_;
  Options options_;
  std::uint32_t birth_;
};

}  // namespace pshpc::fabric::ucx
