// Convolutions of few pixels by many weights: each weight is used so seldom that reading it is what
// a call costs, so nothing is made of the weights beforehand. Traffic: the weights, once.
//
// Ordinary: a sum is the dot product of a row of weights and a window of the image in the same
// order (channel, tap). Very few pixels: their windows are rows, terms along the lanes, and a tile
// of kFilters by kPixels rows goes through the terms in chunks that stay in L2. More pixels: they
// lie along the lanes, and a tile is that of base/gemm.h.
//
// Transposed: the products of all taps and filters are one matrix product (pixels, channels) x
// (channels, filters and taps), columns along the lanes, which adds kUpdate rows of weights at a
// time. A task has some filters and all chains of rows; where its pixels are so few that the
// products of every chain fit the caches, it has one chain of all filters instead, reads the
// weights from end to end, and takes 0.7 of the time. Then the products of each tap are added to
// the pixels that they belong to. Both ways add in one order.
//
// The tasks do not depend on the number of threads, so neither does a bit of the result.
#include "convolution/unpacked.h"

#include <algorithm>
#include <cstring>

#include "base/gemm.h"
#include "base/parallel.h"
#include "base/transpose.h"
#include "convolution/epilogue.h"
#include "convolution/load.h"
#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;
constexpr int kFilters = 4, kPixels = kManyRegisters ? 5 : 2;
// Terms of a chunk; filters of a task.
constexpr int64_t kTerms = 1024, kTaskFilters = 16;
// Terms that are summed in one chain, see convolution/winograd.cpp.
constexpr int64_t kChain = 128;
// Rows of weights of an update of the products, and pixels of its tile.
constexpr int kUpdate = 4, kTilePixels = kManyRegisters ? 4 : 2;
// Products of a task of some filters; of all chains, where each is a task.
constexpr int64_t kTaskProducts = 32 << 10, kChainProducts = 512 << 10;

// Bias, ratio, activation and gate of all sums (pixels, filters).
void finish(const ConvArgs& a, const float* sums) {
  const int64_t image = a.store_size.y * a.store_size.x, pixels = a.batch * image;
  const int64_t channels = a.gated ? a.filters / 2 : a.filters;
  Buffer<float> result(a.y_planes ? pixels * channels : 0);
  EpilogueArgs e{};
  e.sums = sums;
  e.bias = a.bias;
  e.mask_ratio = a.mask_ratio;
  e.update_mask = a.update_mask;
  e.image_pixels = image;
  e.mask_stride_n = a.mask_stride_n;
  e.pixels = pixels;
  e.filters = a.filters;
  e.gated = a.gated;
  e.activation = a.activation;
  e.y = a.y_planes ? result.data() : a.y;
  e.pre_activation = a.pre_activation;
  e.threads = a.threads;
  epilogue(e);
  if (!a.y_planes) return;
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < channels; ++c)
      a.y[(p / image * channels + c) * image + p % image] = result[p * channels + c];
}

// Row `p` of the terms: the window of output pixel p, (channel, tap), filled up with zeros.
void load_window(const ConvArgs& a, const Source& source, int64_t p, int64_t size, float* to) {
  const int64_t taps = a.kernel.y * a.kernel.x, image = a.out_height * a.out_width;
  const int64_t n = p / image, y = p % image / a.out_width, x = p % a.out_width;
  for (const SourcePart& part : source)
    for (int64_t t = 0; t < taps; ++t) {
      const float* from = part.at(n,
                                  y * a.stride.y + t / a.kernel.x * a.dilation.y,
                                  x * a.stride.x + t % a.kernel.x * a.dilation.x);
      const int64_t apart = part.channel_stride(from);
      float* out = to + part.begin * taps + t;
      for (int64_t c = 0; c < part.end - part.begin; ++c) out[c * taps] = from[c * apart];
    }
  std::fill(to + taps * a.channels, to + size, 0.0f);
}

// Sums, in lanes, of a chunk of the terms of FILTERS filters and some pixels.
template <int FILTERS>
struct Dots {
  const float* weight;
  int64_t weight_step;
  const float* terms;
  int64_t terms_step, depth;
  float* lanes;  // (pixels, FILTERS, W), added to unless `put`
  bool put;

  template <int PIXELS>
  void run() {
    Vec sum[PIXELS * FILTERS];
    // Unrolled, or the sums would lie in memory.
#pragma GCC unroll 20
    for (int i = 0; i < PIXELS * FILTERS; ++i) sum[i] = put ? Vec{} : load(lanes + i * W);
    int64_t k = 0;
    for (; k + W <= depth; k += W) {
      Vec taps[FILTERS];
#pragma GCC unroll 4
      for (int f = 0; f < FILTERS; ++f) taps[f] = load(weight + f * weight_step + k);
      add<PIXELS>(sum, taps, k);
    }
    if (k < depth) {
      Vec taps[FILTERS];
      for (int f = 0; f < FILTERS; ++f)
        taps[f] = load_first(weight + f * weight_step + k, depth - k);
      add<PIXELS>(sum, taps, k);
    }
#pragma GCC unroll 20
    for (int i = 0; i < PIXELS * FILTERS; ++i) store(lanes + i * W, sum[i]);
  }

