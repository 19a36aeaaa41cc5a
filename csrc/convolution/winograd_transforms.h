// Winograd tiles: 36 multiplications for 4 x 4 outputs of 3 x 3 taps, 5 x 5 of 2 x 2, 3 x 3 of 4
// x 4; 25 for 4 x 4 of 2 x 2. The large tiles: winograd_large_tile.h.
#pragma once

#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr int kTile = 4;

// Both axes of a transform of FROM x FROM numbers to TO x TO: read(i, j) gives one, along(from, to)
// takes those of a column, then of a row, write(i, j, v) gets the result. A column is transformed
// where it is read: stores of whole vectors cost twice what an operation does, so none is copied.
template <int FROM, int TO, class Read, class Along, class Write>
inline __attribute__((always_inline)) void transform_axes(const Read& read,
                                                          const Along& along,
                                                          const Write& write) {
  using V = decltype(read(0, 0));
  V half[TO * FROM];
#pragma GCC unroll 8
  for (int j = 0; j < FROM; ++j) {
    V column[FROM], out[TO];
#pragma GCC unroll 8
    for (int i = 0; i < FROM; ++i) column[i] = read(i, j);
    along(column, out);
#pragma GCC unroll 8
    for (int i = 0; i < TO; ++i) half[i * FROM + j] = out[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < TO; ++i) {
    V out[TO];
    along(half + i * FROM, out);
#pragma GCC unroll 8
    for (int j = 0; j < TO; ++j) write(i, j, out[j]);
  }
}

// One axis of the transforms; both axes take the same one. `step` is the distance of the operands.
//
// Interpolation points 0, +-2/3, +-3/2 and infinity: measured on 96 channels the error of 3 taps is
// 2.5 times that of a direct sum, against 12 times for the usual 0, +-1, +-2 (a b = 1 keeps the
// powers balanced); of 2 taps 3 times, of 4 taps as much as a direct sum. With s = a^2 + b^2:
//
//   input   0: d0 - s d2 + d4          +-a: (d4 - b^2 d2) +- a (d3 - b^2 d1)
//           inf: d1 - s d3 + d5        +-b: (d4 - a^2 d2) +- b (d3 - a^2 d1)
//   weight  point p: (g0 + p g1 + p^2 g2 + ...) / N_p,  N_0 = 1, N_a = 2 a^2 (a^2 - b^2), N_b
//           likewise; inf: the last tap
//   output  y_k = sum over finite p of p^k m_p, and m_inf added to the last
template <int TAPS>
struct PointTile {
  static constexpr double kA = 2.0 / 3, kB = 3.0 / 2;
  static constexpr int kProducts = 6, kTaps = TAPS, kOutputs = kProducts + 1 - TAPS;
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
    out[0] = subtract_product(d[0] + d4, d2, s);
    const V even_a = subtract_product(d4, d2, b2), odd_a = subtract_product(d3, d1, b2);
    out[1] = multiply_add(odd_a, a, even_a);
    out[2] = subtract_product(even_a, odd_a, a);
    const V even_b = subtract_product(d4, d2, a2), odd_b = subtract_product(d3, d1, a2);
    out[3] = multiply_add(odd_b, b, even_b);
    out[4] = subtract_product(even_b, odd_b, b);
    out[5] = subtract_product(d1 + d[5 * step], d3, s);
  }

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* m, ptrdiff_t step, V* out) {
    const V sum_a = m[step] + m[2 * step], diff_a = m[step] - m[2 * step];
    const V sum_b = m[3 * step] + m[4 * step], diff_b = m[3 * step] - m[4 * step];
    out[0] = (m[0] + sum_a) + sum_b;
#pragma GCC unroll 5
    for (int k = 1; k < kOutputs; ++k) {
      const float a = float(power(kA, k)), b = float(power(kB, k));
      const V at_a = k % 2 ? diff_a : sum_a, at_b = k % 2 ? diff_b : sum_b;
      const V of_a = k + 1 < kOutputs ? at_a * a : multiply_add(at_a, a, m[5 * step]);
      out[k] = multiply_add(at_b, b, of_a);
    }
  }

  template <class V>
  static inline void weight(const V* g, ptrdiff_t step, V* out) {
    constexpr double na = 2 * kA * kA * (kA * kA - kB * kB);
    constexpr double nb = 2 * kB * kB * (kB * kB - kA * kA);
    V even_a = g[0] * (1 / na), odd_a = g[step] * (kA / na);
    V even_b = g[0] * (1 / nb), odd_b = g[step] * (kB / nb);
    for (int k = 2; k < TAPS; ++k) {
      V& to_a = k % 2 ? odd_a : even_a;
      V& to_b = k % 2 ? odd_b : even_b;
      to_a = multiply_add(g[k * step], power(kA, k) / na, to_a);
      to_b = multiply_add(g[k * step], power(kB, k) / nb, to_b);
    }
    out[0] = g[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = g[(TAPS - 1) * step];
  }

 private:
  static constexpr double power(double p, int k) { return k == 0 ? 1 : p * power(p, k - 1); }
};

