// Which outputs of a convolution read a pixel that has changed: reads.h the other way round.
#pragma once

#include <vector>

#include "convolution/conv.h"

namespace inpaint {

// `conv`: as for `direct_reads` and `winograd_reads`, but for what is wanted. `changed`: of each
// part, bytes (N, height, width), not 0 = changed. `touched`: bytes (N, conv.store_size).
struct TouchesArgs {
  ConvArgs conv;
  std::vector<const uint8_t*> changed;
  uint8_t* touched;
};

// clang-format off
INPAINT_EACH_ISA(
  // Marks in `touched` the outputs whose sums, their bits too, depend on a changed pixel.
  void conv_touches(const TouchesArgs& args);
)
// clang-format on

}  // namespace inpaint
