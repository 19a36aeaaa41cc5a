// instance_norm: normalisation of (N, P, C) or (N, C, P) float images, with activation and
// residual, and its gradient. Algebra and tiling: norm/instance_norm.cpp and
// instance_norm_backward.cpp.
#pragma once

#include "base/activation_codes.h"
#include "base/cpu.h"

namespace inpaint {

// n = (x - mean) * inverse * weight + bias for each sample and channel, over P pixels, with
// inverse = 1 / sqrt(variance + eps); y = activation(n) + residual.
struct InstanceNormArgs {
  int64_t batch, pixels, channels;
  bool channels_first;  // images are (N, C, P)
  const float* x;
  const float* weight;    // (C), null: ones
  const float* bias;      // (C), null: zeros
  const float* residual;  // like x, null: none
  float* mean;            // (N, C)
  float* inverse;         // (N, C)
  float* y;
  double eps;
  Activation activation;
  int threads;
};

// From the gradient of y those of x and, for each sample, of bias and weight.
struct InstanceNormBackwardArgs {
  int64_t batch, pixels, channels;
  bool channels_first;
  const float* grad;
  const float* x;
  const float* weight;
  const float* bias;
  const float* mean;
  const float* inverse;
  float* grad_x;
  double* grad_weight;  // (N, C)
  double* grad_bias;    // (N, C)
  Activation activation;
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void instance_norm(const InstanceNormArgs& args);
  void instance_norm_backward(const InstanceNormBackwardArgs& args);
)
// clang-format on

}  // namespace inpaint
