#pragma once
// The MPI that the tests of the mpi door run on: this process alone is its job. PSHPC_TEST_MPI
// names the library, an Open MPI.

#include <cstdint>
#include <memory>
#include <string>

#include "fabric/mpi/port.h"

namespace pshpc::test {

// MPI is started with the first call and ended with the process. Empty if there is none.
std::shared_ptr<const fabric::mpi::Api> mpi_api();

// A communicator and windows, as Python makes them.
class MpiWorld {
 public:
  MpiWorld();
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  fabric::mpi::Port port;

 private:
  std::uint8_t locked_ = 0;
};

}  // namespace pshpc::test
