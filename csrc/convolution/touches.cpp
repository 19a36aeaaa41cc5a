// Outputs that a changed pixel reaches, for sums of every algorithm.
//
// Outputs, or tiles of them, read a lattice of rows and columns from their start on. Each row of
// the padded, upsampled input is spread over the columns from which its pixels are read; a start is
// touched if one of its rows is, there. Rows without a change cost nothing.
#include "convolution/touches.h"

#include <algorithm>
#include <cstdint>

#include "convolution/reads.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Starts that read a changed pixel.
class Starts {
 public:
  // `extent`: coordinates of the padded, upsampled input.
  Starts(const ConvArgs& a,
         const std::vector<const uint8_t*>& changed,
         Size2 extent,
         std::vector<int64_t> rows,
         std::vector<int64_t> columns)
      : extent_(extent),
        rows_(std::move(rows)),
        columns_(std::move(columns)),
        any_(size_t(extent.y)),
        line_(size_t(extent.x)),
        spread_(size_t(extent.y * extent.x)) {
    for (size_t p = 0; p < a.parts.size(); ++p) {
      const Part& part = a.parts[p];
      const auto along = [&](int64_t size, int64_t padding, int64_t count) {
        return axis_map(size, part.upsample, padding, a.padding_mode, count);
      };
      images_.push_back({changed[p],
                         part.height,
                         part.width,
                         along(part.height, padding_of(a).y, extent.y),
                         along(part.width, padding_of(a).x, extent.x)});
    }
  }

  // Takes the changed pixels of image n.
  void load(int64_t n) {
    std::fill(spread_.begin(), spread_.end(), uint8_t(0));
    for (int64_t y = 0; y < extent_.y; ++y) {
      std::fill(line_.begin(), line_.end(), uint8_t(0));
      for (const Image& image : images_) {
        const int64_t row = image.rows[size_t(y)];
        if (row < 0) continue;
        const uint8_t* from = image.changed + (n * image.height + row) * image.width;
        for (int64_t x = 0; x < extent_.x; ++x) {
          const int64_t column = image.columns[size_t(x)];
          if (column >= 0 && from[column]) line_[size_t(x)] = 1;
        }
      }
      any_[size_t(y)] = std::any_of(line_.begin(), line_.end(), [](uint8_t v) { return v != 0; });
      if (!any_[size_t(y)]) continue;
      uint8_t* to = spread_.data() + y * extent_.x;
      for (const int64_t column : columns_)
        for (int64_t x = 0; x + column < extent_.x; ++x) to[x] |= line_[size_t(x + column)];
    }
  }

  bool touched(int64_t y, int64_t x) const {
    for (const int64_t row : rows_)
      if (any_[size_t(y + row)] && spread_[size_t((y + row) * extent_.x + x)]) return true;
    return false;
  }

 private:
  struct Image {
    const uint8_t* changed;
    int64_t height, width;
    std::vector<int64_t> rows, columns;
  };

  const Size2 extent_;
  const std::vector<int64_t> rows_, columns_;
  std::vector<Image> images_;
  // Of each row whether anything changed in it.
  std::vector<uint8_t> any_, line_, spread_;
};

void direct_touches(const TouchesArgs& args) {
  const ConvArgs& a = args.conv;
  Starts starts(a,
                args.changed,
                extent_of(a),
                reads_of_output(a.kernel.y, a.dilation.y),
                reads_of_output(a.kernel.x, a.dilation.x));
  for (int64_t n = 0; n < a.batch; ++n) {
    starts.load(n);
    for (int64_t y = 0; y < a.out_height; ++y)
      for (int64_t x = 0; x < a.out_width; ++x)
        if (starts.touched(y * a.stride.y, x * a.stride.x))
          args.touched[stored_pixel(a, n, y, x)] = 1;
  }
}

// All outputs of a tile that reads a changed pixel.
template <class T>
void tile_touches(const TouchesArgs& args) {
  const Layout<T> layout(args.conv);
  const Size2 grid = layout.grid;
  const ConvArgs a = anchored<T>(args.conv, grid);
  const auto rows = tile_starts(-a.lead.y, a.out_height, grid.y, T::kOutputs);
  const auto columns = tile_starts(-a.lead.x, a.out_width, grid.x, T::kOutputs);
  Starts starts(a,
                args.changed,
                layout.extent(a),
                reads_of_tile<T>(layout.rows, a.dilation.y),
                reads_of_tile<T>(layout.columns, a.dilation.x));
  for (int64_t n = 0; n < a.batch; ++n) {
    starts.load(n);
    for (const int64_t row : rows)
      for (const int64_t column : columns) {
        if (!starts.touched((row + a.lead.y) * a.stride.y, (column + a.lead.x) * a.stride.x))
          continue;
        for (int64_t i = 0, y = row; i < T::kOutputs && y < a.out_height; ++i, y += grid.y)
          for (int64_t j = 0, x = column; j < T::kOutputs && x < a.out_width; ++j, x += grid.x)
            if (y >= 0 && x >= 0) args.touched[stored_pixel(a, n, y, x)] = 1;
      }
  }
}

}  // namespace

void conv_touches(const TouchesArgs& args) {
  if (args.conv.algorithm == Algorithm::kDirect) return direct_touches(args);
  with_tile(args.conv.algorithm, [&](auto tile) { tile_touches<decltype(tile)>(args); });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
