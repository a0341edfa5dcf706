#pragma once
// The MPI that mpi4py has loaded, without mpi.h: its functions by name, its handles as numbers.
//
// Handles are pointers in Open MPI and ints in MPICH and its relatives. On the ABIs of x86-64 and
// aarch64 either may travel as 64 bits, by value in a register and, zeroed before, behind a
// pointer.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "fabric/mpi/settings.h"

namespace pshpc::fabric::mpi {

using Handle = std::uint64_t;
using Aint = std::intptr_t;

// What mpi.h would tell; mpi4py knows it.
struct Constants {
  Handle byte = 0;
  Handle uint64 = 0;
  Handle sum = 0;
  Handle replace = 0;
  Handle no_op = 0;
  int any_source = 0;
  int lock_shared = 0;
  int no_check = 0;
};

// A status whose content is of no interest; larger than any.
struct StatusRoom {
  alignas(8) std::uint8_t bytes[256];
};

class Api {
 public:
  // `library` is the file of mpi4py's extension module: two MPIs may be loaded, and the functions
  // must be those that its handles belong to.
  static Expected<std::shared_ptr<const Api>> load(const std::string& library,
                                                   const Constants& constants);

  // "Open MPI" or "MPICH", whose relatives it stands for.
  const std::string& family() const { return family_; }
  const std::string& version() const { return version_; }
  bool usable() const;  // initialized, and not finalized

  const Settings& settings() const { return settings_; }

  // Ok for MPI_SUCCESS, else with MPI's text.
  Status check(int code, const char* attempted) const;

  Constants constants;

  int (*rget)(void*, int, Handle, int, Aint, int, Handle, Handle, Handle*) = nullptr;
  int (*rput)(const void*, int, Handle, int, Aint, int, Handle, Handle, Handle*) = nullptr;
  int (*rget_accumulate)(const void*, int, Handle, void*, int, Handle, int, Aint, int, Handle,
                         Handle, Handle, Handle*) = nullptr;
  int (*win_lock)(int, int, int, Handle) = nullptr;
  int (*win_flush)(int, Handle) = nullptr;
  int (*win_sync)(Handle) = nullptr;
  int (*win_attach)(Handle, void*, Aint) = nullptr;
  int (*win_detach)(Handle, const void*) = nullptr;
  int (*improbe)(int, int, Handle, int*, Handle*, void*) = nullptr;
  int (*isend)(const void*, int, Handle, int, int, Handle, Handle*) = nullptr;
  int (*mrecv)(void*, int, Handle, Handle*, void*) = nullptr;
  int (*test)(Handle*, int*, void*) = nullptr;

 private:
  Api() = default;
  Status resolve(void* library);

  std::string family_;
  std::string version_;
  Settings settings_;
  int (*error_string_)(int, char*, int*) = nullptr;
  int (*library_version_)(char*, int*) = nullptr;
  int (*initialized_)(int*) = nullptr;
  int (*finalized_)(int*) = nullptr;
};

}  // namespace pshpc::fabric::mpi
