// refine_patch: nearest key patch in the neighbourhood of guesses.
// Algebra and tiling: matching/refine_patch.cpp.
#pragma once

#include "matching/nearest_patch.h"

namespace inpaint {

template <class T>
struct RefinePatchArgs {
  int64_t batch, channels;
  int64_t query_height, query_width, key_height, key_width;
  int64_t patch, radius, reach;
  ImageView<T> query, key;
  MaskView valid;        // key pixels that may be used
  MaskView where;        // query patches to match
  const int64_t* guess;  // (N, hq, wq), negative where there is none
  int64_t* index;        // (N, hq, wq), -1 where there is no match
  T* distance;           // (N, hq, wq), squared; +inf where there is no match
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  template <class T> void refine_patch(const RefinePatchArgs<T>& args);
)
// clang-format on

}  // namespace inpaint
