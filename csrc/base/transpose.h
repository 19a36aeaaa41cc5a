// Lanes of floats that change places in registers: square blocks, rows to columns, and sums.
#pragma once

#include <utility>

#include "base/simd.h"

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

// Lanes that a vector of W / (2 STEP) items of a and then as many of b takes from both, the first
// or the second STEP lanes of each.
template <int STEP>
constexpr int half_of_item(int lane, bool second) {
  constexpr int W = Simd<float>::kWidth, kItems = W / (2 * STEP);
  const int item = lane / STEP,
            from = item < kItems ? 2 * item * STEP : W + 2 * (item - kItems) * STEP;
  return from + lane % STEP + (second ? STEP : 0);
}

template <int STEP, int... LANE>
inline __attribute__((always_inline)) Vector<float> folded(Vector<float> a,
                                                           Vector<float> b,
                                                           std::integer_sequence<int, LANE...>) {
  return __builtin_shufflevector(a, b, half_of_item<STEP>(LANE, false)...) +
         __builtin_shufflevector(a, b, half_of_item<STEP>(LANE, true)...);
}

// The sum of the lanes of each of COUNT vectors, at most W, one to a lane; halves are added first,
// then quarters, and so on. The vectors are overwritten.
template <int COUNT, int STEP = Simd<float>::kWidth / 2>
inline __attribute__((always_inline)) Vector<float> sums_of_lanes(Vector<float>* v) {
  constexpr int W = Simd<float>::kWidth, kLeft = (COUNT + 1) / 2;
#pragma GCC unroll 8
  for (int i = 0; i < kLeft; ++i)
    v[i] = folded<STEP>(v[2 * i],
                        2 * i + 1 < COUNT ? v[2 * i + 1] : Vector<float>{},
                        std::make_integer_sequence<int, W>());
  if constexpr (STEP > 1) {
    return sums_of_lanes<kLeft, STEP / 2>(v);
  } else {
    return v[0];
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
