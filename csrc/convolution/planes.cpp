// Images from planes to pixels and back: squares of W pixels by W channels change places in
// registers. A task takes kTaskFloats or less of neighbouring pixels, W channels after the other:
// as many streams of memory, each of a few cache lines or more. Traffic: both images, once.
//
// The convolutions read and write pixels, whose channels fill vectors. To gather each pixel of an
// image in planes channel by channel, and to scatter each result, would take as long again as a
// layer of 64 channels. Copies take a tenth of it: of some rows, or images, at a time, so that a
// cache holds them. Direct sums with pixels in the lanes read and write planes themselves.
#include "convolution/planes.h"

#include <algorithm>

#include "base/parallel.h"
#include "base/transpose.h"
#include "convolution/load.h"
#include "convolution/store.h"
#include "convolution/takes.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t W = Simd<float>::kWidth;
constexpr int64_t kTaskFloats = 16 << 10;

// A square, or what there is of one: `rows` rows of `lanes` numbers become columns.
inline void transpose_square(
    const float* from, int64_t from_step, int64_t rows, int64_t lanes, float* to, int64_t to_step) {
  Vector<float> square[W];
  if (rows == W && lanes == W) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < W; ++i) square[i] = load(from + i * from_step);
    transpose(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < W; ++i) store(to + i * to_step, square[i]);
    return;
  }
  for (int64_t i = 0; i < W; ++i)
    square[i] = i < rows ? load_first(from + i * from_step, lanes) : Vector<float>{};
  transpose(square);
  for (int64_t i = 0; i < lanes; ++i) store_first(to + i * to_step, square[i], rows);
}

// Calls body(n, y, x, count) for runs of neighbouring pixels of a row, or of the whole plane where
// rows follow each other without a gap: then y = 0.
template <class Args, class Body>
void each_run_of_pixels(const Args& a, const Body& body) {
  const bool dense = a.stride_y == a.width || a.height == 1;
  const int64_t rows = dense ? 1 : a.height, width = dense ? a.height * a.width : a.width;
  const int64_t most = std::max<int64_t>(kTaskFloats / a.channels, W) / W * W;
  const int64_t runs = ceil_div(width, most);
  parallel_tasks(a.batch * rows * runs, a.threads, [&](int64_t task) {
    const int64_t x = task % runs * most, row = task / runs;
    body(row / rows, row % rows, x, std::min(most, width - x));
  });
}

}  // namespace

void to_pixels(const ToPixelsArgs& a) {
  each_run_of_pixels(a, [&](int64_t n, int64_t y, int64_t x, int64_t count) {
    const float* from = a.planes + n * a.stride_n + y * a.stride_y + x;
    float* to = a.pixels + ((n * a.height + y) * a.width + x) * a.channels;
    for (int64_t c = 0; c < a.channels; c += W)
      for (int64_t p = 0; p < count; p += W)
        transpose_square(from + c * a.stride_c + p,
                         a.stride_c,
                         std::min(W, a.channels - c),
                         std::min(W, count - p),
                         to + p * a.channels + c,
                         a.channels);
  });
}

void to_planes(const ToPlanesArgs& a) {
  each_run_of_pixels(a, [&](int64_t n, int64_t y, int64_t x, int64_t count) {
    const float* from = a.pixels + ((n * a.height + y) * a.width + x) * a.channels;
    float* to = a.planes + n * a.stride_n + y * a.stride_y + x;
    if (a.wanted) {
      const uint8_t* wanted = a.wanted + n * a.wanted_stride_n + y * a.width + x;
      for (int64_t p = 0; p < count; ++p)
        for (int64_t c = 0; wanted[p] && c < a.channels; ++c)
          to[c * a.stride_c + p] = from[p * a.channels + c];
      return;
    }
    for (int64_t c = 0; c < a.channels; c += W)
      for (int64_t p = 0; p < count; p += W)
        transpose_square(from + p * a.channels + c,
                         a.channels,
                         std::min(W, count - p),
                         std::min(W, a.channels - c),
                         to + c * a.stride_c + p,
                         a.stride_c);
  });
}

