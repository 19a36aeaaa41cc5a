// Large Winograd tiles: 64 multiplications for 5 x 5 outputs of 4 x 4 taps, 4 x 4 of 5 x 5.
//
// 6 x 6 outputs of 3 x 3 taps would take 0.79 of the products of winograd_4x3, but 0.9 to 1 of its
// time and 3.5 times its error.
#pragma once

#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

// One axis, as in winograd_transforms.h.
//
// Interpolation points 0, +-1, +-2, +-1/2 and infinity: of all that were tried these err least, 2
// to 3 times as much as the small tiles, and all their powers are exact. For a point p of them with
// the other two squared s = q^2 + r^2, t = q^2 r^2:
//
//   input   0: (d6 - d0) + 21/4 (d2 - d4)   +-p: (d6 - s d4 + t d2) +- p (d5 - s d3 + t d1)
//           inf: (d7 - d1) + 21/4 (d3 - d5)
//   weight  point p: (g0 + p g1 + p^2 g2 + ...) / N_p,  N_0 = -1, N_p = 2 p^2 (p^2 - q^2) (p^2 -
//           r^2); inf: the last tap
//   output  y_k = sum over finite p of p^k m_p, and m_inf added to the last
template <int TAPS>
struct LargeTile {
  static constexpr int kProducts = 8, kTaps = TAPS, kOutputs = kProducts + 1 - TAPS;
  static constexpr int kReads = 8, kInputs = 8, kWeights = 8;
  static constexpr int read_at[kReads] = {0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr int input_of[kProducts] = {0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr int weight_of[kProducts] = {0, 1, 2, 3, 4, 5, 6, 7};

  template <class V>
  static inline __attribute__((always_inline)) void input(const V* d, ptrdiff_t step, V* out) {
    const V d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const V d6 = d[6 * step];
    out[0] = multiply_add(d2 - d4, 5.25f, d6 - d[0]);
    const V even_1 = subtract_product(d2 + d6, d4, 4.25f);
    const V odd_1 = subtract_product(d1 + d5, d3, 4.25f);
    out[1] = even_1 + odd_1;
    out[2] = even_1 - odd_1;
    const V even_2 = multiply_add(d2, 0.25f, subtract_product(d6, d4, 1.25f));
    const V odd_2 = multiply_add(d1, 0.25f, subtract_product(d5, d3, 1.25f));
    out[3] = multiply_add(odd_2, 2.0f, even_2);
    out[4] = subtract_product(even_2, odd_2, 2.0f);
    const V even_half = multiply_add(d2, 4.0f, subtract_product(d6, d4, 5.0f));
    const V odd_half = multiply_add(d1, 4.0f, subtract_product(d5, d3, 5.0f));
    out[5] = multiply_add(odd_half, 0.5f, even_half);
    out[6] = subtract_product(even_half, odd_half, 0.5f);
    out[7] = multiply_add(d3 - d5, 5.25f, d[7 * step] - d1);
  }

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* m, ptrdiff_t step, V* out) {
    const V sum_1 = m[step] + m[2 * step], diff_1 = m[step] - m[2 * step];
    const V sum_2 = m[3 * step] + m[4 * step], diff_2 = m[3 * step] - m[4 * step];
    const V sum_half = m[5 * step] + m[6 * step], diff_half = m[5 * step] - m[6 * step];
    out[0] = (m[0] + sum_1) + (sum_2 + sum_half);
#pragma GCC unroll 6
    for (int k = 1; k < kOutputs; ++k) {
      V at_1 = k % 2 ? diff_1 : sum_1;
      if (k + 1 == kOutputs) at_1 += m[7 * step];
      const V at_2 = k % 2 ? diff_2 : sum_2, at_half = k % 2 ? diff_half : sum_half;
      out[k] = multiply_add(
          at_2, float(int64_t(1) << k), multiply_add(at_half, 1.0f / float(int64_t(1) << k), at_1));
    }
  }

  template <class V>
  static inline void weight(const V* g, ptrdiff_t step, V* out) {
    out[0] = -g[0];
    at_point(g, step, 1.0, 2 * (1 - 4.0) * (1 - 0.25), out + 1);
    at_point(g, step, 2.0, 2 * 4 * (4 - 1.0) * (4 - 0.25), out + 3);
    at_point(g, step, 0.5, 2 * 0.25 * (0.25 - 1) * (0.25 - 4), out + 5);
    out[7] = g[(TAPS - 1) * step];
  }

 private:
  // At a point and its opposite.
  template <class V>
  static inline void at_point(const V* g, ptrdiff_t step, double point, double scale, V* out) {
    V even = g[0] * (1 / scale), odd = g[step] * (point / scale);
    double power = point * point;
    for (int k = 2; k < TAPS; ++k, power *= point) {
      V& to = k % 2 ? odd : even;
      to = multiply_add(g[k * step], power / scale, to);
    }
    out[0] = even + odd;
    out[1] = even - odd;
  }
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
