// Threads: a dynamic loop over tasks. Results must not depend on which thread runs which task.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif
#include "base/large_pages.h"
#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

// Runs body(task) for every task below `tasks`; an exception of any of them is thrown again here,
// because one that leaves an OpenMP region ends the process.
template <class Body>
void parallel_tasks(int64_t tasks, int threads, const Body& body) {
  std::exception_ptr error;
  std::mutex guard;
  const int team = static_cast<int>(tasks < threads ? tasks : threads);
  auto run = [&](int64_t task) {
    try {
      body(task);
    } catch (...) {
      std::lock_guard<std::mutex> lock(guard);
      if (!error) error = std::current_exception();
    }
  };
  if (team <= 1) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
  } else {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
#endif
    for (int64_t task = 0; task < tasks; ++task) run(task);
  }
  if (error) std::rethrow_exception(error);
}

// Number of the calling thread inside parallel_tasks, below its `threads`; for scratch memory.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Blocks that a thread gave back, kept for its next call: fresh ones come from the system page by
// page, which costs as much as the smaller kernels themselves. At most 32 MB a thread.
class ScratchCache {
 public:
  ScratchCache() = default;
  ScratchCache(const ScratchCache&) = delete;
  ScratchCache& operator=(const ScratchCache&) = delete;
  ~ScratchCache() { clear(); }

  static ScratchCache& of_this_thread() {
    static thread_local ScratchCache cache;
    return cache;
  }

  // A block of at least `bytes`, and its true size in `bytes`.
  void* take(size_t& bytes) {
    Block* best = nullptr;
    for (Block& block : blocks_) {
      const bool fits = block.data && block.bytes >= bytes && block.bytes <= 2 * bytes + 65536;
      if (fits && (!best || block.bytes < best->bytes)) best = &block;
    }
    if (!best) {
      bytes = (bytes + 4095) / 4096 * 4096;
      return allocate(bytes);
    }
    void* data = best->data;
    bytes = best->bytes;
    held_ -= bytes;
    best->data = nullptr;
    return data;
  }

  // Gives everything back to the system.
  void clear() {
    for (Block& block : blocks_) {
      release(block.data);
      block = Block{};
    }
    held_ = 0;
  }

  void give(void* data, size_t bytes) {
    if (kCaches && held_ + bytes <= kMostBytes) {
      for (Block& block : blocks_) {
        if (block.data) continue;
        block = {data, bytes};
        held_ += bytes;
        return;
      }
    }
    release(data);
  }

 private:
  struct Block {
    void* data = nullptr;
    size_t bytes = 0;
  };

  // Strips of scores are read at strides beyond the reach of the TLB.
  static void* allocate(size_t bytes) {
    void* data = ::operator new(bytes, std::align_val_t(64));
    ask_for_large_pages(data, bytes);
    return data;
  }

  static void release(void* data) { ::operator delete(data, std::align_val_t(64)); }

#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool kCaches = false;  // an overrun must hit the end of its own block
#else
  static constexpr bool kCaches = true;
#endif
  static constexpr size_t kMostBytes = size_t(32) << 20;
  Block blocks_[24];
  size_t held_ = 0;
};

// Uninitialised memory of one cache-line alignment, given back with the object, by the thread that
// made it.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : bytes_(size > 0 ? size_t(size) * sizeof(T) : 0) {
    data_ = bytes_ ? static_cast<T*>(allocate()) : nullptr;
  }
  ~Buffer() {
    if (data_) ScratchCache::of_this_thread().give(data_, bytes_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  void* allocate() {
#if defined(__SANITIZE_ADDRESS__)
    return ::operator new(bytes_, std::align_val_t(64));
#else
    return ScratchCache::of_this_thread().take(bytes_);
#endif
  }

  size_t bytes_;
  T* data_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