namespace {

// Images and output rows of one step: with its copies it is to stay in a cache, but it reads the
// weights anew.
constexpr int64_t kStepBytes = int64_t(2) << 20;

// Rows of a step for each one that it reads again.
constexpr int64_t kSharedRows = 3;

struct Step {
  int64_t image, images, row, rows;
};

// Output rows that begin and end together: those of a row of tiles.
int64_t rows_together(const ConvArgs& a) {
  if (a.algorithm == Algorithm::kDirect) return a.dilation.y;
  return a.dilation.y *
         with_tile(a.algorithm, [](auto tile) { return int64_t(decltype(tile)::kOutputs); });
}

// The steps of a convolution whose images, or results, are copied. One of several phases, or with
// masks, takes whole images. Rows begin where a row of tiles does, so the bits are the same.
std::vector<Step> steps_of(const ConvArgs& a, size_t jobs, int64_t channels) {
  int64_t bytes = a.store_size.y * a.store_size.x * channels * 4;
  for (const Part& part : a.parts) bytes += part.height * part.width * part.channels * 4;
  const int64_t weights = a.kernel.y * a.kernel.x * a.channels * a.filters * 4;
  const int64_t most = std::max(kStepBytes * a.threads, 4 * weights);
  const int64_t images = std::max<int64_t>(1, most / bytes);
  int64_t rows = a.out_height;
  if (images == 1 && bytes > most && jobs == 1 && !a.mask_ratio && !a.wanted && a.anchor.y == 0) {
    // Rows that two bands read are copied twice.
    const int64_t shared = kSharedRows * (a.kernel.y - 1) * a.dilation.y / a.stride.y;
    rows = round_up(std::max({int64_t(1), rows * most / bytes, shared}), rows_together(a));
  }
  std::vector<Step> steps;
  for (int64_t n = 0; n < a.batch; n += images)
    for (int64_t y = 0; y < a.out_height; y += rows)
      steps.push_back({n, std::min(images, a.batch - n), y, std::min(rows, a.out_height - y)});
  return steps;
}

// A convolution's step: as one of these images and output rows alone.
ConvArgs part_of(ConvArgs a, const Step& step) {
  const int64_t stored = a.store_size.y * a.store_size.x;
  const int64_t pixels = step.image * stored + step.row * a.store_size.x;
  if (a.pre_activation) a.pre_activation += pixels * a.filters;
  if (a.mask_ratio) {
    a.mask_ratio += step.image * a.mask_stride_n;
    a.update_mask += step.image * a.mask_stride_n;
  }
  if (a.wanted) a.wanted += step.image * a.wanted_stride_n;
  for (Part& part : a.parts) {
    part.x += step.image * part.stride_n;
    if (part.valid) part.valid += step.image * part.valid_stride_n;
  }
  a.batch = step.images;
  if (step.rows < a.out_height) {
    a.store_size.y = a.out_height = step.rows;
    a.padding.y -= step.row * a.stride.y;
  }
  return a;
}

struct Rows {
  int64_t first, end;
  int64_t count() const { return std::max<int64_t>(end - first, 0); }
};

// The padded, doubled image's rows that a band of outputs reads; tiles begin with the band.
int64_t reach_of(const ConvArgs& a) {
  if (a.algorithm == Algorithm::kDirect) return extent_of(a).y;
  return with_tile(a.algorithm, [&](auto tile) {
    using T = decltype(tile);
    const Layout<T> layout(a);
    const auto starts = tile_starts(0, a.out_height, layout.grid.y, T::kOutputs);
    const int64_t last = *std::max_element(starts.begin(), starts.end());
    return last * a.stride.y + reads_of_tile<T>(layout.rows, a.dilation.y).back() + 1;
  });
}

// Rows of a part that a step reads: all of them but for a band, see `steps_of`.
Rows rows_read(const ConvArgs& a, const Part& part, bool band) {
  if (!band) return {0, part.height};
  const auto map = axis_map(part.height, part.upsample, a.padding.y, a.padding_mode, reach_of(a));
  Rows rows{part.height, 0};
  for (const int64_t row : map)
    if (row >= 0) rows = {std::min(rows.first, row), std::max(rows.end, row + 1)};
  return rows;
}

int64_t floats_of(const ConvArgs& a, const Part& part, const Rows& rows) {
  return a.batch * rows.count() * part.width * part.channels;
}

// Makes pixels of some rows of a part in planes. The part's other rows are not there.
void make_pixels(Part& part, const ConvArgs& a, const Rows& rows, float* pixels) {
  const int64_t height = rows.count(), row = part.width * part.channels;
  const float* from = part.x + rows.first * part.stride_y;
  if (part.stride_x == 1 || part.width == 1) {
    to_pixels({from,
               pixels,
               a.batch,
               part.channels,
               height,
               part.width,
               part.stride_n,
               part.stride_c,
               part.stride_y,
               nullptr,
               0,
               a.threads});
  } else {
    for (int64_t n = 0; n < a.batch; ++n)
      for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < part.width; ++x)
          for (int64_t c = 0; c < part.channels; ++c)
            pixels[(n * height + y) * row + x * part.channels + c] =
                from[n * part.stride_n + y * part.stride_y + x * part.stride_x + c * part.stride_c];
  }
  part.x = pixels - rows.first * row;
  part.stride_n = height * row;
  part.stride_y = row;
  part.stride_x = part.channels;
  part.stride_c = 1;
}

