// Products of transformed tiles and weights: a register tile of tiles by one panel of filters.
//
// Part of winograd.cpp.
#pragma once

#include <algorithm>

#include "base/gemm.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;

// Channels that are summed in one chain: sums of partial sums halve the rounding error of layers
// with 256 channels or more, for 2 % of the time. In AVX2 PyTorch's own sums are short: there
// shorter chains halve what ours err more, for another 2 % in layers of 128 channels or more.
constexpr int64_t kSumDepth = kManyRegisters ? 64 : 32;
// Of the large tiles, most of whose error is that of these sums: channels of a chain, and those
// whose chains are added up first.
constexpr int64_t kSumDepthLarge = 16, kGroupLarge = 128;

// One of the products for one register tile of tiles.
template <int VECS, bool LARGE>
struct Product {
  const float* input;
  int64_t input_stride;
  const float* weight;
  const std::vector<DepthRun>& depth;
  float* out;
  int64_t out_stride;

  template <int ROWS>
  void run() {
    bool put = true;
    for (const DepthRun& run : depth) {
      if constexpr (LARGE) {
        sum_groups<ROWS>(run, put);
      } else {
        sum<ROWS, kSumDepth>(run, out, out_stride, put);
      }
      put = false;
    }
  }

 private:
  template <int ROWS>
  void sum_groups(const DepthRun& run, bool put) {
    float group[ROWS * VECS * W] = {};
    for (int64_t c = run.begin; c < run.end; c += kGroupLarge) {
      const DepthRun part = {c, std::min(run.end, c + kGroupLarge)};
      sum<ROWS, kSumDepthLarge>(part, group, VECS * W, true);
      for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < VECS; ++j) {
          float* to = out + r * out_stride + j * W;
          const Vec its = load(group + (r * VECS + j) * W);
          store(to, put && c == run.begin ? its : load(to) + its);
        }
    }
  }

  // In chains; `put`: not added to what is there.
  template <int ROWS, int64_t CHAIN>
  inline __attribute__((always_inline)) void sum(const DepthRun& run,
                                                 float* to,
                                                 int64_t stride,
                                                 bool put) {
    for (int64_t c = run.begin; c < run.end; c += CHAIN) {
      Accumulator<float, ROWS, VECS> chain;
      chain.clear();
      chain.add_strided(
          input + c, input_stride, weight + c * VECS * W, VECS * W, std::min(CHAIN, run.end - c));
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < VECS; ++j) {
          float* one = to + r * stride + j * W;
          store(one, put && c == run.begin ? chain.v[r][j] : load(one) + chain.v[r][j]);
        }
    }
  }
};

// Product (i, j) of a number of tiles, for one panel.
template <class T, int VECS>
void multiply_point(int i,
                    int j,
                    const float* inputs,
                    int64_t tiles,
                    int64_t plane,
                    int64_t channel_stride,
                    const float* weights,
                    int64_t channels,
                    const std::vector<DepthRun>& depth,
                    float* out) {
  if (depth.empty()) {
    float* to = out + (i * T::kProducts + j) * VECS * W;
    for (int64_t t = 0; t < tiles; ++t, to += T::kProducts * T::kProducts * VECS * W)
      std::fill_n(to, VECS * W, 0.0f);
    return;
  }
  const float* input = inputs + (T::input_of[i] * T::kInputs + T::input_of[j]) * plane;
  const int weight = T::weight_of[i] * T::kWeights + T::weight_of[j];
  for (int64_t t = 0, count = tile_count(tiles); t < count; ++t) {
    const int64_t begin = tile_begin(tiles, t), end = tile_begin(tiles, t + 1);
    Product<VECS, T::kProducts == 8> product{
        input + begin * channel_stride,
        channel_stride,
        weights + weight * channels * VECS * W,
        depth,
        out + ((begin * T::kProducts + i) * T::kProducts + j) * VECS * W,
        T::kProducts * T::kProducts * VECS * W};
    with_rows(end - begin, product);
  }
}

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
