// Tiles of the Winograd kernels: where they lie, and their transformed inputs.
#pragma once

#include <vector>

#include "conv_load.h"
#include "conv_store.h"
#include "winograd.h"

namespace inpaint {
namespace INPAINT_ISA {

// First output of a tile; its outputs lie `dilation` apart.
struct Tile {
  int64_t n, y, x;
};

// Distance in floats between the transformed channels of two tiles: never near a multiple of 4096
// bytes, or the rows of a register tile would meet in one set of the L1 cache.
inline int64_t padded_channels(int64_t channels) {
  const int64_t rounded = round_up(channels, Simd<float>::kWidth);
  return rounded % 128 == 0 ? rounded + 16 : rounded;
}

// Starts of tiles along one axis: interleaved grids, one for each remainder modulo the dilation.
inline std::vector<int64_t> tile_starts(int64_t begin, int64_t end, int64_t dilation) {
  std::vector<int64_t> starts;
  for (int64_t phase = 0; phase < dilation; ++phase)
    for (int64_t at = begin + phase; at < end; at += kTile * dilation) starts.push_back(at);
  return starts;
}

// `room`: floats up to the next tile; a vector's spare lanes may spill into later channels, which
// are written afterwards, but not into another tile.
template <class T>
void transform_vector(
    const float* const* from, int64_t c, int64_t left, float* to, int64_t room, int64_t plane) {
  constexpr int W = Simd<float>::kWidth, R = T::kReads, I = T::kInputs;
  Vector<float> patch[R * R], half[I * R];
  if (left >= W) {
    for (int i = 0; i < R * R; ++i) patch[i] = load(from[i] + c);
  } else {
    for (int i = 0; i < R * R; ++i) patch[i] = load_first(from[i] + c, left);
  }
#pragma GCC unroll 6
  for (int j = 0; j < R; ++j) {
    Vector<float> out[I];
    T::input(patch + j, R, out);
    for (int i = 0; i < I; ++i) half[i * R + j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < I; ++i) {
    Vector<float> out[I];
    T::input(half + i * R, 1, out);
    for (int j = 0; j < I; ++j) store_first(to + (i * I + j) * plane, out[j], room);
  }
}

template <class T>
void transform_tile(const ConvArgs& a,
                    const Source& source,
                    const Tile& tile,
                    float* to,
                    int64_t stride,
                    int64_t plane) {
  int64_t begin = 0;
  int part = 0;
  for (const int64_t end : source.part_end()) {
    const float* from[T::kReads * T::kReads];
    for (int i = 0; i < T::kReads; ++i)
      for (int j = 0; j < T::kReads; ++j)
        from[i * T::kReads + j] = source.at(tile.n,
                                            tile.y + T::read_at[i] * a.dilation.y,
                                            tile.x + T::read_at[j] * a.dilation.x,
                                            part);
    for (int64_t c = begin; c < end; c += Simd<float>::kWidth)
      transform_vector<T>(from, c, end - c, to + c, stride - c, plane);
    begin = end;
    ++part;
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
