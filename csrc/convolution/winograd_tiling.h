// Tiles of the Winograd kernels: where they lie, and their transformed inputs.
#pragma once

#include <algorithm>
#include <vector>

#include "base/gemm.h"
#include "convolution/load.h"
#include "convolution/store.h"
#include "convolution/winograd_large_tile.h"
#include "convolution/winograd_transforms.h"

namespace inpaint {
namespace INPAINT_ISA {

// First output of a tile; its outputs lie a grid's step apart: the dilation.
struct Tile {
  int64_t n, y, x;
};

// One axis of a kernel in parts. Tap t of part p is kernel tap first[p] + t * tap_step; input i of
// a tile that begins at output o is read at o * stride + first[p] * dilation + i * read_step.
struct Axis {
  std::vector<int64_t> first;
  // Whether a part has its last tap. Where it has not, its weight at infinity is zero, and the
  // last of a tile's products goes without it.
  std::vector<bool> full;
  int64_t tap_step, read_step;

  Axis(int64_t kernel, int64_t stride, int64_t dilation, int taps)
      : tap_step(stride), read_step(stride > 1 ? stride : dilation) {
    for (int64_t phase = 0; phase < std::min(stride, kernel); ++phase)
      for (int64_t tap = phase; tap < kernel; tap += taps * stride) {
        first.push_back(tap);
        full.push_back(tap + (taps - 1) * stride < kernel);
      }
  }

  // Parts that the last product of a tile, or another one, takes.
  int64_t taking(bool last) const {
    return last ? std::count(full.begin(), full.end(), true) : int64_t(first.size());
  }
};

// Neighbouring channels of parts: begin <= c < end.
struct DepthRun {
  int64_t begin, end;
};

// How a convolution falls into tiles: parts along both axes, and the distance of a tile's outputs.
template <class T>
struct Layout {
  Axis rows, columns;
  Size2 grid;

  Layout(Size2 kernel, Size2 stride, Size2 dilation)
      : rows(kernel.y, stride.y, dilation.y, T::kTaps),
        columns(kernel.x, stride.x, dilation.x, T::kTaps),
        grid(dilation) {}
  explicit Layout(const ConvArgs& a) : Layout(a.kernel, a.stride, a.dilation) {}
  explicit Layout(const PackArgs& a) : Layout(a.kernel, a.stride, {1, 1}) {}

  Size2 read_step() const { return {rows.read_step, columns.read_step}; }
  int64_t parts() const { return int64_t(rows.first.size() * columns.first.size()); }

  // What products with and without the last row and the last column of a tile sum: parts of
  // `channels` each. Nothing where none has its last tap: such a product is zero.
  std::vector<DepthRun> runs(bool last_row, bool last_column, int64_t channels) const {
    std::vector<DepthRun> found;
    int64_t begin = 0;
    for (const bool row : rows.full)
      for (const bool column : columns.full) {
        const int64_t end = begin + channels;
        if ((row || !last_row) && (column || !last_column)) {
          if (!found.empty() && found.back().end == begin) {
            found.back().end = end;
          } else {
            found.push_back({begin, end});
          }
        }
        begin = end;
      }
    return found;
  }

  // Products of a channel and a filter in a tile.
  int64_t products() const {
    const auto along = [](const Axis& axis) {
      return (T::kProducts - 1) * axis.taking(false) + axis.taking(true);
    };
    return along(rows) * along(columns);
  }

