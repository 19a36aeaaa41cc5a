// Direct sums for four filters or fewer of few channels: the lanes are neighbouring pixels.
//
// The load stage makes planes of what a block reads, (rows, channels, columns). A run of pixels,
// several vectors long, takes each tap of each channel at once: loads of the shifted plane, times a
// weight of each filter in all lanes. A sum runs over kernel rows, channels and kernel columns in
// order. Weights: packed (kernel rows, channels, kernel columns, filters). Traffic: x once, its
// planes from L2 once and from L1 for every tap; y once.
//
// Part of direct.cpp.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/parallel.h"
#include "base/transpose.h"
#include "convolution/direct_blocks.h"
#include "convolution/load.h"
#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Vectors of a run: the sums fill the registers.
constexpr int kRunVectors[] = {
    0, 8, kManyRegisters ? 8 : 6, kManyRegisters ? 8 : 4, kManyRegisters ? 6 : 2};

// Floats from a plane's row to the next, whole cache lines: whole vectors may be read where a run
// ends.
inline int64_t plane_row(int64_t columns, int vectors) {
  return round_up(columns + vectors * Simd<float>::kWidth, 16);
}

// `count` pixels, `step` apart, of `size` channels, `apart`, to planes that lie `row` apart.
inline void to_planes(const float* from,
                      int64_t step,
                      int64_t apart,
                      int64_t count,
                      int64_t size,
                      float* to,
                      int64_t row) {
  constexpr int64_t W = Simd<float>::kWidth;
  if (step == 1 && (apart != 1 || size == 1)) {
    for (int64_t c = 0; c < size; ++c)
      std::memcpy(to + c * row, from + c * apart, size_t(count) * sizeof(float));
    return;
  }
  for (int64_t j = 0; j < count; j += W)
    for (int64_t c = 0; c < size; c += W) {
      const int64_t pixels = std::min(W, count - j), channels = std::min(W, size - c);
      // The last channels of a pixel are read with the next pixel's first.
      const bool inside = (j + W - 1) * step + c + W <= (count - 1) * step + size;
      if (apart == 1 && pixels == W && inside) {
        Vector<float> square[W];
        for (int64_t i = 0; i < W; ++i) square[i] = load(from + (j + i) * step + c);
        transpose(square);
        for (int64_t i = 0; i < channels; ++i) store(to + (c + i) * row + j, square[i]);
        continue;
      }
      for (int64_t i = 0; i < channels; ++i)
        for (int64_t p = 0; p < pixels; ++p)
          to[(c + i) * row + j + p] = from[(j + p) * step + (c + i) * apart];
    }
}

// Planes of what a block reads.
inline void load_planes(const ConvArgs& a,
                        const Plan& plan,
                        const Source& source,
                        const Block& block,
                        int64_t row,
                        float* planes) {
  const Size2 reach = plan.reach(a, {block.rows, block.columns});
  for (const SourcePart& part : source) {
    const int64_t size = part.end - part.begin;
    for (int64_t i = 0; i < reach.y; ++i) {
      float* first = planes + (i * a.channels + part.begin) * row;
      part.each_run(block.n,
                    block.y * a.stride.y + i * plan.grid.y,
                    block.x,
                    plan.grid.x,
                    reach.x,
                    [&](int64_t j, int64_t count, const float* from) {
                      if (!from) {
                        for (int64_t c = 0; c < size; ++c)
                          std::fill_n(first + c * row + j, count, 0.0f);
                        return;
                      }
                      const int64_t step = plan.grid.x * part.pixel_stride();
                      to_planes(from, step, part.channel_stride(), count, size, first + j, row);
                    });
    }
  }
}

// The sums of a run of VECTORS vectors of outputs.
template <int FILTERS>
struct PlaneSums {
  const ConvArgs& args;
  const float* planes;  // first tap of the first output
  int64_t row;          // floats of a row of a plane
  int64_t row_step;     // from a kernel row to the next
  float* sums;          // (filters, VECTORS * W)

  template <int VECTORS>
  __attribute__((noinline)) void run() {
    constexpr int64_t W = Simd<float>::kWidth;
    // Terms that are summed in one chain, as those of panels.
    constexpr int64_t kChain = 128;
    const int64_t columns = args.kernel.x;
    const float* w = args.packed;
    Vector<float> sum[FILTERS][VECTORS];
    clear(sum);
    bool first = true;
    int64_t summed = 0;
    for (int64_t ky = 0; ky < args.kernel.y; ++ky)
      for (int64_t c = 0; c < args.channels; ++c) {
        const float* from = planes + ky * row_step + c * row;
        if (summed > 0 && summed + columns > kChain) {
          flush(sum, first);
          clear(sum);
          first = false;
          summed = 0;
        }
        summed += columns;
        for (int64_t kx = 0; kx < columns; ++kx, ++from, w += FILTERS) {
          Vector<float> tap[FILTERS];
#pragma GCC unroll 4
          for (int f = 0; f < FILTERS; ++f) tap[f] = broadcast(w[f]);
#pragma GCC unroll 8
          for (int v = 0; v < VECTORS; ++v) {
            const Vector<float> x = load(from + v * W);
#pragma GCC unroll 4
            for (int f = 0; f < FILTERS; ++f) sum[f][v] = multiply_add(x, tap[f], sum[f][v]);
          }
        }
      }
    flush(sum, first);
  }