// The parts of a step with pixels in place of planes.
std::vector<Part> with_pixels(const ConvArgs& a, bool band, Buffer<float>& memory) {
  std::vector<Part> parts = a.parts;
  float* pixels = memory.data();
  for (Part& part : parts) {
    if (part.stride_c == 1) continue;
    const Rows rows = rows_read(a, part, band);
    make_pixels(part, a, rows, pixels);
    pixels += floats_of(a, part, rows);
  }
  return parts;
}

int64_t floats_of_planes(const ConvArgs& a, bool band) {
  int64_t floats = 0;
  for (const Part& part : a.parts)
    if (part.stride_c != 1) floats += floats_of(a, part, rows_read(a, part, band));
  return floats;
}

}  // namespace

void conv_all(const std::vector<ConvArgs>& jobs) {
  if (jobs.empty()) return;
  const ConvArgs& whole = jobs.front();
  const bool direct = whole.algorithm == Algorithm::kDirect;
  const bool lanes =
      direct && pixels_in_lanes(whole.filters, whole.gated, whole.channels, whole.stride);
  const bool gathers = !lanes && std::any_of(whole.parts.begin(),
                                             whole.parts.end(),
                                             [](const Part& part) { return part.stride_c != 1; });
  const bool scatters = !lanes && whole.y_planes;
  auto* kernel = direct ? conv_direct : conv_winograd;
  if (!gathers && !scatters) {
    for (const ConvArgs& job : jobs) kernel(job);
    return;
  }
  const int64_t channels = whole.gated ? whole.filters / 2 : whole.filters;
  const int64_t stored = whole.store_size.y * whole.store_size.x;
  for (const Step& step : steps_of(whole, jobs.size(), channels)) {
    const ConvArgs first = part_of(whole, step);
    const int64_t pixels = first.batch * first.store_size.y * first.store_size.x;
    const bool band = step.rows < whole.out_height;
    Buffer<float> x(gathers ? floats_of_planes(first, band) : 0),
        y(scatters ? pixels * channels : 0);
    const std::vector<Part> parts = gathers ? with_pixels(first, band, x) : first.parts;
    float* image = whole.y + step.image * stored * channels;
    const int64_t before = step.row * whole.store_size.x;
    for (const ConvArgs& job : jobs) {
      ConvArgs now = part_of(job, step);
      now.parts = parts;
      now.y = scatters ? y.data() : image + before * channels;
      now.y_planes = false;
      kernel(now);
    }
    if (scatters)
      to_planes({image + before,
                 y.data(),
                 first.batch,
                 channels,
                 first.store_size.y,
                 first.store_size.x,
                 channels * stored,
                 stored,
                 first.store_size.x,
                 first.wanted,
                 first.wanted_stride_n,
                 whole.threads});
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
