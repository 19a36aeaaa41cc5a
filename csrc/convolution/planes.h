// Images from planes to pixels and back, and convolutions of images in planes.
#pragma once

#include <vector>

#include "convolution/conv.h"

namespace inpaint {

// An image in both layouts: (N, channels, height, width) planes with strides, the pixels of a row
// side by side; (N, height, width, channels) pixels without gaps.
template <class Planes, class Pixels>
struct LayoutArgs {
  Planes* planes;
  Pixels* pixels;
  int64_t batch, channels, height, width;
  int64_t stride_n, stride_c, stride_y;  // of the planes
  // Of the planes, those that change: bytes (N or 1, height, width). Null: all.
  const uint8_t* wanted;
  int64_t wanted_stride_n;
  int threads;
};
using ToPixelsArgs = LayoutArgs<const float, float>;
using ToPlanesArgs = LayoutArgs<float, const float>;

// clang-format off
INPAINT_EACH_ISA(
  void to_pixels(const ToPixelsArgs& args);
  void to_planes(const ToPlanesArgs& args);
  // Runs convolutions of equal parts, `y` and `wanted`, such as the phases of a transposed one.
  void conv_all(const std::vector<ConvArgs>& jobs);
)
// clang-format on

}  // namespace inpaint
