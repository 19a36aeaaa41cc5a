// Convolutions of few pixels by many weights: each weight is used so seldom that reading it is what
// a call costs, so nothing is made of the weights beforehand. Traffic: the weights, once.
//
// Ordinary: the pixels' windows become rows of terms in the weight's order (channel, tap); a sum is
// the dot product of two rows, its terms along the lanes. A task has some filters; a tile of
// kFilters rows of weights by kPixels rows of terms goes through the terms in chunks that stay in
// L2.
//
// Transposed: the products of all taps and filters are one matrix product (pixels, channels) x
// (channels, filters and taps), columns along the lanes; a task has some filters, adds kChain rows
// of weights at a time to its products, and the products of each tap to the pixels they belong to.
//
// The tasks do not depend on the number of threads, so neither does a bit of the result.
#include "conv_unpacked.h"

#include <algorithm>

#include "conv_load.h"
#include "conv_store.h"
#include "gated_conv2d.h"
#include "gemm.h"
#include "parallel.h"
#include "transpose.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;
constexpr int kFilters = 4, kPixels = kManyRegisters ? 5 : 2;
// Terms of a chunk; filters of a task.
constexpr int64_t kTerms = 1024, kTaskFilters = 16;
// Rows of weights that are summed before they are added to the products; vectors of a tile.
constexpr int64_t kChain = 32;
constexpr int kColumns = kManyRegisters ? 4 : 2, kRows = 4;
// Products of a task, along the columns.
constexpr int64_t kTaskColumns = 512;

// Bias, ratio, activation and gate of all sums (pixels, filters).
void finish(const ConvArgs& a, const float* sums) {
  const int64_t image = a.store_size.y * a.store_size.x, pixels = a.batch * image;
  const int64_t channels = a.gated ? a.filters / 2 : a.filters;
  Buffer<float> result(a.y_planes ? pixels * channels : 0);
  EpilogueArgs e{};
  e.z = sums;
  e.bias = a.bias;
  e.scale = a.scale;
  e.share = a.share;
  e.image_pixels = image;
  e.scale_stride_n = a.scale_stride_n;
  e.pixels = pixels;
  e.filters = a.filters;
  e.gated = a.gated;
  e.activation = a.activation;
  e.y = a.y_planes ? result.data() : a.y;
  e.z_out = a.z;
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
    for (int i = 0; i < PIXELS * FILTERS; ++i) store(lanes + i * W, sum[i]);
  }

 private:
  template <int PIXELS>
  inline __attribute__((always_inline)) void add(Vec* sum, const Vec* taps, int64_t k) {
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; ++p) {
      const Vec x = load(terms + p * terms_step + k);
#pragma GCC unroll 4
      for (int f = 0; f < FILTERS; ++f) sum[p * FILTERS + f] += x * taps[f];
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

// A tile of the products: some pixels by up to kColumns vectors, `count` columns.
struct Products {
  const float* weight;
  int64_t weight_step;
  const float* x;
  int64_t x_step, rows;
  float* products;  // added to unless `put`
  int64_t products_step;
  int64_t count;
  bool put;

  template <int PIXELS>
  void run() {
    if (count >= kColumns * W) return tile<PIXELS, true>();
    tile<PIXELS, false>();
  }

 private:
  template <int PIXELS, bool WHOLE>
  inline void tile() {
    Vec sum[PIXELS * kColumns];
    for (Vec& s : sum) s = Vec{};
    for (int64_t r = 0; r < rows; ++r) {
      const float* from = weight + r * weight_step;
      Vec taps[kColumns];
#pragma GCC unroll 4
      for (int j = 0; j < kColumns; ++j)
        taps[j] = WHOLE           ? load(from + j * W)
                  : count > j * W ? load_first(from + j * W, count - j * W)
                                  : Vec{};
#pragma GCC unroll 4
      for (int p = 0; p < PIXELS; ++p) {
        const Vec v = broadcast(x[p * x_step + r]);
#pragma GCC unroll 4
        for (int j = 0; j < kColumns; ++j) sum[p * kColumns + j] += v * taps[j];
      }
    }
    for (int p = 0; p < PIXELS; ++p)
      for (int j = 0; j < kColumns; ++j) {
        float* to = products + p * products_step + j * W;
        const Vec s = sum[p * kColumns + j];
        store(to, put ? s : load(to) + s);
      }
  }
};

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

bool unpacked_worth(int64_t pixels, int64_t weights) {
  return pixels <= 64 && weights >= (int64_t(1) << 16);
}

void conv_unpacked(const UnpackedArgs& args) {
  const ConvArgs& a = args.conv;
  const int64_t pixels = a.batch * a.out_height * a.out_width;
  if (pixels == 0) return;
  const int64_t size = round_up(a.channels * a.kernel.y * a.kernel.x, W);
  const Source source(a,
                      {(a.out_height - 1) * a.stride.y + (a.kernel.y - 1) * a.dilation.y + 1,
                       (a.out_width - 1) * a.stride.x + (a.kernel.x - 1) * a.dilation.x + 1});
  Buffer<float> terms(pixels * size), sums(pixels * a.filters);
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
  const int64_t most =
      std::max<int64_t>(4, std::min(ceil_div(kTaskColumns, taps), ceil_div(a.filters, 16)));
  const int64_t step = round_up(most * taps, kColumns * W);
  Buffer<float> products(pixels * step * a.threads);
  parallel_tasks(ceil_div(a.filters, most), a.threads, [&](int64_t task) {
    float* mine = products.data() + thread_index() * pixels * step;
    const int64_t begin = task * most, end = std::min(a.filters, begin + most);
    const int64_t columns = (end - begin) * taps, row = a.filters * taps;
    for (int64_t c = 0; c < a.channels; c += kChain)
      for (int64_t p = 0; p < pixels; p += kRows)
        for (int64_t j = 0; j < columns; j += kColumns * W) {
          Products tile{args.weight + c * row + begin * taps + j,
                        row,
                        x.data() + p * a.channels + c,
                        a.channels,
                        std::min(kChain, a.channels - c),
                        mine + p * step + j,
                        step,
                        columns - j,
                        c == 0};
          with_rows_from<kRows>(std::min<int64_t>(kRows, pixels - p), tile);
        }
    for (int64_t s = 0; s < stored; ++s)
      std::fill_n(sums.data() + s * a.filters + begin, end - begin, 0.0f);
    add_taps(a, mine, step, begin, end, sums.data());
  });
  finish(a, sums.data());
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