 private:
  template <int PIXELS>
  inline __attribute__((always_inline)) void add(Vec* sum, const Vec* taps, int64_t k) {
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; ++p) {
      const Vec x = load(terms + p * terms_step + k);
#pragma GCC unroll 4
      for (int f = 0; f < FILTERS; ++f)
        sum[p * FILTERS + f] = multiply_add(x, taps[f], sum[p * FILTERS + f]);
    }
  }
};

template <int FILTERS>
void sum_filters(const UnpackedArgs& args,
                 const float* terms,
                 int64_t terms_step,
                 int64_t pixels,
                 int64_t first,
                 float* lanes,
                 float* sums) {
  const ConvArgs& a = args.conv;
  const int64_t depth = a.channels * a.kernel.y * a.kernel.x;
  for (int64_t k = 0; k < depth; k += kTerms)
    for (int64_t p = 0; p < pixels; p += kPixels) {
      Dots<FILTERS> dots{args.weight + first * depth + k,
                         depth,
                         terms + p * terms_step + k,
                         terms_step,
                         std::min(kTerms, depth - k),
                         lanes + p * FILTERS * W,
                         k == 0};
      with_rows_from<kPixels>(std::min<int64_t>(kPixels, pixels - p), dots);
    }
  for (int64_t p = 0; p < pixels; ++p) {
    Vec sum[FILTERS];
    for (int f = 0; f < FILTERS; ++f) sum[f] = load(lanes + (p * FILTERS + f) * W);
    store_first(sums + p * a.filters + first, sums_of_lanes<FILTERS>(sum), FILTERS);
  }
}

// Adds `rows` rows of weights, up to kUpdate, times the values of some pixels to their products.
struct Update {
  const float* weight;
  int64_t weight_step;
  const float* x;
  int64_t x_step;
  int rows;
  float* products;  // filled up to whole vectors; added to unless `put`
  int64_t products_step, columns;
  bool put;
  bool prefetch;  // the rows after these

  template <int PIXELS>
  void run() {
    if (rows == kUpdate) return update<PIXELS, kUpdate>();
    for (int r = 0; r < rows; ++r) {
      Update one{weight + r * weight_step,
                 weight_step,
                 x + r,
                 x_step,
                 1,
                 products,
                 products_step,
                 columns,
                 put && r == 0,
                 false};
      one.template update<PIXELS, 1>();
    }
  }

 private:
  template <int PIXELS, int ROWS>
  inline void update() {
    Vec v[PIXELS * ROWS];
    for (int p = 0; p < PIXELS; ++p)
      for (int r = 0; r < ROWS; ++r) v[p * ROWS + r] = broadcast(x[p * x_step + r]);
    int64_t j = 0;
    for (; j + W <= columns; j += W) {
      Vec taps[ROWS];
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) taps[r] = load(weight + r * weight_step + j);
      if (prefetch)
        for (int r = 0; r < ROWS; ++r) __builtin_prefetch(weight + (r + ROWS) * weight_step + j);
      add<PIXELS, ROWS>(v, taps, j);
    }
    if (j == columns) return;
    Vec taps[ROWS];
    for (int r = 0; r < ROWS; ++r) taps[r] = load_first(weight + r * weight_step + j, columns - j);
    add<PIXELS, ROWS>(v, taps, j);
  }

  template <int PIXELS, int ROWS>
  inline __attribute__((always_inline)) void add(const Vec* v, const Vec* taps, int64_t j) {
#pragma GCC unroll 4
    for (int p = 0; p < PIXELS; ++p) {
      float* to = products + p * products_step + j;
      Vec sum = put ? Vec{} : load(to);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) sum = multiply_add(v[p * ROWS + r], taps[r], sum);
      store(to, sum);
    }
  }
};

// Products of all pixels, rows x (pixels, channels), with one chain of the rows of weights, from
// `first` on, and some of their columns.
void sum_chain(const UnpackedArgs& args,
               const float* x,
               int64_t first,
               int64_t column,
               int64_t columns,
               float* products,
               int64_t step) {
  const ConvArgs& a = args.conv;
  const int64_t row = a.filters * a.kernel.y * a.kernel.x;
  const int64_t pixels = a.batch * a.parts[0].height * a.parts[0].width;
  const int64_t last = std::min(first + kChain, a.channels);
  for (int64_t c = first; c < last; c += kUpdate) {
    const int64_t rows = std::min<int64_t>(kUpdate, last - c);
    for (int64_t p = 0; p < pixels; p += kTilePixels) {
      Update update{args.weight + c * row + column,
                    row,
                    x + p * a.channels + c,
                    a.channels,
                    int(rows),
                    products + p * step,
                    step,
                    columns,
                    c == first,
                    columns < row && p == 0 && c + 2 * kUpdate <= a.channels};
      with_rows_from<kTilePixels>(std::min<int64_t>(kTilePixels, pixels - p), update);
    }
  }
}

