// What a weight's gradient does with Winograd tiles: transforms of gradients, products of a tile's
// inputs and gradients, and the way of their sums to the taps.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution/weight_sums.h"
#include "convolution/winograd_adjoint.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {

// Tiles summed in registers: what a product of 64 x 64 sums reads of them takes 32 KiB.
constexpr int64_t kChain = 64;

// A dy A^T of the filters from `first` on, `count` of them.
template <class T>
void transform_gradient(const WeightGradientArgs& args,
                        const Tile& tile,
                        int64_t first,
                        int64_t count,
                        const float* zeros,
                        float* to,
                        int64_t plane) {
  const ConvArgs& a = args.conv;
  constexpr int R = T::kOutputs, W = Simd<float>::kWidth;
  const float* from[R * R];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < R; ++j) {
      const int64_t y = tile.y + i * a.dilation.y, x = tile.x + j * a.dilation.x;
      const bool inside = y < a.out_height && x < a.out_width;
      const int64_t pixel = (tile.n * a.out_height + y) * a.out_width + x;
      from[i * R + j] = inside ? args.grad + pixel * a.filters + first : zeros;
    }
  for (int64_t f = 0; f < count; f += W) {
    const auto transform = [&](const auto& read) INPAINT_INLINED {
      transform_axes<R, T::kProducts>(
          read,
          [](const Vector<float>* y, Vector<float>* out)
              INPAINT_INLINED { Adjoint<T>::output(y, 1, out); },
          [&](int i, int j, Vector<float> v)
              INPAINT_INLINED { store(to + (i * T::kProducts + j) * plane + f, v); });
    };
    if (count - f >= W) {
      transform([&](int i, int j) INPAINT_INLINED { return load(from[i * R + j] + f); });
    } else {
      transform([&](int i, int j)
                    INPAINT_INLINED { return load_first(from[i * R + j] + f, count - f); });
    }
  }
}

// Operands of a block: plane q of the inputs begins at inputs + q * input_plane, rows a tile.
struct Operands {
  const float* inputs;
  int64_t input_step, input_plane;
  const float* grads;
  int64_t grad_step, grad_plane;
  int64_t tiles;
};

// Adds the rows `runs` of sum `u` of a panel to (rows, lanes), or puts them there.
template <class T, int VECS>
void multiply(const Operands& in,
              int u,
              const std::vector<DepthRun>& runs,
              int64_t lane,
              float* sums,
              bool put) {
  constexpr int N = T::kWeights, W = Simd<float>::kWidth;
  const Cut chains(in.tiles, 1, ceil_div(in.tiles, kChain));
  for (int64_t chain = 0; chain < chains.parts; ++chain) {
    const int64_t begin = chains.begin(chain), tiles = chains.begin(chain + 1) - begin;
    for (const DepthRun& run : runs) {
      Stretch stretches[T::kProducts * T::kProducts];
      int64_t count = 0;
      for (int i = 0; i < T::kProducts; ++i)
        for (int j = 0; j < T::kProducts; ++j)
          if (T::weight_of[i] * N + T::weight_of[j] == u) {
            const int input = T::input_of[i] * T::kInputs + T::input_of[j];
            const int grad = i * T::kProducts + j;
            stretches[count++] = {
                in.inputs + input * in.input_plane + begin * in.input_step + run.begin,
                in.grads + grad * in.grad_plane + begin * in.grad_step + lane};
          }
      float* to = sums + run.begin * VECS * W;
      const bool first = put && chain == 0;
      outer_sums<VECS>({nullptr, count, tiles, in.input_step, in.grad_step, to, VECS * W, first},
                       stretches,
                       run.end - run.begin);
    }
  }
}

// Turns the sums of a panel, N * N planes of `plane` numbers, into G^T sums G: a plane a tap.
template <class T>
void transform_sums(float* sums, int64_t plane) {
  constexpr int N = T::kWeights, R = T::kTaps, W = Simd<float>::kWidth;
  for (int64_t at = 0; at < plane; at += W)
    transform_axes<N, R>([&](int i, int j)
                             INPAINT_INLINED { return load(sums + (i * N + j) * plane + at); },
                         [](const Vector<float>* w, Vector<float>* out)
                             INPAINT_INLINED { Adjoint<T>::weight(w, 1, out); },
                         [&](int i, int j, Vector<float> v)
                             INPAINT_INLINED { store(sums + (i * R + j) * plane + at, v); });
}

// Rows at which transform_sums leaves `count` channels of each tap of the kernel.
template <class T>
std::vector<int64_t> rows_of_taps(const ConvArgs& a, const Layout<T>& layout, int64_t count) {
  std::vector<int64_t> first_row(static_cast<size_t>(a.kernel.y * a.kernel.x));
  int64_t part = 0;
  for (const int64_t first_y : layout.rows.first)
    for (const int64_t first_x : layout.columns.first) {
      for (int t = 0; t < T::kTaps * T::kTaps; ++t) {
        const int64_t y = first_y + t / T::kTaps * layout.rows.tap_step;
        const int64_t x = first_x + t % T::kTaps * layout.columns.tap_step;
        if (y < a.kernel.y && x < a.kernel.x)
          first_row[size_t(y * a.kernel.x + x)] = (t * layout.parts() + part) * count;
      }
      ++part;
    }
  return first_row;
}

// The tiles of a convolution.
template <class T>
std::vector<Tile> tiles_of(const ConvArgs& a) {
  const auto rows = tile_starts(0, a.out_height, a.dilation.y, T::kOutputs);
  const auto columns = tile_starts(0, a.out_width, a.dilation.x, T::kOutputs);
  std::vector<Tile> tiles;
  tiles.reserve(static_cast<size_t>(a.batch) * rows.size() * columns.size());
  for (int64_t n = 0; n < a.batch; ++n)
    for (int64_t y : rows)
      for (int64_t x : columns) tiles.push_back({n, y, x});
  return tiles;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
