// Norms of patches and the patches without a bad pixel: both are sums over boxes of pixels.
//
// A box sum is formed along x, then along y. Traffic: the image once, the numbers of pixels twice.
#pragma once

#include <algorithm>

#include "matching/nearest_patch.h"
#include "matching/patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {

// Sums over patch x patch boxes of (height, width) numbers that have `pad` zeros on every side:
// (height + 2 pad - patch + 1, width + 2 pad - patch + 1).
template <class Number>
void box_sums(const Number* in,
              int64_t height,
              int64_t width,
              int64_t patch,
              int64_t pad,
              int threads,
              Number* out) {
  constexpr int64_t kRows = 16;
  const int64_t rows = height + 2 * pad - patch + 1, columns = width + 2 * pad - patch + 1;
  Buffer<Number> along(height * columns);
  parallel_tasks(ceil_div(height, kRows), threads, [&](int64_t task) {
    for (int64_t y = task * kRows; y < std::min(height, (task + 1) * kRows); ++y) {
      Number* const to = along.data() + y * columns;
      std::fill_n(to, columns, Number(0));
      for (int64_t d = -pad; d < patch - pad; ++d) {
        const Number* from = in + y * width + d;
        const int64_t end = std::min(columns, width - d);
        for (int64_t x = std::max<int64_t>(0, -d); x < end; ++x) to[x] += from[x];
      }
    }
  });
  parallel_tasks(ceil_div(rows, kRows), threads, [&](int64_t task) {
    for (int64_t y = task * kRows; y < std::min(rows, (task + 1) * kRows); ++y) {
      Number* const to = out + y * columns;
      std::fill_n(to, columns, Number(0));
      const int64_t end = std::min(height, y - pad + patch);
      for (int64_t v = std::max<int64_t>(0, y - pad); v < end; ++v)
        for (int64_t x = 0; x < columns; ++x) to[x] += along[v * columns + x];
    }
  });
}

// Squared norms of the columns of one packed panel, [channel][kPanel], summed in double.
template <class T>
void panel_squares(const T* panel, int64_t channels, double* out) {
  std::fill_n(out, kPanel<T>, 0.0);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t j = 0; j < kPanel<T>; ++j)
      out[j] += double(panel[c * kPanel<T> + j]) * double(panel[c * kPanel<T> + j]);
}

// Squared norm of every patch of one sample, (H - k + 1, W - k + 1), summed in double. Pixels that
// are not valid count as zero.
template <class T>
void patch_square_norms(const ImageView<T>& image,
                        int64_t n,
                        int64_t channels,
                        int64_t height,
                        int64_t width,
                        int64_t patch,
                        const uint8_t* valid,
                        int threads,
                        double* out) {
  Buffer<double> pixels(height * width);
  parallel_tasks(ceil_div(height, 16), threads, [&](int64_t task) {
    for (int64_t y = task * 16; y < std::min(height, task * 16 + 16); ++y) {
      const T* row = image.data + n * image.stride_n + y * image.stride_h;
      double* const pixel = pixels.data() + y * width;
      std::fill_n(pixel, width, 0.0);
      if (image.stride_w == 1) {
        for (int64_t c = 0; c < channels; ++c) {
          const T* p = row + c * image.stride_c;
          for (int64_t x = 0; x < width; ++x) pixel[x] += double(p[x]) * double(p[x]);
        }
      } else {
        for (int64_t x = 0; x < width; ++x) {
          const T* p = row + x * image.stride_w;
          double sum = 0;
          for (int64_t c = 0; c < channels; ++c) {
            const double value = double(p[c * image.stride_c]);
            sum += value * value;
          }
          pixel[x] = sum;
        }
      }
      if (valid) {
        for (int64_t x = 0; x < width; ++x) pixel[x] = valid[y * width + x] ? pixel[x] : 0.0;
      }
    }
  });
  box_sums(pixels.data(), height, width, patch, 0, threads, out);
}

// out: 1 for a patch without any pixel i for which bad(i), else 0; pixels beyond the edge are good.
template <class Bad>
void whole_patches(int64_t height,
                   int64_t width,
                   int64_t patch,
                   int64_t pad,
                   int threads,
                   const Bad& bad,
                   uint8_t* out) {
  const int64_t count = (height + 2 * pad - patch + 1) * (width + 2 * pad - patch + 1);
  Buffer<int32_t> pixels(height * width), sums(count);
  for (int64_t i = 0; i < height * width; ++i) pixels[i] = bad(i) ? 1 : 0;
  box_sums(pixels.data(), height, width, patch, pad, threads, sums.data());
  for (int64_t i = 0; i < count; ++i) out[i] = sums[i] == 0;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
