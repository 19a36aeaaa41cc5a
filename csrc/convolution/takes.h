// The convolutions that each algorithm takes: asked by the algorithms and by their choice.
#pragma once

#include "base/simd.h"
#include "convolution/conv.h"

namespace inpaint {
namespace INPAINT_ISA {

// So few would leave most lanes of a panel empty.
constexpr int64_t kFewFilters = 4;

// Returns whether direct sums go along the lanes, see Dots in convolution/direct.cpp.
inline bool few_filters(int64_t filters, bool gated) { return !gated && filters <= kFewFilters; }

// Channels of which planes are made to put pixels into the lanes.
constexpr int64_t kFewChannels = 48;

// Returns whether the lanes of direct sums for few filters are neighbouring pixels.
inline bool pixels_in_lanes(int64_t filters, bool gated, int64_t channels, Size2 stride) {
  return few_filters(filters, gated) && channels < kFewChannels && stride.x == 1;
}

// Returns whether direct sums take a convolution: sums along the lanes need dense rows.
inline bool is_direct(int64_t filters, bool gated, Size2 stride, Size2 dilation) {
  return !few_filters(filters, gated) || stride.x == 1 || dilation.x == 1;
}

// Returns whether Winograd's algorithms take a kernel: along each axis they cut a stride or a
// dilation, not both, into kernels with neither.
inline bool is_tiled(Size2 stride, Size2 dilation) {
  return (stride.y == 1 || dilation.y == 1) && (stride.x == 1 || dilation.x == 1);
}

// Returns whether a convolution is one of Algorithm::kWinograd4x3Upsampled.
inline bool is_upsampled_3x3(
    Size2 kernel, Size2 stride, Size2 dilation, Size2 padding, int upsample) {
  const auto both = [](Size2 size, int64_t value) { return size.y == value && size.x == value; };
  return upsample == 2 && both(kernel, 3) && both(stride, 1) && both(dilation, 1) &&
         both(padding, 1);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
