// Direct sums for four filters or fewer: the lanes are terms of a sum, as panels would be empty.
//
// Part of direct.cpp.
#pragma once

#include <algorithm>

#include "base/transpose.h"
#include "convolution/direct_blocks.h"
#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;

// The sums of PIXELS neighbouring outputs for FILTERS filters, terms along the lanes. Weights are
// packed (kernel rows, vectors of a run, filters, lanes), the last vector of a run filled up with
// zeros.
template <int FILTERS>
struct Dots {
  static constexpr int kPixels = FILTERS == 1
                                     ? (kManyRegisters ? 14 : 8)
                                     : (kManyRegisters ? 28 - FILTERS : 15 - FILTERS) / FILTERS;
  const ConvArgs& args;
  const Plan& plan;
  const float* first_tap;  // of the first output
  const Input& input;
  const float* weight;
  float* sums;  // (pixels, filters), filled up to whole vectors

  template <int PIXELS>
  void run() {
    const int64_t step = args.stride.x * input.pixel_stride;
    const int64_t depth = args.kernel.x * args.channels;
    constexpr int kSums = PIXELS * FILTERS;
    Vec sum[kSums];
    for (int i = 0; i < kSums; ++i) sum[i] = Vec{};
    const float* w = weight;
    for (int64_t ky = 0; ky < args.kernel.y; ++ky) {
      const float* from = first_tap + ky * plan.dilation.y * input.row_stride;
      int64_t k = 0;
      for (; k + W <= depth; k += W, w += FILTERS * W) {
        Vec taps[FILTERS];
        for (int f = 0; f < FILTERS; ++f) taps[f] = load(w + f * W);
#pragma GCC unroll 16
        for (int p = 0; p < PIXELS; ++p) {
          const Vec x = load(from + p * step + k);
#pragma GCC unroll 4
          for (int f = 0; f < FILTERS; ++f)
            sum[p * FILTERS + f] = multiply_add(x, taps[f], sum[p * FILTERS + f]);
        }
      }
      if (k == depth) continue;
      // Not a whole vector with zero weights: what lies beyond may be NaN.
      for (int p = 0; p < PIXELS; ++p) {
        const Vec x = load_first(from + p * step + k, depth - k);
        for (int f = 0; f < FILTERS; ++f)
          sum[p * FILTERS + f] = multiply_add(x, load(w + f * W), sum[p * FILTERS + f]);
      }
      w += FILTERS * W;
    }
    add_lanes<kSums>(sum, sums);
  }

 private:
  template <int COUNT>
  static inline __attribute__((always_inline)) void add_lanes(Vec* sum, float* to) {
    constexpr int kNow = std::min(COUNT, int(W));
    store(to, sums_of_lanes<kNow>(sum));
    if constexpr (COUNT > kNow) add_lanes<COUNT - kNow>(sum + kNow, to + kNow);
  }
};

// Finishes neighbouring outputs of few filters, whose sums lie side by side.
struct StoreFew {
  const ConvArgs& args;
  const float* biases;  // of each sum
  const float* sums;    // (count, filters)
  const int64_t* pixel;
  int count;
  int64_t mask_shift;  // as in StorePanel

  template <Activation A>
  void run() {
    const int filters = int(args.filters), size = count * filters;
    float before[kMost], after[kMost];
    for (int i = 0; i < size; i += W) {
      Vec v = load(sums + i), bias = load(biases + i);
      if (args.mask_ratio) {
        float mask_ratio[W] = {}, update_mask[W] = {};
        for (int l = 0; l < W && i + l < size; ++l) {
          const int64_t at = pixel[(i + l) / filters] - mask_shift;
          if (pixel[(i + l) / filters] < 0) continue;
          mask_ratio[l] = args.mask_ratio[at];
          update_mask[l] = args.update_mask[at];
        }
        const Vec update_masks = load(update_mask);
        v = update_masks == 0 ? Vec{} : multiply_add(v, load(mask_ratio), bias * update_masks);
      } else {
        v += bias;
      }
      store(before + i, v);
      store(after + i, activate<A>(v));
    }
    for (int p = 0; p < count; ++p) {
      if (pixel[p] < 0) continue;
      float* y = args.y + pixel[p] * filters;
      for (int f = 0; f < filters; ++f) y[f] = after[p * filters + f];
      if (!args.pre_activation) continue;
      for (int f = 0; f < filters; ++f)
        args.pre_activation[pixel[p] * filters + f] = before[p * filters + f];
    }
  }

  // Sums of a run, in whole vectors.
  static constexpr int kMost = 32;
};

template <int FILTERS, int PIXELS>
void run_dots(int64_t pixels, Dots<FILTERS>& dots) {
  if constexpr (PIXELS == 1) {
    dots.template run<1>();
  } else {
    if (pixels == PIXELS) {
      dots.template run<PIXELS>();
    } else {
      run_dots<FILTERS, PIXELS - 1>(pixels, dots);
    }
  }
}

void pack_dots(const PackArgs& a) {
  const int64_t depth = a.kernel.x * a.channels, vectors = ceil_div(depth, W);
  for (int64_t ky = 0; ky < a.kernel.y; ++ky)
    for (int64_t v = 0; v < vectors; ++v)
      for (int64_t f = 0; f < a.filters; ++f)
        for (int64_t l = 0; l < W; ++l) {
          const int64_t k = v * W + l;
          a.packed[((ky * vectors + v) * a.filters + f) * W + l] =
              k < depth ? a.at(f, k % a.channels, ky, k / a.channels) : 0.0f;
        }
}

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
