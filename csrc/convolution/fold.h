// fold_padding: the gradient of an image from that of what a convolution reads of it.
#pragma once

#include "convolution/conv.h"

namespace inpaint {

// `padded` (N, height, width, channels): the gradient of the image after its upsampling and its
// padding, `before` pixels above and to the left. Each pixel of the result sums those that repeat
// it, in order: rows first.
struct FoldArgs {
  const float* padded;
  int64_t batch, channels, height, width;
  Size2 before, size;  // of the image
  int upsample;
  PaddingMode mode;
  float* out;
  int64_t stride_n, stride_c, stride_y, stride_x;  // of out
  int threads;
};

INPAINT_EACH_ISA(void fold_padding(const FoldArgs& args);)

}  // namespace inpaint
