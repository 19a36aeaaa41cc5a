// sum_neighbours: taps for the gradient of an image from that of its doubling.
#pragma once

#include "convolution/conv.h"

namespace inpaint {

// sums (filters, channels, kh + 1, kw + 1): tap t is the sum of taps t - 1 and t of the weight
// (filters, channels, kh, kw), along both axes.
struct TapSumsArgs {
  const float* weight;
  int64_t stride_filter, stride_channel, stride_y, stride_x;
  int64_t filters, channels;
  Size2 kernel;
  float* sums;
  int threads;
};

INPAINT_EACH_ISA(void sum_neighbours(const TapSumsArgs& args);)

}  // namespace inpaint
