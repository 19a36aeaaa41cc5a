// Memory in large pages, where the system gives them on request.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace inpaint {

constexpr size_t kLargePage = size_t(1) << 21;

// Asks for them in the whole large pages of a block, for those not yet there: a fresh block of many
// small pages takes longer to come from the system than to be filled.
inline void ask_for_large_pages(void* data, size_t bytes) {
#ifdef __linux__
  const uintptr_t first = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (first + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t end = (first + bytes) / kLargePage * kLargePage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  static_cast<void>(data), static_cast<void>(bytes);
#endif
}

}  // namespace inpaint
