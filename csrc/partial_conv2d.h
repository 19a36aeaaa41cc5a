// Window sums of a binary validity mask.
#pragma once

#include "conv.h"

namespace inpaint {

struct WindowCountArgs {
  const uint8_t* valid;  // (N, parts, H, W), zero: hole
  int64_t batch, parts, height, width;
  const int64_t* weights;  // (parts): channels that share a mask
  Size2 kernel, stride, padding, dilation;
  int64_t out_height, out_width;
  int64_t* counts;  // (N, Ho, Wo)
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void window_counts(const WindowCountArgs& args);
)
// clang-format on

}  // namespace inpaint
