#include "tests/mpi_world.h"

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>

#include "fabric/mpi/layout.h"
#include "tests/check.h"

namespace pshpc::test {
namespace {

using fabric::mpi::Aint;
using fabric::mpi::Handle;

constexpr int kThreadMultiple = 3;

const char* library() { return std::getenv("PSHPC_TEST_MPI"); }

void* symbol(const char* name) {
  static void* const mpi = ::dlopen(library(), RTLD_NOW | RTLD_GLOBAL);
  void* const found = mpi == nullptr ? nullptr : ::dlsym(mpi, name);
  if (found == nullptr) throw std::runtime_error(std::string("no ") + name + " in " + library());
  return found;
}

Handle handle(const char* name) { return reinterpret_cast<Handle>(symbol(name)); }

template <class... Arguments>
void call(const char* name, Arguments... arguments) {
  const auto function = reinterpret_cast<int (*)(Arguments...)>(symbol(name));
  if (function(arguments...) != 0) throw std::runtime_error(std::string(name) + " failed");
}

std::shared_ptr<const fabric::mpi::Api> start() {
  int level = 0;
  call("MPI_Init_thread", static_cast<int*>(nullptr), static_cast<char***>(nullptr),
       kThreadMultiple, &level);
  if (level != kThreadMultiple) throw std::runtime_error("MPI_THREAD_MULTIPLE was not granted");
  std::atexit([] { call("MPI_Finalize"); });
  fabric::mpi::Constants constants;
  constants.byte = handle("ompi_mpi_byte");
  constants.uint64 = handle("ompi_mpi_uint64_t");
  constants.sum = handle("ompi_mpi_op_sum");
  constants.replace = handle("ompi_mpi_op_replace");
  constants.no_op = handle("ompi_mpi_op_no_op");
  constants.any_source = -1;
  constants.lock_shared = 2;
  constants.no_check = 1;
  auto api = fabric::mpi::Api::load(library(), constants);
  REQUIRE(api.ok());
  return std::move(api).value();
}

}  // namespace

std::shared_ptr<const fabric::mpi::Api> mpi_api() {
  if (library() == nullptr) return nullptr;
  static const std::shared_ptr<const fabric::mpi::Api> api = start();
  return api;
}

MpiWorld::MpiWorld() {
  port.api = mpi_api();
  REQUIRE(port.api != nullptr);
  call("MPI_Comm_dup", handle("ompi_mpi_comm_self"), &port.comm);
  call("MPI_Win_allocate", static_cast<Aint>(fabric::mpi::kWindowSize), 1,
       handle("ompi_mpi_info_null"), port.comm, static_cast<void*>(&port.base), &port.messages);
  call("MPI_Win_create_dynamic", handle("ompi_mpi_info_null"), port.comm, &port.memory);
  call("MPI_Win_lock_all", 0, port.messages);
  port.locked = &locked_;
  port.rank = 0;
  port.ranks = 1;
  port.job = random_tag();
}

MpiWorld::~MpiWorld() {
  call("MPI_Win_unlock_all", port.messages);
  if (locked_ != 0) call("MPI_Win_unlock", 0, port.memory);
  for (Handle* window : {&port.messages, &port.memory}) call("MPI_Win_free", window);
  call("MPI_Comm_free", &port.comm);
}

}  // namespace pshpc::test
