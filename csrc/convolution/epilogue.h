// Bias, activation and gate as passes of their own: after sums of unpacked weights, after a
// library's convolution, and backward.
#pragma once

#include "convolution/conv.h"

namespace inpaint {

// Images (N, H, W, C) seen as (pixels, channels).
struct EpilogueArgs {
  const float* sums;        // (pixels, filters), without bias
  const float* bias;        // null: none
  const float* mask_ratio;  // (pixels of one or all images); null: none. See ConvArgs.
  const float* update_mask;
  int64_t image_pixels, mask_stride_n;
  int64_t pixels, filters;
  bool gated;
  Activation activation;
  float* y;               // (pixels, filters or filters / 2); may be `sums` unless gated
  float* pre_activation;  // (pixels, filters), sums after ratio and bias; may be `sums`; or null
  int threads;
};

struct EpilogueBackwardArgs {
  const float* grad;   // (pixels, filters or filters / 2)
  const float* saved;  // (pixels, filters): the pre-activation, or the result if `from_result`
  bool from_result;    // never with a gate or SiLU
  int64_t pixels, filters;
  bool gated;
  Activation activation;
  float* grad_pre_activation;  // (pixels, filters); null: only the bias's gradient is wanted
  double* grad_bias;           // (filters), or null
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void epilogue(const EpilogueArgs& args);
  void epilogue_backward(const EpilogueBackwardArgs& args);
)
// clang-format on

}  // namespace inpaint
