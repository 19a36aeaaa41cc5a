// Threads: a dynamic loop over tasks. Results must not depend on which thread runs which task.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "simd.h"

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

// Uninitialised memory of one cache-line alignment, freed with the object.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(size > 0 ? static_cast<T*>(::operator new(static_cast<size_t>(size) * sizeof(T),
                                                        std::align_val_t(64)))
                       : nullptr) {}
  ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
