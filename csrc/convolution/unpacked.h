// Convolutions of few pixels by many weights, which are read where they lie, once.
#pragma once

#include "convolution/conv.h"

namespace inpaint {

// `conv` as for the other algorithms, its whole output without `packed`, `wanted` and `y_streams`.
// Ordinary: weight (filters, channels, kernel.y, kernel.x). Transposed, also the gradient of an
// input with zero padding: weight (channels, filters, kernel.y, kernel.x), input pixel (i, j) adds
// tap (y, x) to pixel (i, j) * stride + (y, x) * dilation - padding of an image of `store_size`.
struct UnpackedArgs {
  ConvArgs conv;
  const float* weight;
};

// clang-format off
INPAINT_EACH_ISA(
  void conv_unpacked(const UnpackedArgs& args);
  void conv_unpacked_transposed(const UnpackedArgs& args);
)
// clang-format on

}  // namespace inpaint
