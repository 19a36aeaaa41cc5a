// Transposes of the Winograd transforms of outputs and weights, for the gradient of the weight.
#pragma once

#include "winograd.h"

namespace inpaint {
namespace INPAINT_ISA {

// One axis, as in the tile it belongs to: `output` takes gradients of a tile's outputs to as many
// numbers as there are products, `weight` sums of as many products as there are transformed weights
// to the taps.
template <class T>
struct Adjoint;

template <int TAPS>
struct Adjoint<PointTile<TAPS>> {
  using Tile = PointTile<TAPS>;

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* y, ptrdiff_t step, V* out) {
    constexpr float a = float(Tile::kA), b = float(Tile::kB);
    constexpr int last = Tile::kOutputs - 1;
    // Even and odd powers apart, by Horner's rule in the squared point.
    V even_a = y[last / 2 * 2 * step], odd_a = y[((last + 1) / 2 * 2 - 1) * step];
    V even_b = even_a, odd_b = odd_a;
#pragma GCC unroll 2
    for (int k = last / 2 * 2 - 2; k >= 0; k -= 2) {
      even_a = y[k * step] + even_a * (a * a);
      even_b = y[k * step] + even_b * (b * b);
    }
#pragma GCC unroll 2
    for (int k = (last + 1) / 2 * 2 - 3; k >= 1; k -= 2) {
      odd_a = y[k * step] + odd_a * (a * a);
      odd_b = y[k * step] + odd_b * (b * b);
    }
    out[0] = y[0];
    out[1] = even_a + odd_a * a;
    out[2] = even_a - odd_a * a;
    out[3] = even_b + odd_b * b;
    out[4] = even_b - odd_b * b;
    out[5] = y[last * step];
  }

  template <class V>
  static inline __attribute__((always_inline)) void weight(const V* w, ptrdiff_t step, V* out) {
    constexpr double na = 2 * Tile::kA * Tile::kA * (Tile::kA * Tile::kA - Tile::kB * Tile::kB);
    constexpr double nb = 2 * Tile::kB * Tile::kB * (Tile::kB * Tile::kB - Tile::kA * Tile::kA);
    const V sum_a = w[step] + w[2 * step], diff_a = w[step] - w[2 * step];
    const V sum_b = w[3 * step] + w[4 * step], diff_b = w[3 * step] - w[4 * step];
    double a = 1 / na, b = 1 / nb;
#pragma GCC unroll 4
    for (int k = 0; k < TAPS; ++k, a *= Tile::kA, b *= Tile::kB)
      out[k] = (k % 2 ? diff_a : sum_a) * float(a) + (k % 2 ? diff_b : sum_b) * float(b);
    out[0] += w[0];
    out[TAPS - 1] += w[5 * step];
  }
};

template <>
struct Adjoint<ShortTile> {
  using Tile = ShortTile;

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* y, ptrdiff_t step, V* out) {
    constexpr float a = float(Tile::kA), a2 = float(Tile::kA * Tile::kA), b = float(Tile::kB);
    const V y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const V even = y[0] + y2 * a2, odd = y1 + y3 * a2;
    out[0] = y[0];
    out[1] = even + odd * a;
    out[2] = even - odd * a;
    out[3] = y[0] + (y1 + (y2 + y3 * b) * b) * b;
    out[4] = y3;
  }

  template <class V>
  static inline __attribute__((always_inline)) void weight(const V* w, ptrdiff_t step, V* out) {
    constexpr float of_a = float(1 / Tile::kNa), of_minus_a = float(1 / Tile::kNma);
    const V at_a = w[step] * of_a, at_minus_a = w[2 * step] * of_minus_a;
    const V at_b = w[3 * step] * float(1 / Tile::kNb);
    out[0] = (w[0] * float(1 / Tile::kN0) + at_b) + (at_a + at_minus_a);
    out[1] = (at_a - at_minus_a) * float(Tile::kA) + (at_b * float(Tile::kB) + w[4 * step]);
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
