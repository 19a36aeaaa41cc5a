// Which pixels of its input a convolution reads for the outputs that are wanted.
//
// Outputs, or tiles of them, read a lattice of rows and columns from their start on: the columns of
// all starts of one row are marked in a line first, which then goes into every row of the lattice.
// Padding and upsampling only change addresses, see load.h.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "convolution/load.h"

namespace inpaint {
namespace INPAINT_ISA {

// Coordinates that an output of direct sums reads along one axis, from its start on.
inline std::vector<int64_t> reads_of_output(int64_t kernel, int64_t dilation) {
  std::vector<int64_t> reads;
  for (int64_t tap = 0; tap < kernel; ++tap) reads.push_back(tap * dilation);
  return reads;
}

class Reads {
 public:
  // `extent`: coordinates of the padded, upsampled input. `rows`, `columns`: read from a start on.
  Reads(const ConvArgs& a, Size2 extent, std::vector<int64_t> rows, std::vector<int64_t> columns)
      : args_(a),
        extent_(extent),
        rows_(std::move(rows)),
        columns_(std::move(columns)),
        line_(size_t(extent.x)),
        read_(size_t(extent.y * extent.x)) {}

  // Adds a start; those of one row come one after the other.
  void add(int64_t y, int64_t x) {
    if (y != row_) spread();
    row_ = y;
    for (const int64_t column : columns_) line_[size_t(x + column)] = 1;
  }

  // Marks in the parts what image n reads for the starts that were added, and forgets them.
  void mark(int64_t n) {
    spread();
    for (const Part& part : args_.parts) {
      const auto rows =
          axis_map(part.height, part.upsample, padding_of(args_).y, args_.padding_mode, extent_.y);
      const auto columns =
          axis_map(part.width, part.upsample, padding_of(args_).x, args_.padding_mode, extent_.x);
      for (int64_t y = 0; y < extent_.y; ++y) {
        if (rows[size_t(y)] < 0) continue;
        uint8_t* to = part.reads + (n * part.height + rows[size_t(y)]) * part.width;
        const uint8_t* from = read_.data() + y * extent_.x;
        for (int64_t x = 0; x < extent_.x; ++x)
          if (from[x] && columns[size_t(x)] >= 0) to[columns[size_t(x)]] = 1;
      }
    }
    std::fill(read_.begin(), read_.end(), uint8_t(0));
  }

 private:
  void spread() {
    if (row_ < 0) return;
    for (const int64_t row : rows_) {
      uint8_t* to = read_.data() + (row_ + row) * extent_.x;
      for (int64_t x = 0; x < extent_.x; ++x) to[x] |= line_[size_t(x)];
    }
    std::fill(line_.begin(), line_.end(), uint8_t(0));
    row_ = -1;
  }

  const ConvArgs& args_;
  const Size2 extent_;
  const std::vector<int64_t> rows_, columns_;
  int64_t row_ = -1;
  std::vector<uint8_t> line_, read_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
