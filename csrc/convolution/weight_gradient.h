// Gradients of convolution weights.
#pragma once

#include "convolution/conv.h"

namespace inpaint {

struct WeightGradientArgs {
  // x and where it is read. Of the rest only the sizes, `filters` and `threads` count.
  ConvArgs conv;
  const float* grad;   // (N, out_height, out_width, filters): the gradient of the sums
  float* grad_weight;  // (filters, channels, kernel.y, kernel.x)
};

// Every result is the same for any number of threads.
// clang-format off
INPAINT_EACH_ISA(
  // Any kernel, stride and dilation.
  void weight_gradient_direct(const WeightGradientArgs& args);
  // Convolutions that winograd_takes approves.
  void weight_gradient_winograd(const WeightGradientArgs& args);
)
// clang-format on

}  // namespace inpaint