// Adds the products (pixels, filters, taps) of filters begin .. end to the sums.
void add_taps(const ConvArgs& a,
              const float* products,
              int64_t products_step,
              int64_t begin,
              int64_t end,
              float* sums) {
  const int64_t height = a.parts[0].height, width = a.parts[0].width;
  const int64_t taps = a.kernel.y * a.kernel.x;
  for (int64_t p = 0; p < a.batch * height * width; ++p) {
    const int64_t n = p / (height * width), i = p / width % height, j = p % width;
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t y = i * a.stride.y + t / a.kernel.x * a.dilation.y - a.padding.y;
      const int64_t x = j * a.stride.x + t % a.kernel.x * a.dilation.x - a.padding.x;
      if (y < 0 || y >= a.store_size.y || x < 0 || x >= a.store_size.x) continue;
      float* to = sums + ((n * a.store_size.y + y) * a.store_size.x + x) * a.filters + begin;
      const float* from = products + p * products_step + t;
      for (int64_t f = 0; f < end - begin; ++f) to[f] += from[f * taps];
    }
  }
}

}  // namespace

void conv_unpacked(const UnpackedArgs& args) {
  const ConvArgs& a = args.conv;
  const int64_t pixels = a.batch * a.out_height * a.out_width;
  if (pixels == 0) return;
  const int64_t size = round_up(a.channels * a.kernel.y * a.kernel.x, W);
  const Source source(a, extent_of(a));
  Buffer<float> sums(pixels * a.filters);
  Buffer<float> terms(pixels * size);
  parallel_tasks(pixels, a.threads, [&](int64_t p) {
    load_window(a, source, p, size, terms.data() + p * size);
  });
  const int64_t lanes_size = pixels * kFilters * W;
  Buffer<float> lanes(lanes_size * a.threads);
  parallel_tasks(ceil_div(a.filters, kTaskFilters), a.threads, [&](int64_t task) {
    float* mine = lanes.data() + thread_index() * lanes_size;
    const int64_t end = std::min(a.filters, (task + 1) * kTaskFilters);
    int64_t f = task * kTaskFilters;
    for (; f + kFilters <= end; f += kFilters)
      sum_filters<kFilters>(args, terms.data(), size, pixels, f, mine, sums.data());
    for (; f < end; ++f) sum_filters<1>(args, terms.data(), size, pixels, f, mine, sums.data());
  });
  finish(a, sums.data());
}

void conv_unpacked_transposed(const UnpackedArgs& args) {
  const ConvArgs& a = args.conv;
  const int64_t height = a.parts[0].height, width = a.parts[0].width;
  const int64_t pixels = a.batch * height * width, taps = a.kernel.y * a.kernel.x;
  const int64_t stored = a.batch * a.store_size.y * a.store_size.x;
  if (stored == 0) return;
  Buffer<float> x(pixels * a.channels), sums(stored * a.filters);
  for (int64_t p = 0; p < pixels; ++p) {
    const Part& part = a.parts[0];
    const float* from = part.x + p / (height * width) * part.stride_n +
                        p / width % height * part.stride_y + p % width * part.stride_x;
    for (int64_t c = 0; c < a.channels; ++c) x[p * a.channels + c] = from[c * part.stride_c];
  }
  // Filters of a task: enough columns for long reads, few enough for L2 and for many tasks.
  const int64_t columns_most = std::max<int64_t>(512, kTaskProducts / pixels);
  const int64_t most = std::max<int64_t>(1, std::min(columns_most / taps, ceil_div(a.filters, 8)));
  const int64_t chains = ceil_div(a.channels, kChain), row = a.filters * taps;
  const bool by_chain = chains > 1 && chains * pixels * row <= kChainProducts;
  // An odd number of cache lines, or pixels would meet in few sets of the L1 cache.
  const int64_t step = round_up(by_chain ? row : most * taps, 32) + 16, size = pixels * step;
  Buffer<float> products((by_chain ? chains : 2 * a.threads) * size);
  if (by_chain)
    parallel_tasks(chains, a.threads, [&](int64_t chain) {
      sum_chain(args, x.data(), chain * kChain, 0, row, products.data() + chain * size, step);
    });
  parallel_tasks(ceil_div(a.filters, most), a.threads, [&](int64_t task) {
    const int64_t begin = task * most, end = std::min(a.filters, begin + most);
    const int64_t columns = (end - begin) * taps;
    float* chain = products.data() + (by_chain ? begin * taps : thread_index() * 2 * size);
    float* total = by_chain ? chain : chain + size;
    for (int64_t i = 0; i < chains; ++i) {
      if (!by_chain) sum_chain(args, x.data(), i * kChain, begin * taps, columns, chain, step);
      if (by_chain && i == 0) continue;
      const float* its = by_chain ? chain + i * size : chain;
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t j = p * step; j < p * step + columns; j += W) {
          const int64_t lanes = std::min(W, p * step + columns - j);
          const Vec more = load_first(its + j, lanes);
          store_first(total + j, i == 0 ? more : load_first(total + j, lanes) + more, lanes);
        }
    }
    for (int64_t s = 0; s < stored; ++s)
      std::fill_n(sums.data() + s * a.filters + begin, end - begin, 0.0f);
    add_taps(a, total, step, begin, end, sums.data());
  });
  finish(a, sums.data());
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
