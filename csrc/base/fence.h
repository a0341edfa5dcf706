#pragma once
// std::atomic_thread_fence, also where GCC warns that ThreadSanitizer does not model it: what a
// fence orders here is shared with other processes, of which that knows nothing anyway.

#include <atomic>

namespace pshpc {

inline void fence(std::memory_order order) {
#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif
  std::atomic_thread_fence(order);
#pragma GCC diagnostic pop
}

}  // namespace pshpc
