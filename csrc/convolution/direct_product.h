// The innermost stage of direct sums: a register tile of outputs by one panel of filters.
//
// A sum is a number of chains of at most kSumDepth terms, in order: kernel rows, taps, channels.
// Where little is left to do with it, it goes from registers straight to the result.
//
// Part of direct.cpp.
#pragma once

#include <algorithm>

#include "base/activation.h"
#include "base/gemm.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Terms that are summed in one chain, see convolution/winograd_products.h.
constexpr int64_t kSumDepth = 128;

// Terms of a run that are too few for a loop of their own.
constexpr int64_t kShortRun = 32;

// Where results go: whole vectors, channels last, without ratio.
struct Finish {
  float* y;      // of the first output; null: the sums are stored instead
  int64_t step;  // from an output to the next
  const float* bias;
  Activation activation;  // see finishes_in_registers
  bool streams;
};

// Those whose code is short enough to be there for each size of tile.
inline bool finishes_in_registers(Activation a) {
  return a == Activation::kIdentity || a == Activation::kRelu || a == Activation::kLeakyRelu;
}

// Part of the sums of neighbouring outputs: some kernel rows of runs of taps side by side.
template <int VECS>
struct DirectProduct {
  const float* first_tap;  // of the first output
  int64_t step;            // from an output to the next
  int64_t rows, row_step;  // kernel rows
  int64_t runs, run_step;  // of a kernel row
  int64_t depth;           // of a run
  const float* weight;
  bool put;  // not: added to the sums
  float* sums;
  Finish finish;
  int64_t tiles;  // of one size

  // Apart from its caller, whose variables would take registers from the innermost loop.
  template <int ROWS>
  __attribute__((noinline)) void run() {
    const bool short_runs = runs == 1 && depth < kShortRun && rows * depth <= kSumDepth;
    for (int64_t t = 0; t < tiles; ++t) {
      tile<ROWS>(short_runs);
      first_tap += ROWS * step;
      sums += ROWS * VECS * W;
      if (finish.y) finish.y += ROWS * finish.step;
    }
  }

 private:
  static constexpr int64_t W = Simd<float>::kWidth;

  template <int ROWS>
  inline __attribute__((always_inline)) void tile(bool short_runs) {
    const float* w = weight;
    int64_t summed = 0;
    bool first = put;
    Accumulator<float, ROWS, VECS> sum;
    sum.clear();
    if (short_runs) {
      sum.add_runs(first_tap, step, w, VECS * W, depth, rows, row_step);
    } else {
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = 0; i < runs; ++i) {
          const float* from = first_tap + row * row_step + i * run_step;
          for (int64_t k = 0; k < depth; k += kSumDepth) {
            const int64_t here = std::min(kSumDepth, depth - k);
            if (summed + here > kSumDepth) {
              flush<ROWS>(sum, first);
              first = false;
              summed = 0;
            }
            sum.add_strided(from + k, step, w, VECS * W, here);
            w += here * VECS * W;
            summed += here;
          }
        }
    }
    if (!finish.y) return flush<ROWS>(sum, first);
    if (!first)
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < VECS; ++j) sum.v[r][j] = load(sums + (r * VECS + j) * W) + sum.v[r][j];
    switch (finish.activation) {
      case Activation::kRelu:
        return put_results<ROWS, Activation::kRelu>(sum);
      case Activation::kLeakyRelu:
        return put_results<ROWS, Activation::kLeakyRelu>(sum);
      default:
        return put_results<ROWS, Activation::kIdentity>(sum);
    }
  }

  template <int ROWS>
  inline __attribute__((always_inline)) void flush(Accumulator<float, ROWS, VECS>& sum,
                                                   bool first) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) {
        float* to = sums + (r * VECS + j) * W;
        store(to, first ? sum.v[r][j] : load(to) + sum.v[r][j]);
      }
    sum.clear();
  }

  template <int ROWS, Activation A>
  inline __attribute__((always_inline)) void put_results(
      const Accumulator<float, ROWS, VECS>& sum) {
    const bool streams = kStreams<VECS> && finish.streams;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      float* y = finish.y + r * finish.step;
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) {
        const Vector<float> v = activate<A>(sum.v[r][j] + load(finish.bias + j * W));
        if (streams) {
          stream(y + j * W, v);
        } else {
          store(y + j * W, v);
        }
      }
    }
  }
};

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
