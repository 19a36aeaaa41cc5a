// Twelve independent chains of vector multiply-adds a thread: enough to fill two units of latency 4
// or 5, few enough for 16 registers.
#include "base/fma_peak.h"

#include <algorithm>
#include <chrono>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

double fma_peak(double seconds, int threads) {
  constexpr int kChains = 12;
  constexpr int64_t kSteps = 200000;
  using Clock = std::chrono::steady_clock;
  double best = 0;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    parallel_tasks(threads, threads, [&](int64_t task) {
      Vector<float> chain[kChains];
      const Vector<float> factor = broadcast(0.999f + 1e-6f * float(task));
      const Vector<float> term = broadcast(0.5f);
      for (int i = 0; i < kChains; ++i) chain[i] = broadcast(float(i));
      for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) chain[i] = multiply_add(chain[i], factor, term);
      }
      float sum = 0;
      for (int i = 0; i < kChains; ++i) sum += chain[i][0];
      volatile float sink = sum;  // or the chains would be dead code
      (void)sink;
    });
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    const double flops = 2.0 * kChains * double(kSteps) * Simd<float>::kWidth * threads;
    best = std::max(best, flops / took / 1e9);
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return best;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
