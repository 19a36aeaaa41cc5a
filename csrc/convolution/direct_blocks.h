// Blocks of outputs of a direct convolution, and the pixels that they read.
//
// Part of direct.cpp.
#pragma once

#include <utility>

#include "convolution/conv.h"

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

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
