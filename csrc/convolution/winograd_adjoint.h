// Transposes of the Winograd transforms of outputs and weights, for the gradient of the weight.
#pragma once

#include "convolution/winograd_transforms.h"

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
      even_a = multiply_add(even_a, a * a, y[k * step]);
      even_b = multiply_add(even_b, b * b, y[k * step]);
    }
#pragma GCC unroll 2
    for (int k = (last + 1) / 2 * 2 - 3; k >= 1; k -= 2) {
      odd_a = multiply_add(odd_a, a * a, y[k * step]);
      odd_b = multiply_add(odd_b, b * b, y[k * step]);
    }
    out[0] = y[0];
    out[1] = multiply_add(odd_a, a, even_a);
    out[2] = subtract_product(even_a, odd_a, a);
    out[3] = multiply_add(odd_b, b, even_b);
    out[4] = subtract_product(even_b, odd_b, b);
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
      out[k] = multiply_add(k % 2 ? diff_b : sum_b, float(b), (k % 2 ? diff_a : sum_a) * float(a));
    out[0] += w[0];
    out[TAPS - 1] += w[5 * step];
  }
};

template <>
struct Adjoint<Tile4x2> {
  using Tile = Tile4x2;

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* y, ptrdiff_t step, V* out) {
    constexpr float a = float(Tile::kA), a2 = float(Tile::kA * Tile::kA), b = float(Tile::kB);
    const V y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const V even = multiply_add(y2, a2, y[0]), odd = multiply_add(y3, a2, y1);
    out[0] = y[0];
    out[1] = multiply_add(odd, a, even);
    out[2] = subtract_product(even, odd, a);
    out[3] = multiply_add(multiply_add(multiply_add(y3, b, y2), b, y1), b, y[0]);
    out[4] = y3;
  }

  template <class V>
  static inline __attribute__((always_inline)) void weight(const V* w, ptrdiff_t step, V* out) {
    constexpr float of_a = float(1 / Tile::kNa), of_minus_a = float(1 / Tile::kNma);
    const V at_a = w[step] * of_a, at_minus_a = w[2 * step] * of_minus_a;
    const V at_b = w[3 * step] * float(1 / Tile::kNb);
    out[0] = multiply_add(w[0], float(1 / Tile::kN0), at_b) + (at_a + at_minus_a);
    out[1] = multiply_add(
        at_a - at_minus_a, float(Tile::kA), multiply_add(at_b, float(Tile::kB), w[4 * step]));
  }
};

template <>
struct Adjoint<Tile4x3Upsampled> {
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
