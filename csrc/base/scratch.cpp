// The calling thread and the team that parallel_tasks would give work to, each its own blocks.
#include "base/scratch.h"

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

void release_scratch(int threads) {
  ScratchCache::of_this_thread().clear();
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
  ScratchCache::of_this_thread().clear();
#else
  (void)threads;
#endif
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
