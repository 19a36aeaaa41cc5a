// vote_patches: a pixel as the mean of the matched patches that cover it.
// Algebra and weights: matching/vote_patches.cpp.
#pragma once

#include "matching/nearest_patch.h"

namespace inpaint {

struct VotePatchesArgs {
  int64_t channels, height, width, patch;  // of the window that is voted for
  int64_t features_height, features_width;
  ImageView<float> features;  // pixels that patches are copied from
  const uint8_t* hole;        // (H, W), pixels that take votes
  // (H - patch + 1, W - patch + 1), on the grid of patches of `features`; negative: no match
  const int64_t* index;
  const float* distance;  // squared, of the match
  const float* penalty;   // minus the logarithm of the weight of a patch's vote
  bool best;              // copy from the nearest match instead of averaging
  float* out;             // packed (C, H, W); only hole pixels are written
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void vote_patches(const VotePatchesArgs& args);
)
// clang-format on

}  // namespace inpaint
