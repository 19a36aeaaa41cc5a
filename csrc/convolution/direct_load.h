// The load stage of direct sums: a block's pixels as a dense image (rows, columns, channels).
//
// Where the image itself is that already it is read in place. Traffic otherwise: what a block reads
// with its halo, once, in runs of pixels that lie together.
//
// Part of direct.cpp.
#pragma once

#include <algorithm>
#include <cstring>

#include "convolution/direct_blocks.h"
#include "convolution/load.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <int SIZE>
inline void copy_thin(
    const float* from, int64_t from_step, int64_t count, float* to, int64_t step) {
  for (int64_t j = 0; j < count; ++j)
    for (int c = 0; c < SIZE; ++c) to[j * step + c] = from[j * from_step + c];
}

// `count` pixels of `size` adjacent channels.
inline void copy_pixels(
    const float* from, int64_t from_step, int64_t count, int64_t size, float* to, int64_t step) {
  if (from_step == size && step == size) {
    std::memcpy(to, from, size_t(count * size) * sizeof(float));
    return;
  }
  // A call for the few bytes of an RGB pixel costs more than the loop.
  switch (size) {
    case 1:
      return copy_thin<1>(from, from_step, count, to, step);
    case 2:
      return copy_thin<2>(from, from_step, count, to, step);
    case 3:
      return copy_thin<3>(from, from_step, count, to, step);
    case 4:
      return copy_thin<4>(from, from_step, count, to, step);
    case 5:
      return copy_thin<5>(from, from_step, count, to, step);
    default:
      for (int64_t j = 0; j < count; ++j)
        std::memcpy(to + j * step, from + j * from_step, size_t(size) * sizeof(float));
  }
}

// Whether the image lies as the kernel rows of direct sums are read: taps side by side.
inline bool is_dense(const ConvArgs& a, const Plan& plan, const SourcePart& part) {
  return a.parts.size() == 1 && plan.grid.y == 1 && plan.grid.x == 1 &&
         (part.pixel_stride() == a.channels || a.kernel.x == 1);
}

// What a block reads: `scratch`, filled, or the image.
inline Input load_block(
    const ConvArgs& a, const Plan& plan, const Source& source, const Block& block, float* scratch) {
  const Size2 reach = plan.reach(a, {block.rows, block.columns});
  const int64_t y = block.y * a.stride.y, x = block.x * a.stride.x;
  const SourcePart& first = *source.begin();
  if (is_dense(a, plan, first) && first.is_window(y, x, reach.y, reach.x))
    return {first.at(block.n, y, x), first.row_stride(), first.pixel_stride()};
  const int64_t row_stride = reach.x * a.channels;
  for (const SourcePart& part : source) {
    const int64_t size = part.end - part.begin, step = plan.grid.x * part.pixel_stride();
    for (int64_t i = 0; i < reach.y; ++i) {
      float* row = scratch + i * row_stride + part.begin;
      part.each_run(block.n,
                    y + i * plan.grid.y,
                    x,
                    plan.grid.x,
                    reach.x,
                    [&](int64_t j, int64_t count, const float* from) {
                      float* to = row + j * a.channels;
                      if (!from) {
                        for (int64_t p = 0; p < count; ++p)
                          std::fill_n(to + p * a.channels, size, 0.0f);
                      } else {
                        copy_pixels(from, step, count, size, to, a.channels);
                      }
                    });
    }
  }
  return {scratch, row_stride, a.channels};
}

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
