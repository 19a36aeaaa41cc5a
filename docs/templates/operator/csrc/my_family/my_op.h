// Every channel of (N, C, P) float images times a factor of its own.
#pragma once

#include "base/cpu.h"

namespace inpaint {

// y = x * weight[channel] * factor, over P pixels.
struct MyOpArgs {
  int64_t batch, channels, pixels;
  const float* x;
  const float* weight;  // (C)
  float* y;
  float factor;
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void my_op(const MyOpArgs& args);
)
// clang-format on

}  // namespace inpaint
