// What each core of a convolution takes: asked by the cores themselves and by the choice of one.
#pragma once

#include "base/simd.h"
#include "convolution/conv.h"

namespace inpaint {
namespace INPAINT_ISA {

// So few would leave most lanes of a panel empty.
constexpr int64_t kFewFilters = 4;

// Whether the direct core sums along the lanes, see Dots in convolution/direct.cpp.
inline bool few_filters(int64_t filters, bool gated) { return !gated && filters <= kFewFilters; }

// Whether the direct core takes a convolution: sums along the lanes need dense rows.
inline bool is_direct(int64_t filters, bool gated, Size2 stride, Size2 dilation) {
  return !few_filters(filters, gated) || stride.x == 1 || dilation.x == 1;
}

// Whether a kernel falls into parts of a Winograd core.
inline bool is_tiled(Size2 stride, Size2 dilation) {
  return (stride.y == 1 || dilation.y == 1) && (stride.x == 1 || dilation.x == 1);
}

// Whether it is that of Core::kWinogradDoubled.
inline bool is_doubled(Size2 kernel, Size2 stride, Size2 dilation, Size2 padding, int upsample) {
  const auto both = [](Size2 size, int64_t value) { return size.y == value && size.x == value; };
  return upsample == 2 && both(kernel, 3) && both(stride, 1) && both(dilation, 1) &&
         both(padding, 1);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
