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

  // Whether a window of `rows` by `columns` pixels from (y, x) on is one of the image itself.
  bool is_window(int64_t y, int64_t x, int64_t rows, int64_t columns) const {
    if (part_.valid || part_.upsample != 1) return false;
    // Inside of the image neighbours differ by one at most, and zeros end it: the ends are as far
    // apart only if all of them go up.
    const int64_t top = rows_[size_t(y)], left = columns_[size_t(x)];
    return top >= 0 && left >= 0 && rows_[size_t(y + rows - 1)] == top + rows - 1 &&
           columns_[size_t(x + columns - 1)] == left + columns - 1;
  }

  // Floats from one row of the image to the next, and from one pixel to the next.
  int64_t row_stride() const { return part_.stride_y; }
  int64_t pixel_stride() const { return part_.stride_x; }

  // Calls body(j, count, from) for runs of the pixels (y, x), (y, x + step), ... of which j is the
  // first: those of a run lie step * pixel_stride() apart from `from` on; null: they are zero.
  template <class Body>
  void each_run(
      int64_t n, int64_t y, int64_t x, int64_t step, int64_t pixels, const Body& body) const {
    const int64_t row = rows_[size_t(y)];
    if (row < 0) return body(0, pixels, nullptr);
    const float* first = part_.x + n * part_.stride_n + row * part_.stride_y;
    const uint8_t* valid = valid_row(n, row);
    const int64_t* columns = columns_.data() + x;
    const auto read = [&](int64_t j) {
      const int64_t column = columns[j * step];
      return column >= 0 && (!valid || valid[column]);
    };
    for (int64_t j = 0, end; j < pixels; j = end) {
      end = j + 1;
      if (!read(j)) {
        while (end < pixels && !read(end)) ++end;
        body(j, end - j, nullptr);
        continue;
      }
      const int64_t column = columns[j * step];
      while (end < pixels && columns[end * step] == column + (end - j) * step && read(end)) ++end;
      body(j, end - j, first + column * part_.stride_x);
    }
  }

  int64_t channel_stride() const { return part_.stride_c; }
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
      const uint8_t* valid = valid_row(n, row);
      for (int j = 0; j < ROWS; ++j) {
        const bool read = row >= 0 && columns[j] >= 0 && (!valid || valid[columns[j]]);
        to[i * ROWS + j] = read ? first + columns[j] * part_.stride_x : zeros_;
      }
    }
  }

 private:
  // Which pixels of a row of the image are read; null: all.
  const uint8_t* valid_row(int64_t n, int64_t row) const {
    const uint8_t* valid = part_.valid;
    if (valid) valid = part_.valid + n * part_.valid_stride_n + row * part_.width;
    return valid;
  }

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
