#pragma once
// For loops that wait for another processor to write.

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace pshpc {

// Lets the processor's other thread, and the memory, go first for a moment.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace pshpc
