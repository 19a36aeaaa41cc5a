// nearest_patch: for every wanted query patch the best usable key patch.
// Algebra and tiling: matching/nearest_patch.cpp.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace inpaint {

// An (N, C, H, W) array with strides counted in elements; any layout.
template <class T>
struct ImageView {
  const T* data;
  int64_t stride_n, stride_c, stride_h, stride_w;
};

// A contiguous (N or 1, H, W) byte mask; stride_n is 0 where one mask serves every sample.
struct MaskView {
  const uint8_t* data;  // null: everything is one
  int64_t stride_n;
};

// Patch origins along an axis: 0, stride, 2 stride, ... and the last one that fits.
struct PatchAxis {
  int64_t last;  // last origin, size - patch; negative where no patch fits
  int64_t stride;
  int64_t count() const { return last < 0 ? 0 : (last + stride - 1) / stride + 1; }
  int64_t origin(int64_t i) const { return i * stride < last ? i * stride : last; }
  int64_t position(int64_t origin) const { return (origin + stride - 1) / stride; }
};

template <class T>
struct NearestPatchArgs {
  int64_t batch, channels;
  int64_t query_height, query_width, key_height, key_width;
  int64_t patch, stride, key_stride;
  bool cosine;  // else l2
  ImageView<T> query, key;
  MaskView valid;  // key pixels that may be used
  MaskView where;  // query patches to match, on the grid of query patches
  int64_t* index;  // (N, hq, wq), -1 where there is no match
  T* score;        // (N, hq, wq), -inf where there is no match; may be null
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  template <class T> void nearest_patch(const NearestPatchArgs<T>& args);
)
// clang-format on

}  // namespace inpaint
