// Which algorithm sums a convolution: one rule for all layers, by measurement.
//
// inpaint_ops/ops/convolution/plan.py overrules it for two kinds of gradients of inputs, "doubled"
// and "scattered".
#pragma once

#include <optional>

#include "convolution/conv.h"
#include "convolution/costs.h"

namespace inpaint {

struct ChoiceArgs {
  int64_t batch, filters, channels;  // channels: of a group
  int64_t groups;
  Size2 kernel, stride, dilation;
  Size2 padding;  // before
  int upsample;
  Size2 size;     // of the result; of a transposed convolution: of its input
  bool tiled;     // Winograd's algorithms may be taken
  bool large;     // those with large tiles too
  bool in_place;  // the weight may be read where it lies
  bool anew;      // it is packed for this call alone
  Costs costs;
};

// clang-format off
INPAINT_EACH_ISA(
  // No algorithm takes groups, nor few filters with stride and dilation: none is chosen there.
  std::optional<Algorithm> choose_algorithm(const ChoiceArgs& args);
  // None where the stride leaves outputs without a tap.
  std::optional<Algorithm> choose_transposed_algorithm(const ChoiceArgs& args);
  // Of the sums that are the gradient of a weight: there always is one; groups must be 1.
  std::optional<Algorithm> choose_weight_gradient_algorithm(const ChoiceArgs& args);

  // What an algorithm that is packed does for the sums of a convolution; of a transposed one, for
  // those of all its phases.
  Work convolution_work(const ChoiceArgs& args, Algorithm algorithm);
  Work transposed_work(const ChoiceArgs& args, Algorithm algorithm);
)
// clang-format on

}  // namespace inpaint
