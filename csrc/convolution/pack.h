// Weights in the form the kernels read, and the phases of a transposed convolution.
#pragma once

#include <vector>

#include "base/array.h"
#include "convolution/conv.h"

namespace inpaint {

// A convolution of its own inside a transposed one: outputs `offset` modulo the stride, of the taps
// `first`, first + stride, ... in reverse. An ordinary convolution is one phase.
struct Phase {
  Size2 kernel, padding, first, offset;
};

// `step`: stride of a transposed convolution, 0: an ordinary one.
std::vector<Phase> phases_of(Size2 kernel, Size2 padding, int64_t step);

// Floats of the packed form that `args` asks for.
int64_t packed_size(const PackArgs& args);

// The packed form of a weight.
struct PackSpec {
  Algorithm algorithm;
  Size2 stride;
  bool gated;
  bool flipped;   // for the gradient of the input: filters and channels exchanged, taps reversed
  int64_t step;   // as in PlanSpec
  Size2 padding;  // of the transposed convolution
};

// weight (filters, channels, kh, kw), or (channels, filters, kh, kw) if `step` or `flipped`. The
// phases lie one after the other.
class WeightPacking {
 public:
  WeightPacking(const Array<float>& weight, const PackSpec& spec, int threads);

  int64_t floats() const { return floats_; }
  void run(float* to) const;

 private:
  std::vector<PackArgs> phases_;
  std::vector<int64_t> sizes_;
  int64_t floats_ = 0;
};

}  // namespace inpaint