  // Coordinates that tiles may ask for, those of unwanted outputs included.
  Size2 extent(const ConvArgs& a) const {
    const auto along = [](const Axis& axis, int64_t outputs, int64_t stride, int64_t dilation) {
      const int64_t last = *std::max_element(axis.first.begin(), axis.first.end());
      return outputs * stride + last * dilation + T::read_at[T::kReads - 1] * axis.read_step;
    };
    return {along(rows, a.out_height + a.lead.y, a.stride.y, a.dilation.y),
            along(columns, a.out_width + a.lead.x, a.stride.x, a.dilation.x)};
  }
};

// Coordinates that a tile reads along one axis, from its start on.
template <class T>
std::vector<int64_t> reads_of_tile(const Axis& axis, int64_t dilation) {
  std::vector<int64_t> reads;
  for (const int64_t first : axis.first)
    for (int i = 0; i < T::kReads; ++i)
      reads.push_back(first * dilation + T::read_at[i] * axis.read_step);
  std::sort(reads.begin(), reads.end());
  reads.erase(std::unique(reads.begin(), reads.end()), reads.end());
  return reads;
}

// Calls body(part, y, x) with the first pixel that each part of the kernel reads for a tile.
template <class T, class Body>
void each_part(const ConvArgs& a, const Layout<T>& layout, const Tile& tile, const Body& body) {
  int64_t part = 0;
  for (const int64_t row : layout.rows.first)
    for (const int64_t column : layout.columns.first)
      body(part++,
           (tile.y + a.lead.y) * a.stride.y + row * a.dilation.y,
           (tile.x + a.lead.x) * a.stride.x + column * a.dilation.x);
}

// Distance in floats between the transformed channels of two tiles: never near a multiple of 4096
// bytes, or the rows of a register tile would meet in one set of the L1 cache.
inline int64_t padded_channels(int64_t channels) {
  const int64_t rounded = round_up(channels, Simd<float>::kWidth);
  return rounded % 128 == 0 ? rounded + 16 : rounded;
}

// The same convolution with its tiles where its anchor asks for them.
template <class T>
ConvArgs anchored(const ConvArgs& a, Size2 grid) {
  const auto lead = [&](int64_t anchor, int64_t step) {
    // Tiles of a doubled image begin at even outputs.
    if (a.algorithm == Algorithm::kWinograd4x3Upsampled) anchor = anchor / 2 * 2;
    const int64_t tile = T::kOutputs * step;
    return (tile - anchor % tile) % tile;
  };
  ConvArgs placed = a;
  placed.lead = {lead(a.anchor.y, grid.y), lead(a.anchor.x, grid.x)};
  return placed;
}

// Starts of tiles along one axis: interleaved grids, one for each remainder modulo the grid's step.
inline std::vector<int64_t> tile_starts(int64_t begin,
                                        int64_t end,
                                        int64_t grid,
                                        int64_t outputs = kTile) {
  std::vector<int64_t> starts;
  for (int64_t phase = 0; phase < std::min(grid, end - begin); ++phase)
    for (int64_t at = begin + phase; at < end; at += outputs * grid) starts.push_back(at);
  return starts;
}

// Returns whether one product after the other of many tiles pays: against weights read anew for
// every block of tiles stand inputs and products that leave L2. `depth`: parts x channels; `lanes`:
// of all panels of filters. 3x3 on one Zen 4 core: 1024 -> 512 channels, 16^2, 11.5 ms fused
// and 7.5 staged; 768 -> 256, 64^2, 48 and 43; 256 -> 256, 64^2, 14.8 and 16.3; 384 -> 128, 128^2,
// 41 and 44.
// Large tiles have more weights for as many outputs, so they gain earlier.
inline bool staging_pays(int64_t tiles, int64_t depth, int64_t lanes, bool large) {
  return tiles > kRowTile && depth * lanes >= (large ? 96 : 160) * (depth + lanes);
}

// B^T d B of a vector of channels: read(i, j) gives those of a pixel. `room`: floats up to the next
// tile; a vector's spare lanes may spill into later channels, which are written afterwards, but not
// into another tile.
template <class T, class Read>
inline __attribute__((always_inline)) void transform_input(const Read& read,
                                                           float* to,
                                                           int64_t room,
                                                           int64_t plane) {
  transform_axes<T::kReads, T::kInputs>(
      read,
      [](const Vector<float>* d, Vector<float>* out) INPAINT_INLINED { T::input(d, 1, out); },
      [&](int i, int j, Vector<float> v)
          INPAINT_INLINED { store_first(to + (i * T::kInputs + j) * plane, v, room); });
}

template <class T>
void transform_vector(
    const float* const* from, int64_t c, int64_t left, float* to, int64_t room, int64_t plane) {
  constexpr int W = Simd<float>::kWidth, R = T::kReads;
  if (left >= W) {
    transform_input<T>(
        [&](int i, int j) INPAINT_INLINED { return load(from[i * R + j] + c); }, to, room, plane);
  } else {
    transform_input<T>([&](int i, int j)
                           INPAINT_INLINED { return load_first(from[i * R + j] + c, left); },
                       to,
                       room,
                       plane);
  }
}

// The pixels that a tile reads of one image.
template <class T>
class Lattice {
 public:
  static constexpr int kPixels = T::kReads * T::kReads;

  // `image`: kept, not copied. `step`: from one pixel to the next, in both directions.
  Lattice(const SourcePart& image, Size2 step) : image_(&image), step_(step) {
    for (int i = 0; i < T::kReads; ++i)
      for (int j = 0; j < T::kReads; ++j)
        offsets_[i * T::kReads + j] = T::read_at[i] * step.y * image.row_stride() +
                                      T::read_at[j] * step.x * image.pixel_stride();
  }

  const SourcePart& image() const { return *image_; }

  // Their addresses, where the first one is (y, x).
  void find(int64_t n, int64_t y, int64_t x, const float** from) const {
    constexpr int64_t last = T::read_at[T::kReads - 1];
    if (image_->is_window(y, x, last * step_.y + 1, last * step_.x + 1)) {
      const float* first = image_->at(n, y, x);
      for (int i = 0; i < kPixels; ++i) from[i] = first + offsets_[i];
      return;
    }
    int64_t rows[T::kReads], columns[T::kReads];
    for (int i = 0; i < T::kReads; ++i) {
      rows[i] = y + T::read_at[i] * step_.y;
      columns[i] = x + T::read_at[i] * step_.x;
    }
    image_->lattice(n, rows, columns, from);
  }

 private:
  const SourcePart* image_;
  Size2 step_;
  int64_t offsets_[kPixels];
};

template <class T>
std::vector<Lattice<T>> lattices_of(const Source& source, const Layout<T>& layout) {
  std::vector<Lattice<T>> lattices;
  for (const SourcePart& image : source) lattices.emplace_back(image, layout.read_step());
  return lattices;
}

// Calls body with the tile of an algorithm that has none of the large ones.
template <class Body>
auto with_small_tile(Algorithm algorithm, const Body& body) {
  switch (algorithm) {
    case Algorithm::kWinograd4x3Upsampled:
      return body(Tile4x3Upsampled{});
    case Algorithm::kWinograd5x2:
      return body(PointTile<2>{});
    case Algorithm::kWinograd4x2:
      return body(Tile4x2{});
    case Algorithm::kWinograd3x4:
      return body(PointTile<4>{});
    default:
      return body(PointTile<3>{});
  }
}

// Calls body with the tile of an algorithm.
template <class Body>
auto with_tile(Algorithm algorithm, const Body& body) {
  switch (algorithm) {
    case Algorithm::kWinograd5x4:
      return body(LargeTile<4>{});
    case Algorithm::kWinograd4x5:
      return body(LargeTile<5>{});
    default:
      return with_small_tile(algorithm, body);
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