 private:
  template <int VECTORS>
  static inline __attribute__((always_inline)) void clear(Vector<float> (&sum)[FILTERS][VECTORS]) {
#pragma GCC unroll 4
    for (int f = 0; f < FILTERS; ++f)
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; ++v) sum[f][v] = Vector<float>{};
  }

  template <int VECTORS>
  inline __attribute__((always_inline)) void flush(const Vector<float> (&sum)[FILTERS][VECTORS],
                                                   bool first) {
    constexpr int64_t W = Simd<float>::kWidth;
#pragma GCC unroll 4
    for (int f = 0; f < FILTERS; ++f)
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; ++v) {
        float* to = sums + (f * VECTORS + v) * W;
        store(to, first ? sum[f][v] : load(to) + sum[f][v]);
      }
  }
};

// Finishes a run of outputs, whose sums lie filter by filter.
struct StorePlanes {
  const ConvArgs& args;
  const float* bias;  // of each filter
  float* sums;        // (filters, vectors * W), overwritten
  int vectors;
  const int64_t* pixel;  // as in StorePanel
  int64_t count, mask_shift, n;

  template <Activation A>
  void run() {
    constexpr int64_t W = Simd<float>::kWidth;
    const int64_t filters = args.filters, plane = args.store_size.y * args.store_size.x;
    const int64_t y_filter = args.y_planes ? plane : 1;
    for (int64_t v = 0; v < vectors && v * W < count; ++v) {
      const int64_t* at = pixel + v * W;
      const int64_t here = std::min(W, count - v * W);
      float ratios[W] = {}, updates[W] = {};
      if (args.mask_ratio)
        for (int64_t l = 0; l < here; ++l) {
          if (at[l] < 0) continue;
          ratios[l] = args.mask_ratio[at[l] - mask_shift];
          updates[l] = args.update_mask[at[l] - mask_shift];
        }
      const Vector<float> ratio = load(ratios), update = load(updates);
      for (int64_t f = 0; f < filters; ++f) {
        float* its = sums + (f * vectors + v) * W;
        Vector<float> z = load(its);
        if (args.mask_ratio) {
          z = update == 0 ? Vector<float>{} : multiply_add(z, ratio, broadcast(bias[f]) * update);
        } else {
          z += bias[f];
        }
        if (args.pre_activation) {
          float before[W];
          store(before, z);
          for (int64_t l = 0; l < here; ++l)
            if (at[l] >= 0) args.pre_activation[at[l] * filters + f] = before[l];
        }
        store(its, activate<A>(z));
      }
      float* y = args.y + (args.y_planes ? n * (filters - 1) * plane : 0);
      const int64_t y_pixel = args.y_planes ? 1 : filters;
      for (int64_t l = 0; l < here; ++l) {
        if (at[l] < 0) continue;
        const float* its = sums + v * W + l;
        for (int64_t f = 0; f < filters; ++f)
          y[at[l] * y_pixel + f * y_filter] = its[f * vectors * W];
      }
    }
  }
};

template <int FILTERS, int VECTORS>
void run_planes(int64_t vectors, PlaneSums<FILTERS>& sums) {
  if constexpr (VECTORS == 1) {
    sums.template run<1>();
  } else {
    if (vectors == VECTORS) return sums.template run<VECTORS>();
    run_planes<FILTERS, VECTORS - 1>(vectors, sums);
  }
}

template <int FILTERS>
void conv_planes(const ConvArgs& a) {
  constexpr int64_t W = Simd<float>::kWidth;
  constexpr int kVectors = kRunVectors[FILTERS];
  static_assert(kVectors * W <= kMostRun);
  const Plan plan(a);
  const Source source(a, extent_of(a));
  const int64_t height = ceil_div(a.out_height, plan.grid.y);
  const int64_t width = ceil_div(a.out_width, plan.grid.x);
  const Blocks blocks(
      a, plan, {std::min<int64_t>(height, 16), std::min<int64_t>(width, 2 * kMostRun)});
  const std::vector<Block> list = blocks.all();
  float bias[FILTERS] = {};
  if (a.bias) std::copy_n(a.bias, FILTERS, bias);
  const Size2 reach = plan.reach(a, blocks.most);
  const int64_t row = plane_row(reach.x, kVectors);
  const int64_t planes_size = round_up(reach.y * a.channels * row, W);
  const int64_t scratch_size = planes_size + FILTERS * kVectors * W;
  Buffer<float> scratch(scratch_size * a.threads);
  parallel_tasks(int64_t(list.size()), a.threads, [&](int64_t task) {
    const Block& block = list[size_t(task)];
    float* planes = scratch.data() + thread_index() * scratch_size;
    float* sums = planes + planes_size;
    load_planes(a, plan, source, block, row, planes);
    const int64_t mask_shift = block.n * (a.out_height * a.out_width - a.mask_stride_n);
    each_run(
        a, plan, block, kVectors * W, [&](int64_t y, int64_t x, int64_t count, int64_t* pixel) {
          const float* first = planes + y * a.stride.y * a.channels * row + x;
          PlaneSums<FILTERS> product{a, first, row, plan.dilation.y * a.channels * row, sums};
          const int64_t vectors = ceil_div(count, W);
          run_planes<FILTERS, kVectors>(vectors, product);
          StorePlanes store_planes{a, bias, sums, int(vectors), pixel, count, mask_shift, block.n};
          with_activation(a.activation, store_planes);
        });
  });
}

inline void conv_planes(const ConvArgs& a) {
  switch (a.filters) {
    case 1:
      return conv_planes<1>(a);
    case 2:
      return conv_planes<2>(a);
    case 3:
      return conv_planes<3>(a);
    default:
      return conv_planes<4>(a);
  }
}

inline void pack_planes(const PackArgs& a) {
  float* to = a.packed;
  for (int64_t y = 0; y < a.kernel.y; ++y)
    for (int64_t c = 0; c < a.channels; ++c)
      for (int64_t x = 0; x < a.kernel.x; ++x)
        for (int64_t f = 0; f < a.filters; ++f) *to++ = a.at(f, c, y, x);
}

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
