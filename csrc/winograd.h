// Winograd F(4x4, 3x3): 36 instead of 144 multiplications for a tile of 4 x 4 outputs.
#pragma once

#include "simd.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr int kTile = 4, kProducts = 6;

// One axis of the transforms; both axes take the same one. `step` is the distance of the operands.
//
// Interpolation points 0, +-2/3, +-3/2 and infinity: measured on layers of 96 channels their error
// is 2.5 times that of a direct sum, against 12 times for the usual 0, +-1, +-2 (a b = 1 keeps the
// powers balanced). With s = a^2 + b^2:
//
//   input   0: d0 - s d2 + d4          +-a: (d4 - b^2 d2) +- a (d3 - b^2 d1)
//           inf: d1 - s d3 + d5        +-b: (d4 - a^2 d2) +- b (d3 - a^2 d1)
//   weight  point p: (g0 + p g1 + p^2 g2) / N_p,  N_0 = 1, N_a = 2 a^2 (a^2 - b^2), N_b likewise
//   output  y_k = sum over finite p of p^k m_p, and m_inf added to y_3
struct PlainTile {
  static constexpr double kA = 2.0 / 3, kB = 3.0 / 2;
  // Inputs read, and what is made of inputs and weights; product q takes input_of[q] times
  // weight_of[q].
  static constexpr int kReads = 6, kInputs = 6, kWeights = 6;
  static constexpr int read_at[kReads] = {0, 1, 2, 3, 4, 5};
  static constexpr int input_of[kProducts] = {0, 1, 2, 3, 4, 5};
  static constexpr int weight_of[kProducts] = {0, 1, 2, 3, 4, 5};

  template <class V>
  static inline __attribute__((always_inline)) void input(const V* d, ptrdiff_t step, V* out) {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA * kA), b2 = float(kB * kB);
    constexpr float s = float(kA * kA + kB * kB);
    const V d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    out[0] = (d[0] + d4) - d2 * s;
    const V even_a = d4 - d2 * b2, odd_a = d3 - d1 * b2;
    out[1] = even_a + odd_a * a;
    out[2] = even_a - odd_a * a;
    const V even_b = d4 - d2 * a2, odd_b = d3 - d1 * a2;
    out[3] = even_b + odd_b * b;
    out[4] = even_b - odd_b * b;
    out[5] = (d1 + d[5 * step]) - d3 * s;
  }

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* m, ptrdiff_t step, V* out) {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA * kA), b2 = float(kB * kB);
    constexpr float a3 = float(kA * kA * kA), b3 = float(kB * kB * kB);
    const V sum_a = m[step] + m[2 * step], diff_a = m[step] - m[2 * step];
    const V sum_b = m[3 * step] + m[4 * step], diff_b = m[3 * step] - m[4 * step];
    out[0] = (m[0] + sum_a) + sum_b;
    out[1] = diff_a * a + diff_b * b;
    out[2] = sum_a * a2 + sum_b * b2;
    out[3] = (diff_a * a3 + m[5 * step]) + diff_b * b3;
  }

  template <class V>
  static inline void weight(const V* g, ptrdiff_t step, V* out) {
    constexpr double na = 2 * kA * kA * (kA * kA - kB * kB);
    constexpr double nb = 2 * kB * kB * (kB * kB - kA * kA);
    const V even_a = (g[0] + g[2 * step] * (kA * kA)) * (1 / na), odd_a = g[step] * (kA / na);
    const V even_b = (g[0] + g[2 * step] * (kB * kB)) * (1 / nb), odd_b = g[step] * (kB / nb);
    out[0] = g[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = g[2 * step];
  }
};

// A tile of an image doubled by nearest upsampling, padding 1: four pixels x-1, x0, x1, x2 are seen
// by its four outputs, as x-1 x0 x0 x1 x1 x2. With S = g0 + g1 + g2 the outputs are
//
//   x0 S + (x-1 - x0) g0,  x0 S + (x1 - x0) g2,  x1 S - (x1 - x0) g0,  x1 S + (x2 - x1) g2:
//
// six products as well, of 5 inputs and 3 weights, by additions alone; errors of a direct sum.
struct DoubledTile {
  static constexpr int kReads = 4, kInputs = 5, kWeights = 3;
  static constexpr int read_at[kReads] = {0, 1, 3, 5};
  static constexpr int input_of[kProducts] = {0, 1, 2, 3, 3, 4};
  static constexpr int weight_of[kProducts] = {0, 0, 1, 1, 2, 2};

  template <class V>
  static inline __attribute__((always_inline)) void input(const V* d, ptrdiff_t step, V* out) {
    const V x0 = d[step], x1 = d[2 * step];
    out[0] = x0;
    out[1] = x1;
    out[2] = d[0] - x0;
    out[3] = x1 - x0;
    out[4] = d[3 * step] - x1;
  }

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* m, ptrdiff_t step, V* out) {
    out[0] = m[0] + m[2 * step];
    out[1] = m[0] + m[4 * step];
    out[2] = m[step] - m[3 * step];
    out[3] = m[step] + m[5 * step];
  }

  template <class V>
  static inline void weight(const V* g, ptrdiff_t step, V* out) {
    out[0] = g[0] + g[step] + g[2 * step];
    out[1] = g[0];
    out[2] = g[2 * step];
  }
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
