// The load stage of the convolutions: where each tap reads.
//
// Padding, nearest upsampling and validity only change addresses. Coordinates are those of the
// padded, upsampled input; a place that counts as zero reads from a page of zeros, so NaN there
// cannot spread.
#pragma once

#include <algorithm>
#include <vector>

#include "conv.h"
#include "simd.h"

namespace inpaint {
namespace INPAINT_ISA {

// For each coordinate 0 .. count - 1 of the padded, upsampled axis the source coordinate, -1: zero.
inline std::vector<int64_t> axis_map(
    int64_t size, int upsample, int64_t padding, PaddingMode mode, int64_t count) {
  std::vector<int64_t> map(static_cast<size_t>(count), -1);
  const int64_t n = size * upsample;
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = i - padding;
    if (mode == PaddingMode::kReflect) {
      if (at < 0) at = -at;
      if (at >= n) at = 2 * n - 2 - at;
    } else if (mode == PaddingMode::kReplicate) {
      at = std::min(std::max<int64_t>(at, 0), n - 1);
    }
    if (at >= 0 && at < n) map[size_t(i)] = at / upsample;
  }
  return map;
}

class Source {
 public:
  // `extent`: coordinates that may be asked for.
  Source(const ConvArgs& a, Size2 extent)
      : args_(a),
        rows_(axis_map(a.height, a.upsample, a.padding.y, a.padding_mode, extent.y)),
        columns_(axis_map(a.width, a.upsample, a.padding.x, a.padding_mode, extent.x)),
        zeros_(static_cast<size_t>(round_up(a.channels, Simd<float>::kWidth)), 0.0f) {
    if (!a.valid) part_end_ = {a.channels};
  }

  const std::vector<int64_t>& part_end() const {
    return part_end_.empty() ? args_.part_end : part_end_;
  }

  // First channel of the pixel as seen by channels of `part`; the next ones lie channel_stride(it)
  // on.
  const float* at(int64_t n, int64_t y, int64_t x, int part) const {
    const int64_t row = rows_[size_t(y)], column = columns_[size_t(x)];
    if (row < 0 || column < 0) return zeros_.data();
    if (args_.valid) {
      const int64_t plane = args_.height * args_.width;
      if (!args_.valid[n * args_.valid_stride_n + part * plane + row * args_.width + column])
        return zeros_.data();
    }
    return args_.x + n * args_.stride_n + row * args_.stride_y + column * args_.stride_x;
  }

  bool adjacent() const { return args_.stride_c == 1; }
  int64_t channel_stride(const float* pixel) const {
    return pixel == zeros_.data() ? 1 : args_.stride_c;
  }

  // `at` for the pixels of a square lattice, row by row.
  template <int ROWS>
  void lattice(int64_t n,
               const int64_t (&y)[ROWS],
               const int64_t (&x)[ROWS],
               int part,
               const float** to) const {
    if (args_.valid) {
      for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < ROWS; ++j) to[i * ROWS + j] = at(n, y[i], x[j], part);
      return;
    }
    int64_t columns[ROWS];
    for (int j = 0; j < ROWS; ++j) columns[j] = columns_[size_t(x[j])];
    for (int i = 0; i < ROWS; ++i) {
      const int64_t row = rows_[size_t(y[i])];
      const float* begin = args_.x + n * args_.stride_n + row * args_.stride_y;
      for (int j = 0; j < ROWS; ++j)
        to[i * ROWS + j] =
            row < 0 || columns[j] < 0 ? zeros_.data() : begin + columns[j] * args_.stride_x;
    }
  }

 private:
  const ConvArgs& args_;
  std::vector<int64_t> rows_, columns_, part_end_;
  std::vector<float> zeros_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
