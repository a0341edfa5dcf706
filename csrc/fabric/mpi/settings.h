#pragma once
// What an MPI is set to, by its tool interface (MPI 3.1, section 14.3).

#include <cstddef>

namespace pshpc::fabric::mpi {

struct Settings {
  // How many attachments a dynamic window takes; 0 if MPI does not tell.
  std::size_t attach_limit = 0;
  // A thread of MPI's own progresses what others do to this rank.
  bool progresses_itself = false;

  // Of the library with this handle of dlopen, which has been started.
  static Settings read(void* library);
};

}  // namespace pshpc::fabric::mpi
