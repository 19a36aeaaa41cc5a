// The load stage of the convolutions: where each tap reads.
//
// Concatenation, padding, nearest upsampling and validity only change addresses. Coordinates are
// those of the padded, upsampled input; a place that counts as zero reads from a page of zeros, so
// NaN there cannot spread.
#pragma once

#include <algorithm>
#include <vector>

#include "base/simd.h"
#include "convolution/conv.h"

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

// Coordinates that the taps of all outputs ask for.
inline Size2 extent_of(const ConvArgs& a) {
  return {(a.out_height - 1) * a.stride.y + (a.kernel.y - 1) * a.dilation.y + 1,
          (a.out_width - 1) * a.stride.x + (a.kernel.x - 1) * a.dilation.x + 1};
}

// Coordinates before the image: padding, and what tiles that begin before the outputs read.
inline Size2 padding_of(const ConvArgs& a) {
  return {a.padding.y + a.lead.y * a.stride.y, a.padding.x + a.lead.x * a.stride.x};
}

// One part as its channels `begin` to `end` among those of all parts.
class SourcePart {
 public:
  int64_t begin, end;

  SourcePart(const ConvArgs& a, const Part& part, int64_t first, Size2 extent, const float* zeros)
      : begin(first),
        end(first + part.channels),
        part_(part),
        rows_(axis_map(part.height, part.upsample, padding_of(a).y, a.padding_mode, extent.y)),
        columns_(axis_map(part.width, part.upsample, padding_of(a).x, a.padding_mode, extent.x)),
        zeros_(zeros) {}

  // The part's first channel of a pixel; the next ones lie channel_stride(it) on.
  const float* at(int64_t n, int64_t y, int64_t x) const {
    const int64_t row = rows_[size_t(y)], column = columns_[size_t(x)];
    if (row < 0 || column < 0) return zeros_;
    if (part_.valid && !part_.valid[n * part_.valid_stride_n + row * part_.width + column])
      return zeros_;
    return part_.x + n * part_.stride_n + row * part_.stride_y + column * part_.stride_x;
  }

  bool adjacent() const { return part_.stride_c == 1; }
  int64_t channel_stride(const float* pixel) const { return pixel == zeros_ ? 1 : part_.stride_c; }

  // `at` for the pixels of a square lattice, row by row.
  template <int ROWS>
  void lattice(int64_t n,
               const int64_t (&y)[ROWS],
               const int64_t (&x)[ROWS],
               const float** to) const {
    int64_t columns[ROWS];
    for (int j = 0; j < ROWS; ++j) columns[j] = columns_[size_t(x[j])];
    for (int i = 0; i < ROWS; ++i) {
      const int64_t row = rows_[size_t(y[i])];
      const float* first = part_.x + n * part_.stride_n + row * part_.stride_y;
      const uint8_t* valid = nullptr;
      if (part_.valid) valid = part_.valid + n * part_.valid_stride_n + row * part_.width;
      for (int j = 0; j < ROWS; ++j) {
        const bool read = row >= 0 && columns[j] >= 0 && (!valid || valid[columns[j]]);
        to[i * ROWS + j] = read ? first + columns[j] * part_.stride_x : zeros_;
      }
    }
  }

 private:
  const Part& part_;
  std::vector<int64_t> rows_, columns_;
  const float* zeros_;
};

// All parts, one after the other.
class Source {
 public:
  // `extent`: coordinates that may be asked for.
  Source(const ConvArgs& a, Size2 extent)
      : zeros_(static_cast<size_t>(round_up(a.channels, Simd<float>::kWidth)), 0.0f) {
    parts_.reserve(a.parts.size());
    int64_t first = 0;
    for (const Part& part : a.parts) {
      parts_.emplace_back(a, part, first, extent, zeros_.data());
      first += part.channels;
    }
  }

  std::vector<SourcePart>::const_iterator begin() const { return parts_.begin(); }
  std::vector<SourcePart>::const_iterator end() const { return parts_.end(); }

 private:
  std::vector<float> zeros_;
  std::vector<SourcePart> parts_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
