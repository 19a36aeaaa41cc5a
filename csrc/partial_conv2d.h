// Window sums of validity masks.
#pragma once

#include "conv.h"

namespace inpaint {

struct WindowCountArgs {
  const int32_t* known;  // (N, H, W): how many channels are valid
  int64_t batch, height, width;
  Size2 kernel, stride, padding, dilation;
  int64_t out_height, out_width;
  int32_t* counts;  // (N, Ho, Wo)
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void window_counts(const WindowCountArgs& args);
)
// clang-format on

}  // namespace inpaint
