// Planes of a partial convolution: what its masks make of sums and bias, forward and backward.
#pragma once

#include <vector>

#include "convolution/conv.h"

namespace inpaint {

// The mask of one tensor, (N or 1, planes, height, width), seen upsampled. One of the two: bytes
// count where not 0, numbers as they are.
struct MaskPart {
  const uint8_t* known;
  const float* soft;
  int64_t stride_n, height, width;
  int upsample;
  std::vector<int32_t> weights;  // of the planes
};

// With S the weighted sum of all masks under a window, zero padding invalid:
//   by_sum:  update_mask = [S != 0], mask_ratio = update_mask / S
//   else:    update_mask = clamp(S, 0, 1), mask_ratio = total / (S + 1e-8) * update_mask, again *
//   update_mask if `biased`
struct MaskPlanesArgs {
  std::vector<MaskPart> parts;  // of one size after their upsampling
  int64_t batch;
  Size2 kernel, stride, padding, dilation;
  int64_t out_height, out_width;
  float total;
  bool by_sum, biased;
  float* mask_ratio;  // (N, Ho, Wo)
  float* update_mask;
  int threads;
};

// The backward pass of y = sums mask_ratio + bias update_mask; the gradient is not read where
// update_mask is 0.
struct MaskRatioBackwardArgs {
  const float* grad;        // (N, H, W, filters), of y
  const float* mask_ratio;  // (N or 1, H, W)
  const float* update_mask;
  int64_t image_pixels, mask_stride_n;
  int64_t pixels, filters;  // pixels of all images
  float* grad_sums;         // like grad
  double* grad_bias;        // (filters), or null
  int threads;
};

// An image of any strides, zeroed where its mask is.
struct HideMissingArgs {
  float* image;  // (N, C, H, W)
  int64_t batch, height, width;
  int64_t stride_n, stride_c, stride_h, stride_w;
  const uint8_t* known;  // (N or 1, planes, H, W)
  int64_t known_stride_n;
  std::vector<int64_t> widths;  // channels that each plane speaks for
  int threads;
};

enum class MaskKind { kBinary, kSoft };

// clang-format off
INPAINT_EACH_ISA(
  void mask_planes(const MaskPlanesArgs& args);
  void mask_ratio_backward(const MaskRatioBackwardArgs& args);
  void hide_missing(const HideMissingArgs& args);
  // Where numbers are not 0, and whether all of them are 0 or 1.
  MaskKind known_bytes(const float* values, int64_t count, uint8_t* known);
  MaskKind kind_of_bytes(const uint8_t* values, int64_t count);
  // Lengths of the runs of equal planes, of values (batch, planes, pixels).
  std::vector<int64_t> equal_planes(
      const uint8_t* values, int64_t batch, int64_t planes, int64_t pixels);
)
// clang-format on

}  // namespace inpaint