// 4 outputs of 2 taps: outputs 16, 32 or 64 wide fall into whole tiles.
//
// Points 0, +-3/4, 7/4 and infinity: error 2.3 times that of a direct sum. Differences of
// neighbouring inputs e_k = d_(k+1) - b d_k serve all but one of the products:
//
//   input   0: e_2 - a^2 e_0    +-a: e_2 +- a e_1    b: d_3 - a^2 d_1    inf: e_3 - a^2 e_1
//   weight  point p: (g0 + p g1) / N_p, N_p = product of p - q over the other finite points q
struct Tile4x2 {
  static constexpr double kA = 3.0 / 4, kB = 7.0 / 4;
  static constexpr int kProducts = 5, kTaps = 2, kOutputs = 4;
  static constexpr int kReads = 5, kInputs = 5, kWeights = 5;
  static constexpr int read_at[kReads] = {0, 1, 2, 3, 4};
  static constexpr int input_of[kProducts] = {0, 1, 2, 3, 4};
  static constexpr int weight_of[kProducts] = {0, 1, 2, 3, 4};
  // Of the points 0, a, -a, b.
  static constexpr double kN0 = kA * kA * kB, kNa = 2 * kA * kA * (kA - kB);
  static constexpr double kNma = -2 * kA * kA * (kA + kB), kNb = kB * (kB * kB - kA * kA);

  template <class V>
  static inline __attribute__((always_inline)) void input(const V* d, ptrdiff_t step, V* out) {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA * kA);
    const V d1 = d[step], d3 = d[3 * step];
    const V e0 = subtract_product(d1, d[0], b), e1 = subtract_product(d[2 * step], d1, b);
    const V e2 = subtract_product(d3, d[2 * step], b), e3 = subtract_product(d[4 * step], d3, b);
    out[0] = subtract_product(e2, e0, a2);
    out[1] = multiply_add(e1, a, e2);
    out[2] = subtract_product(e2, e1, a);
    out[3] = subtract_product(d3, d1, a2);
    out[4] = subtract_product(e3, e1, a2);
  }

  template <class V>
  static inline __attribute__((always_inline)) void output(const V* m, ptrdiff_t step, V* out) {
    constexpr float a = float(kA), a2 = float(kA * kA), a3 = float(kA * kA * kA);
    constexpr float b = float(kB), b2 = float(kB * kB), b3 = float(kB * kB * kB);
    const V sum = m[step] + m[2 * step], difference = m[step] - m[2 * step], of_b = m[3 * step];
    out[0] = (m[0] + sum) + of_b;
    out[1] = multiply_add(of_b, b, difference * a);
    out[2] = multiply_add(of_b, b2, sum * a2);
    out[3] = multiply_add(of_b, b3, multiply_add(difference, a3, m[4 * step]));
  }

  template <class V>
  static inline void weight(const V* g, ptrdiff_t step, V* out) {
    const V g0 = g[0], g1 = g[step];
    out[0] = g0 * (1 / kN0);
    out[1] = multiply_add(g1, kA / kNa, g0 * (1 / kNa));
    out[2] = multiply_add(g1, -kA / kNma, g0 * (1 / kNma));
    out[3] = multiply_add(g1, kB / kNb, g0 * (1 / kNb));
    out[4] = g1;
  }
};

// A tile of an image doubled by nearest upsampling, padding 1: four pixels x-1, x0, x1, x2 are seen
// by its four outputs, as x-1 x0 x0 x1 x1 x2. With S = g0 + g1 + g2 the outputs are
//
//   x0 S + (x-1 - x0) g0,  x0 S + (x1 - x0) g2,  x1 S - (x1 - x0) g0,  x1 S + (x2 - x1) g2:
//
// six products as well, of 5 inputs and 3 weights, by additions alone; errors of a direct sum.
struct Tile4x3Upsampled {
  static constexpr int kProducts = 6, kTaps = 3, kOutputs = kTile;
  static constexpr int kReads = 4, kInputs = 5, kWeights = 3;
  // Outputs 0 and 1 of a tile see x0 at 1 and 2, output 2 sees it at 2: where a tile begins before
  // the image, reflected pixels at 1 and 2 differ, and output 2 is the first one that is wanted.
  static constexpr int read_at[kReads] = {0, 2, 3, 5};
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
