#include "fabric/ucx/context.h"

#include "base/fork_guard.h"
#include "fabric/ucx/errors.h"
#include "fabric/ucx/text.h"

namespace pshpc::fabric::ucx {

Expected<std::shared_ptr<Context>> Context::create(const Options& options) {
  auto config = make_config(options);
  if (!config) return config.status();

  ucp_params_t params{};
  params.field_mask =
      UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP;
  // Memory is registered by any thread while another progresses the worker.
  params.mt_workers_shared = 1;
  params.name = "proxystore_hpc";

  // The oldest API that has what we use: a newer number makes an older library warn.
  ucp_context_h handle = nullptr;
  const ucs_status_t status = ucp_init_version(1, 11, &params, config->get(), &handle);
  if (status != UCS_OK) {
    const std::string wish = options.tls.empty() ? "" : " with transports " + options.tls;
    return Status(Code::unavailable,
                  to_status(status, "starting UCX" + wish).message() +
                      " (`proxystore-hpc info` lists the transports and devices there are)");
  }
  return std::shared_ptr<Context>(new Context(handle, options));
}

Context::Context(ucp_context_h handle, const Options& options)
    : handle_(handle), options_(options), birth_(fork_generation()) {}

Context::~Context() {
  // In a forked child all that it would free is shared with the parent.
  if (birth_ == fork_generation()) ucp_cleanup(handle_);
}

std::string Context::describe() const {
  return printed([this](FILE* stream) { ucp_context_print_info(handle_, stream); });
}

}  // namespace pshpc::fabric::ucx
