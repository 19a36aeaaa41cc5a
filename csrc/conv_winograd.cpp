// 3x3 stride-1 convolution by Winograd F(4x4, 3x3).
//
// A task takes a block of tiles: the transformed inputs of the block, (36, tiles, channels), stay
// in L2 while panel after panel of filters is multiplied, transformed back and stored. Left operand
// of the 36 products: tiles, read in place; right operand: weights, transformed ahead and packed
// (panel, 36, channels, lanes), read once a block. Behind a doubling of the image the 36 products
// share 25 inputs and 9 weights, see DoubledTile.
// Work: 2 * 36 * tiles * channels * filters; the direct sum needs 4 times as much.
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "parallel.h"
#include "winograd_tiles.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;

// Channels that are summed in one chain: sums of partial sums halve the rounding error of layers
// with 256 channels or more, for 2 % of the time.
constexpr int64_t kSumDepth = 64;

// Whether anything valid is seen by the outputs of a tile.
bool sees_valid(const ConvArgs& a, const Tile& tile) {
  if (!a.share) return true;
  const float* share = a.share + tile.n * a.scale_stride_n;
  for (int64_t i = 0, y = tile.y; i < kTile && y < a.region_end.y; ++i, y += a.dilation.y)
    for (int64_t j = 0, x = tile.x; j < kTile && x < a.region_end.x; ++j, x += a.dilation.x)
      if (share[y * a.out_width + x] != 0) return true;
  return false;
}

// Tiles of the region, in the order in which neighbours share inputs; those that see nothing valid
// are not computed: their outputs become zero here.
std::vector<Tile> tiles_of(const ConvArgs& a) {
  // Tiles of a doubled image begin at even outputs.
  const int64_t unit = a.upsample;
  const Size2 begin = {a.region_begin.y / unit * unit, a.region_begin.x / unit * unit};
  const auto rows = tile_starts(begin.y, a.region_end.y, a.dilation.y);
  const auto columns = tile_starts(begin.x, a.region_end.x, a.dilation.x);
  std::vector<Tile> tiles;
  tiles.reserve(static_cast<size_t>(a.batch) * rows.size() * columns.size());
  for (int64_t n = 0; n < a.batch; ++n)
    for (int64_t y : rows)
      for (int64_t x : columns) {
        const Tile tile{n, y, x};
        if (sees_valid(a, tile)) {
          tiles.push_back(tile);
          continue;
        }
        for (int64_t i = 0, at = y; i < kTile && at < a.region_end.y; ++i, at += a.dilation.y)
          for (int64_t j = 0, to = x; j < kTile && to < a.region_end.x; ++j, to += a.dilation.x)
            clear_pixel(a, stored_pixel(a, n, at, to));
      }
  return tiles;
}

// One of the 36 products for one register tile of tiles.
template <int VECS>
struct Product {
  const float* input;
  int64_t input_stride;
  const float* weight;
  int64_t channels;
  float* out;
  int64_t out_stride;

  template <int ROWS>
  void run() {
    for (int64_t c = 0; c < channels; c += kSumDepth) {
      Accumulator<float, ROWS, VECS> sum;
      sum.clear();
      sum.add_strided(input + c,
                      input_stride,
                      weight + c * VECS * W,
                      VECS * W,
                      std::min(kSumDepth, channels - c));
      for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < VECS; ++j) {
          float* to = out + r * out_stride + j * W;
          store(to, c == 0 ? sum.v[r][j] : load(to) + sum.v[r][j]);
        }
    }
  }
};

template <class T, int VECS>
void multiply(const float* inputs,
              int64_t tiles,
              int64_t plane,
              int64_t channel_stride,
              const float* weights,
              int64_t channels,
              float* out) {
  for (int i = 0; i < kProducts; ++i)
    for (int j = 0; j < kProducts; ++j) {
      const float* input = inputs + (T::input_of[i] * T::kInputs + T::input_of[j]) * plane;
      const int weight = T::weight_of[i] * T::kWeights + T::weight_of[j];
      for (int64_t t = 0, count = tile_count(tiles); t < count; ++t) {
        const int64_t begin = tile_begin(tiles, t), end = tile_begin(tiles, t + 1);
        Product<VECS> product{input + begin * channel_stride,
                              channel_stride,
                              weights + weight * channels * VECS * W,
                              channels,
                              out + ((begin * kProducts + i) * kProducts + j) * VECS * W,
                              kProducts * kProducts * VECS * W};
        with_rows(end - begin, product);
      }
    }
}

template <class T, int VECS>
void store_tile(const ConvArgs& a,
                const Panel& panel,
                const float* lane_bias,
                const Tile& tile,
                const float* products) {
  constexpr int P = kProducts;
  float sums[kTile * kTile * VECS * W];
#pragma GCC unroll 2
  for (int v = 0; v < VECS; ++v) {
    Vec half[kTile * P];
#pragma GCC unroll 6
    for (int j = 0; j < P; ++j) {
      Vec column[P], out[kTile];
      for (int i = 0; i < P; ++i) column[i] = load(products + ((i * P + j) * VECS + v) * W);
      T::output(column, 1, out);
      for (int i = 0; i < kTile; ++i) half[i * P + j] = out[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < kTile; ++i) {
      Vec out[kTile];
      T::output(half + i * P, 1, out);
      for (int j = 0; j < kTile; ++j) store(sums + ((i * kTile + j) * VECS + v) * W, out[j]);
    }
  }
  int64_t pixel[kTile * kTile];
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < kTile; ++j) {
      const int64_t y = tile.y + i * a.dilation.y, x = tile.x + j * a.dilation.x;
      const bool wanted = y >= a.region_begin.y && y < a.region_end.y && x >= a.region_begin.x &&
                          x < a.region_end.x;
      pixel[i * kTile + j] = wanted ? stored_pixel(a, tile.n, y, x) : -1;
    }
  StorePanel store_panel{a,
                         panel,
                         lane_bias,
                         sums,
                         pixel,
                         kTile * kTile,
                         tile.n * (a.out_height * a.out_width - a.scale_stride_n)};
  with_activation(a.activation, store_panel);
}

