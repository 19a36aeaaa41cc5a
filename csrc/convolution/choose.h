// Which core sums a convolution: one rule for all layers, by measurement.
#pragma once

#include <optional>

#include "convolution/conv.h"

namespace inpaint {

struct ChoiceArgs {
  int64_t batch, filters, channels;  // channels: of a group
  int64_t groups;
  Size2 kernel, stride, dilation;
  Size2 padding;  // before
  int upsample;
  Size2 out;   // height and width of the result
  bool tiled;  // whether Winograd cores may be taken
};

// clang-format off
INPAINT_EACH_ISA(
  // The core of a convolution; none takes groups, nor few filters with stride and dilation.
  std::optional<Core> choose_core(const ChoiceArgs& args);
  // The core that sums the gradient of its weight: there always is one; groups must be 1.
  std::optional<Core> choose_weight_gradient_core(const ChoiceArgs& args);
)
// clang-format on

}  // namespace inpaint
