// The machine's multiply-add rate: the ceiling that benchmarks compare with.
#pragma once

#include "base/cpu.h"

namespace inpaint {

// GFLOP/s (a multiply-add counts two) of `threads` threads that touch registers only, float32; the
// best of as many rounds as fit in `seconds`.
INPAINT_EACH_ISA(double fma_peak(double seconds, int threads);)

}  // namespace inpaint
