// Blocks of outputs of a direct convolution, their runs, and the pixels that they read.
//
// Part of direct.cpp.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "base/simd.h"
#include "convolution/conv.h"
#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// First output of a block; its outputs lie `grid` apart.
struct Block {
  int64_t n, y, x, rows, columns;
};

// How blocks lie in the output and what they read.
struct Plan {
  Size2 grid;      // distance of a block's outputs
  Size2 dilation;  // left inside a block

  explicit Plan(const ConvArgs& a) : grid{1, 1}, dilation(a.dilation) {
    if (a.stride.y == 1) std::swap(grid.y, dilation.y);
    if (a.stride.x == 1) std::swap(grid.x, dilation.x);
  }

  // Rows and columns of input that a number of outputs reads.
  Size2 reach(const ConvArgs& a, Size2 outputs) const {
    return {(outputs.y - 1) * a.stride.y + (a.kernel.y - 1) * dilation.y + 1,
            (outputs.x - 1) * a.stride.x + (a.kernel.x - 1) * dilation.x + 1};
  }
};

// Pixel (i, j) of what a block reads lies at data + i * row_stride + j * pixel_stride.
struct Input {
  const float* data;
  int64_t row_stride, pixel_stride;

  // The first tap of output (row, column) of the block.
  const float* at(const ConvArgs& a, int64_t row, int64_t column) const {
    return data + row * a.stride.y * row_stride + column * a.stride.x * pixel_stride;
  }
};

// Outputs of a run, at most.
constexpr int64_t kMostRun = 128;

// Numbers of `count` stored pixels of a block's row, -1: not wanted. Returns whether any that is
// wanted sees something valid.
bool pixels_of(const ConvArgs& a,
               const Plan& plan,
               const Block& block,
               int64_t row,
               int64_t column,
               int64_t count,
               int64_t* pixel) {
  const int64_t y = block.y + row * plan.grid.y, x = block.x + column * plan.grid.x;
  const int64_t first = stored_pixel(a, block.n, y, x);
  const float* update_mask =
      a.update_mask ? a.update_mask + block.n * a.mask_stride_n + y * a.out_width + x : nullptr;
  if (!a.wanted && !update_mask) {
    for (int64_t p = 0; p < count; ++p) pixel[p] = first + p * plan.grid.x * a.store_step.x;
    return true;
  }
  bool seen = false;
  for (int64_t p = 0; p < count; ++p) {
    pixel[p] = -1;
    if (!is_wanted(a, block.n, y, x + p * plan.grid.x)) continue;
    pixel[p] = first + p * plan.grid.x * a.store_step.x;
    seen = seen || !update_mask || update_mask[p * plan.grid.x] != 0;
  }
  return seen;
}

// Calls body(row, first column, count, pixel numbers) for runs of up to `most` outputs of a block;
// those that see nothing valid become zero.
template <class Body>
void each_run(
    const ConvArgs& a, const Plan& plan, const Block& block, int64_t most, const Body& body) {
  const int64_t runs = ceil_div(block.columns, most);
  for (int64_t row = 0; row < block.rows; ++row)
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t begin = block.columns * run / runs, end = block.columns * (run + 1) / runs;
      int64_t pixel[kMostRun];
      if (pixels_of(a, plan, block, row, begin, end - begin, pixel)) {
        body(row, begin, end - begin, pixel);
      } else {
        for (int64_t p = 0; p < end - begin; ++p)
          if (pixel[p] >= 0) clear_pixel(a, block.n, pixel[p]);
      }
    }
}

// Sizes and number of the blocks of one image; the interleaved grids one after the other.
struct Blocks {
  const ConvArgs& args;
  const Plan& plan;
  Size2 most;   // outputs of a block
  Size2 count;  // blocks along each axis, all grids together

  Blocks(const ConvArgs& a, const Plan& p, Size2 outputs) : args(a), plan(p), most(outputs) {
    count = {ceil_div(ceil_div(a.out_height, plan.grid.y), most.y) * plan.grid.y,
             ceil_div(ceil_div(a.out_width, plan.grid.x), most.x) * plan.grid.x};
  }

  // May be empty, where a grid is shorter than the first.
  Block at(int64_t number) const {
    const int64_t by = number / count.x % count.y, bx = number % count.x;
    Block block;
    block.n = number / (count.x * count.y);
    block.y = by % plan.grid.y + by / plan.grid.y * most.y * plan.grid.y;
    block.x = bx % plan.grid.x + bx / plan.grid.x * most.x * plan.grid.x;
    block.rows = std::min(most.y, ceil_div(args.out_height - block.y, plan.grid.y));
    block.columns = std::min(most.x, ceil_div(args.out_width - block.x, plan.grid.x));
    return block;
  }

  // The blocks of all images, each no larger than what is wanted of it; none is empty.
  std::vector<Block> all() const {
    std::vector<Block> blocks;
    for (int64_t number = 0; number < args.batch * count.y * count.x; ++number) {
      const Block block = args.wanted ? wanted_of(at(number)) : at(number);
      if (block.rows > 0 && block.columns > 0) blocks.push_back(block);
    }
    return blocks;
  }

 private:
  Block wanted_of(const Block& block) const {
    int64_t top = block.rows, bottom = 0, left = block.columns, right = 0;
    for (int64_t row = 0; row < block.rows; ++row)
      for (int64_t column = 0; column < block.columns; ++column) {
        const int64_t y = block.y + row * plan.grid.y, x = block.x + column * plan.grid.x;
        if (!is_wanted(args, block.n, y, x)) continue;
        top = std::min(top, row);
        bottom = row + 1;
        left = std::min(left, column);
        right = std::max(right, column + 1);
      }
    return {block.n,
            block.y + top * plan.grid.y,
            block.x + left * plan.grid.x,
            bottom - top,
            right - left};
  }
};

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
