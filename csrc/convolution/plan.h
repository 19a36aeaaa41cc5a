// One convolution with everything about it that does not depend on the data: made once, run often.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "base/array.h"
#include "convolution/fold.h"
#include "convolution/pack.h"

namespace inpaint {

// One tensor of a convolution's input, its data apart: its upsampling factor and the
// channels that each plane of its mask speaks for, in order.
using TensorShape = std::pair<int, std::vector<int64_t>>;

// Tensors (N, C, H, W), and their masks, bytes (N or 1, planes, H, W).
using Images = std::vector<Array<float>>;
using Masks = std::vector<std::optional<Array<uint8_t>>>;

struct PlanSpec {
  Algorithm algorithm;
  Size2 kernel, stride, dilation, padding;
  PaddingMode padding_mode;
  std::vector<TensorShape> tensors;
  int64_t filters;
  bool gated;
  Activation activation;
  int64_t step;  // stride of a transposed convolution, 0: an ordinary one
};

// Tensors of a call: y (N, channels, Ho, Wo) packed in either layout, pre_activation (N, filters,
// Ho, Wo) in channels_last; mask_ratio and update_mask as in ConvArgs.
struct PlanCall {
  const Images& x;
  const Masks& valid;
  const OptionalFloats& bias;
  Array<float> y;
  OptionalFloats pre_activation;
  const OptionalFloats& mask_ratio;
  const OptionalFloats& update_mask;
  int threads;
};

// The anchor of a part of a convolution, and its share of the whole work, 1 where it is not worth
// the trouble.
struct PlanReads {
  double share;
  Size2 anchor;
};

class ConvPlan {
 public:
  explicit ConvPlan(const PlanSpec& spec);

  // `wanted`: bytes (N or 1, Ho, Wo), the outputs that are computed; the others are left alone.
  // `anchor`: an output at which a tile begins, where there are tiles.
  void run(const PlanCall& call,
           const float* packed,
           int64_t packed_floats,
           const std::optional<Array<uint8_t>>& wanted,
           Size2 anchor) const;

  // Marks in `reads`, bytes (N, H, W) for each tensor, the pixels that the wanted outputs of an
  // image of size `out` depend on. Without an `anchor` tiles begin where the wanted outputs do, for
  // they are fewest then; at the first output if that leaves out next to nothing.
  PlanReads reads(const Array<uint8_t>& wanted,
                  Size2 out,
                  const std::vector<Array<uint8_t>>& reads,
                  std::optional<Size2> anchor) const;

  // Marks in `touched`, bytes (N, Ho, Wo), the outputs that depend on a pixel that is not 0 in
  // `changed`, maps as those of `reads`; their last bits included.
  void touches(const std::vector<Array<uint8_t>>& changed,
               Array<uint8_t> touched,
               Size2 anchor) const;

  // The same from the weight as the layer has it, (filters, channels, kh, kw), or (channels,
  // filters, kh, kw) if transposed, packed.
  void run_unpacked(const PlanCall& call, const Array<float>& weight) const;

 private:
  ConvArgs prepared(PlanCall call) const;
  // The convolution of one phase; false if it has no outputs.
  bool set_phase(ConvArgs& a, const Phase& phase, Size2 anchor) const;
  // The arguments for maps of the input's tensors, bytes (N, H, W), and an image of size `out`.
  ConvArgs mapped(const std::vector<Array<uint8_t>>& maps, Size2 out) const;
  // Marks what is read; returns the share of the work.
  double mark(ConvArgs a, Size2 anchor) const;

  ConvArgs args_ = {};
  std::vector<TensorShape> tensors_;
  std::vector<Phase> phases_;
  bool transposed_ = false;
};

// The gradient of a weight (filters, C, kh, kw) from that of the sums, grad (N, filters, Ho, Wo) in
// channels_last. It does not read the kernel, filters, gate, activation and step of `spec`.
void weight_gradient(const PlanSpec& spec,
                     const Images& x,
                     const Masks& valid,
                     const Array<float>& grad,
                     Array<float> grad_weight,
                     int threads);

// Arguments of fold_padding for images (N, C, H, W): `padded` in channels_last, `out` the gradient
// of the image, `before` the padding above and to the left.
FoldArgs fold_args(const Array<float>& padded,
                   Array<float> out,
                   Size2 before,
                   int upsample,
                   PaddingMode mode,
                   int threads);

}  // namespace inpaint
