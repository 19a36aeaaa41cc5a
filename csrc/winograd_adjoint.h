// Transposes of the Winograd transforms of outputs and weights, for the gradient of the weight.
#pragma once

#include "winograd.h"

namespace inpaint {
namespace INPAINT_ISA {

// One axis, as in the tile it belongs to: `output` takes 4 gradients of outputs to 6, `weight` sums
// of as many products as there are transformed weights to 3 taps.
template <class T>
struct Adjoint;

template <>
struct Adjoint<PlainTile> {
  static constexpr double kA = PlainTile::kA, kB = PlainTile::kB;

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* y, ptrdiff_t step, V* out) {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA * kA), b2 = float(kB * kB);
    const V y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const V even_a = y0 + y2 * a2, odd_a = (y1 + y3 * a2) * a;
    const V even_b = y0 + y2 * b2, odd_b = (y1 + y3 * b2) * b;
    out[0] = y0;
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = y3;
  }

  template <class V>
  static inline __attribute__((always_inline)) void weight(const V* w, ptrdiff_t step, V* out) {
    constexpr double na = 2 * kA * kA * (kA * kA - kB * kB);
    constexpr double nb = 2 * kB * kB * (kB * kB - kA * kA);
    constexpr float a0 = float(1 / na), a1 = float(kA / na), a2 = float(kA * kA / na);
    constexpr float b0 = float(1 / nb), b1 = float(kB / nb), b2 = float(kB * kB / nb);
    const V sum_a = w[step] + w[2 * step], diff_a = w[step] - w[2 * step];
    const V sum_b = w[3 * step] + w[4 * step], diff_b = w[3 * step] - w[4 * step];
    out[0] = w[0] + (sum_a * a0 + sum_b * b0);
    out[1] = diff_a * a1 + diff_b * b1;
    out[2] = (sum_a * a2 + sum_b * b2) + w[5 * step];
  }
};

template <>
struct Adjoint<DoubledTile> {
  template <class V>
  static inline __attribute__((always_inline)) void output(const V* y, ptrdiff_t step, V* out) {
    out[0] = y[0] + y[step];
    out[1] = y[2 * step] + y[3 * step];
    out[2] = y[0];
    out[3] = V{} - y[2 * step];
    out[4] = y[step];
    out[5] = y[3 * step];
  }

  template <class V>
  static inline __attribute__((always_inline)) void weight(const V* w, ptrdiff_t step, V* out) {
    out[0] = w[0] + w[step];
    out[1] = w[0];
    out[2] = w[0] + w[2 * step];
  }
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
