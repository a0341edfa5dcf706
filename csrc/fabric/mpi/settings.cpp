#include "fabric/mpi/settings.h"

#include <dlfcn.h>

#include <cstdint>

namespace pshpc::fabric::mpi {
namespace {

// Of Open MPI's osc/rdma, and of MPICH. Open MPI 5 has nothing like the latter.
constexpr const char* kAttachLimit = "osc_rdma_max_attach";
constexpr const char* kAsyncProgress = "MPIR_CVAR_ASYNC_PROGRESS";

class Tools {
 public:
  explicit Tools(void* library) : library_(library) {
    // Open MPI takes what is asked for here for the level of MPI itself from then on: it must be
    // the one that MPI has.
    int level = 0, granted = 0;
    started_ = call("MPI_Query_thread", &level) && call("MPI_T_init_thread", level, &granted);
  }
  ~Tools() {
    if (started_) call("MPI_T_finalize");
  }
  Tools(const Tools&) = delete;
  Tools& operator=(const Tools&) = delete;

  // The value of a variable of one number, 0 if there is none of that name.
  std::uint64_t read(const char* name) const {
    int index = 0, count = 0;
    void* handle = nullptr;
    std::uint64_t value = 0;
    if (!started_ || !call("MPI_T_cvar_get_index", name, &index) ||
        !call("MPI_T_cvar_handle_alloc", index, static_cast<void*>(nullptr), &handle, &count))
      return 0;
    if (count != 1 || !call("MPI_T_cvar_read", handle, static_cast<void*>(&value))) value = 0;
    call("MPI_T_cvar_handle_free", &handle);
    return value;
  }

 private:
  template <typename... Arguments>
  bool call(const char* name, Arguments... arguments) const {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(::dlsym(library_, name));
    return function != nullptr && function(arguments...) == 0;
  }

  void* const library_;
  bool started_ = false;
};

}  // namespace

Settings Settings::read(void* library) {
  const Tools tools(library);
  Settings settings;
  settings.attach_limit = static_cast<std::size_t>(tools.read(kAttachLimit));
  settings.progresses_itself = tools.read(kAsyncProgress) != 0;
  return settings;
}

}  // namespace pshpc::fabric::mpi
