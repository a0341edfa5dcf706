#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>

#include "bindings/completions.h"
#include "bindings/core_rpc.h"

namespace pshpc::bindings {
namespace {

py::list to_list(std::vector<Buriable> tokens) {
  release_buried();
  py::list list;
  for (Buriable& token : tokens) list.append(token.take());
  return list;
}

}  // namespace

Status Completions::open() {
  wake_ = GuardedFd(Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  return wake_ ? Status() : system_error("creating an eventfd for completions");
}

void Completions::push(Buriable token) {
  bool signal;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return;
    finished_.push_back(std::move(token));
    signal = !std::exchange(signalled_, true);
  }
  // Once for all that finish before somebody looks.
  if (!signal) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wake_.get(), &one, sizeof one);
  changed_.notify_one();
}

std::vector<Buriable> Completions::drain() {
  // First: whoever signals later than this is heard once more. Where nothing was signalled it
  // returns at once.
  std::uint64_t count;
  [[maybe_unused]] const ssize_t ignored = ::read(wake_.get(), &count, sizeof count);
  std::vector<Buriable> taken;
  std::lock_guard<std::mutex> lock(mutex_);
  signalled_ = false;
  taken.swap(finished_);
  return taken;
}

std::vector<Buriable> Completions::wait(Deadline deadline) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    while (finished_.empty() && !closed_ && !deadline.passed())
      changed_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline.remaining(), kSecond)));
  }
  return drain();
}

void Completions::close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void bind_completions(py::module_& module) {
  py::class_<Completions, std::shared_ptr<Completions>>(
      module, "Completions", "Finished calls, for an event loop or a thread.")
      .def(py::init([] {
        auto made = std::make_shared<Completions>();
        check(made->open());
        return made;
      }))
      .def("fileno", &Completions::fd)
      .def("drain", [](Completions& self) { return to_list(self.drain()); })
      .def(
          "wait",
          [](Completions& self, double timeout) {
            std::vector<Buriable> tokens;
            {
              const py::gil_scoped_release release;
              tokens = self.wait(to_deadline(timeout));
            }
            return to_list(std::move(tokens));
          },
          py::arg("timeout"))
      .def("close", &Completions::close);
}

}  // namespace pshpc::bindings
