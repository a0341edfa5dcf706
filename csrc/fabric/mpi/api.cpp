#include "fabric/mpi/api.h"

#include <dlfcn.h>

#include <array>

namespace pshpc::fabric::mpi {
namespace {

// Longer than what any MPI says of itself or of an error (MPI_MAX_LIBRARY_VERSION_STRING is 8192).
constexpr std::size_t kLongestText = 16 * 1024;

// Symbols that each of the two families has and the other has not.
constexpr const char* kOpenMpi = "ompi_mpi_comm_world";
constexpr const char* kMpich = "MPIR_Dup_fn";

}  // namespace

Expected<std::shared_ptr<const Api>> Api::load(const std::string& library,
                                               const Constants& constants) {
  // Stays loaded: mpi4py never unloads it.
  void* const handle = ::dlopen(library.c_str(), RTLD_NOLOAD | RTLD_LAZY);
  if (handle == nullptr)
    return Status(Code::unavailable, library + " is not loaded: import mpi4py.MPI first");
  std::shared_ptr<Api> api(new Api());
  const Status resolved = api->resolve(handle);
  if (!resolved.ok()) return resolved;
  api->constants = constants;
  return std::shared_ptr<const Api>(std::move(api));
}

Status Api::resolve(void* library) {
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    void* const symbol = ::dlsym(library, name);
    if (symbol == nullptr) missing = name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  find(library_version_, "MPI_Get_library_version");
  if (missing == nullptr) {
    std::string text(kLongestText, '\0');
    int length = 0;
    if (library_version_(text.data(), &length) == 0 && length > 0)
      version_ = text.substr(0, static_cast<std::size_t>(length));
    version_ = version_.substr(0, version_.find_first_of("\n,"));
    version_ = version_.substr(0, version_.find('\0'));
  }
  if (::dlsym(library, kOpenMpi) != nullptr)
    family_ = "Open MPI";
  else if (::dlsym(library, kMpich) != nullptr)
    family_ = "MPICH";
  else
    return {Code::unavailable, "this MPI (" + (version_.empty() ? "of no name" : version_) +
                                   ") is neither Open MPI nor MPICH or a relative of it"};
  find(rget, "MPI_Rget");
  find(rput, "MPI_Rput");
  find(rget_accumulate, "MPI_Rget_accumulate");
  find(win_lock, "MPI_Win_lock");
  find(win_flush, "MPI_Win_flush");
  find(win_sync, "MPI_Win_sync");
  find(win_attach, "MPI_Win_attach");
  find(win_detach, "MPI_Win_detach");
  find(improbe, "MPI_Improbe");
  find(isend, "MPI_Isend");
  find(mrecv, "MPI_Mrecv");
  find(test, "MPI_Test");
  find(error_string_, "MPI_Error_string");
  find(initialized_, "MPI_Initialized");
  find(finalized_, "MPI_Finalized");
  if (missing != nullptr)
    return {Code::unavailable,
            "this MPI (" + version_ + ") has no " + missing + ": MPI 3.0 or newer is needed"};
  settings_ = Settings::read(library);
  return {};
}

bool Api::usable() const {
  int began = 0, ended = 0;
  return initialized_(&began) == 0 && began != 0 && finalized_(&ended) == 0 && ended == 0;
}

Status Api::check(int code, const char* attempted) const {
  if (code == 0) return {};
  std::string text(kLongestText, '\0');
  int length = 0;
  if (error_string_(code, text.data(), &length) != 0 || length <= 0)
    text = "error " + std::to_string(code);
  else
    text.resize(static_cast<std::size_t>(length));
  return {Code::failed, std::string(attempted) + ": MPI says: " + text};
}

}  // namespace pshpc::fabric::mpi
