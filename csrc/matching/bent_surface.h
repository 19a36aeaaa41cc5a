// bent_surface: the least bent surface through known pixels.
// Algebra: matching/bent_surface.cpp.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace inpaint {

struct BentSurfaceArgs {
  int64_t channels, height, width;
  const uint8_t* free;    // (H, W), pixels that move
  const uint8_t* inside;  // (H, W), pixels whose differences count; free ones are inside
  float tension;          // weight of first differences
  float low, high;        // bounds of the eigenvalues
  int64_t steps;
  float* surface;  // packed (C, H, W); in: a guess of the free pixels
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  void bent_surface(const BentSurfaceArgs& args);
)
// clang-format on

}  // namespace inpaint