// Tiles of a task: its transformed inputs, `planes` of them, fill about half of a 1 MiB L2; whole
// register tiles.
int64_t block_tiles(int64_t tiles, int64_t planes, int64_t channel_stride, int threads) {
  const int64_t fitting = (640 << 10) / (planes * channel_stride * int64_t(sizeof(float)));
  const int64_t registers = std::min<int64_t>(std::max<int64_t>(fitting / kRowTile, 1), 6);
  const int64_t share = ceil_div(ceil_div(tiles, threads), kRowTile);
  return std::max<int64_t>(std::min(registers, share), 1) * kRowTile;
}

template <class T>
void pack(const PackArgs& a) {
  constexpr int N = T::kWeights;
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  // Doubles in a vector as wide as that of floats has half the lanes.
  constexpr int64_t H = Simd<double>::kWidth;
  typedef float Narrow __attribute__((vector_size(H * 4), aligned(4)));
  parallel_tasks(int64_t(panels.size()), a.threads, [&](int64_t task) {
    const Panel& panel = panels[size_t(task)];
    const int64_t lanes = panel.vectors * W;
    float* packed = a.packed + panel.lane0 * N * N * a.channels;
    for (int64_t c = 0; c < a.channels; ++c)
      for (int64_t lane = 0; lane < lanes; lane += H) {
        double taps[9][H] = {};
        for (int64_t i = 0; i < H; ++i) {
          const int64_t filter = filter_in_lane(panel, a.filters, lane + i);
          if (filter < 0) continue;
          const float* w = a.weight + filter * a.stride_filter + c * a.stride_channel;
          for (int64_t t = 0; t < 9; ++t) taps[t][i] = w[t / 3 * a.stride_y + t % 3 * a.stride_x];
        }
        Vector<double> g[9], half[3 * N], out[N];
        for (int t = 0; t < 9; ++t) g[t] = load(taps[t]);
        for (int x = 0; x < 3; ++x) {
          T::weight(g + x, 3, out);
          for (int i = 0; i < N; ++i) half[i * 3 + x] = out[i];
        }
        for (int i = 0; i < N; ++i) {
          T::weight(half + i * 3, 1, out);
          for (int j = 0; j < N; ++j) {
            float* to = packed + ((i * N + j) * a.channels + c) * lanes + lane;
            *reinterpret_cast<Narrow*>(to) = __builtin_convertvector(out[j], Narrow);
          }
        }
      }
  });
}

template <class T>
void convolve(const ConvArgs& a) {
  const std::vector<Tile> tiles = tiles_of(a);
  if (tiles.empty()) return;
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  const std::vector<float> biases = lane_biases(a, panels);
  const Source source(a, {a.out_height + 5 * a.dilation.y, a.out_width + 5 * a.dilation.x});
  const int64_t planes = T::kInputs * T::kInputs;
  const int64_t stride = padded_channels(a.channels), count = int64_t(tiles.size());
  const int64_t block = block_tiles(count, planes, stride, a.threads);
  const int64_t plane = block * stride, inputs_size = planes * plane;
  const int64_t scratch_size = inputs_size + block * kProducts * kProducts * 2 * W;
  Buffer<float> scratch(scratch_size * a.threads);
  parallel_tasks(ceil_div(count, block), a.threads, [&](int64_t task) {
    const int64_t begin = task * block, here = std::min(block, count - begin);
    float* inputs = scratch.data() + thread_index() * scratch_size;
    float* products = inputs + inputs_size;
    const Tile* tile = tiles.data() + begin;
    for (int64_t t = 0; t < here; ++t)
      transform_tile<T>(a, source, tile[t], inputs + t * stride, stride, plane);
    for (const Panel& panel : panels) {
      const float* weights = a.packed + panel.lane0 * T::kWeights * T::kWeights * a.channels;
      const int64_t step = kProducts * kProducts * panel.vectors * W;
      if (panel.vectors == 2) {
        multiply<T, 2>(inputs, here, plane, stride, weights, a.channels, products);
        for (int64_t t = 0; t < here; ++t)
          store_tile<T, 2>(a, panel, biases.data(), tile[t], products + t * step);
      } else {
        multiply<T, 1>(inputs, here, plane, stride, weights, a.channels, products);
        for (int64_t t = 0; t < here; ++t)
          store_tile<T, 1>(a, panel, biases.data(), tile[t], products + t * step);
      }
    }
  });
}

}  // namespace

int64_t winograd_packed_size(int64_t filters, int64_t channels, bool gated, bool doubled) {
  const int weights = doubled ? DoubledTile::kWeights : PlainTile::kWeights;
  return lanes_of(panels_of(filters, gated)) * weights * weights * channels;
}

void pack_winograd(const PackArgs& a) { pack<PlainTile>(a); }
void pack_winograd_doubled(const PackArgs& a) { pack<DoubledTile>(a); }
void conv_winograd(const ConvArgs& a) { convolve<PlainTile>(a); }
void conv_winograd_doubled(const ConvArgs& a) { convolve<DoubledTile>(a); }

}  // namespace INPAINT_ISA
}  // namespace inpaint
