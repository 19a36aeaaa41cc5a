// Gate and activation as passes of their own: behind a library's convolution, and backward.
#pragma once

#include "convolution/conv.h"

namespace inpaint {

// Images (N, H, W, C) seen as (pixels, channels).
struct EpilogueArgs {
  const float* z;      // (pixels, filters): sums without bias
  const float* bias;   // null: none
  const float* scale;  // (pixels of one or all images); null: none. See ConvArgs.
  const float* share;
  int64_t image_pixels, scale_stride_n;
  int64_t pixels, filters;
  bool gated;
  Activation activation;
  float* y;      // (pixels, filters or filters / 2); may be z unless gated
  float* z_out;  // null, or where the sums after ratio and bias go; may be z
  int threads;
};

struct EpilogueBackwardArgs {
  const float* grad;  // (pixels, filters or filters / 2)
  const float* z;     // (pixels, filters): what went into activation and gate
  bool from_result;   // z is what came out of the activation; never with a gate or SiLU
  int64_t pixels, filters;
  bool gated;
  Activation activation;
  float* grad_z;      // (pixels, filters); null: only the bias's gradient is wanted
  double* grad_bias;  // (filters), or null
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void epilogue(const EpilogueArgs& args);
  void epilogue_backward(const EpilogueBackwardArgs& args);
)
// clang-format on

}  // namespace inpaint
