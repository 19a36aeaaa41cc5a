// Square blocks of floats, rows to columns, in registers.
#pragma once

#include <utility>

#include "simd.h"

namespace inpaint {
namespace INPAINT_ISA {

// Exchanges, between two rows of a square, the blocks of STEP lanes off its diagonal.
template <int STEP, int... LANE>
inline __attribute__((always_inline)) void exchange_blocks(Vector<float>& a,
                                                           Vector<float>& b,
                                                           std::integer_sequence<int, LANE...>) {
  constexpr int W = Simd<float>::kWidth;
  const Vector<float> low =
      __builtin_shufflevector(a, b, ((LANE & STEP) ? LANE - STEP + W : LANE)...);
  b = __builtin_shufflevector(a, b, ((LANE & STEP) ? LANE + W : LANE + STEP)...);
  a = low;
}

// log2 W rounds of exchanges.
template <int STEP = 1>
inline __attribute__((always_inline)) void transpose(Vector<float>* rows) {
  constexpr int W = Simd<float>::kWidth;
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
    if (!(r & STEP))
      exchange_blocks<STEP>(rows[r], rows[r + STEP], std::make_integer_sequence<int, W>());
  if constexpr (2 * STEP < W) transpose<2 * STEP>(rows);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
