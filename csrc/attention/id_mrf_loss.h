// id_mrf_loss: the distributional patch loss on unit vectors, and its gradient. See
// attention/id_mrf_loss.cpp.
#pragma once

#include "attention/contextual_attention.h"

namespace inpaint {

template <class T>
struct IdMrfArgs {
  int64_t batch, channels, height, width;
  ImageView<T> generated, target;  // unit vectors along channels
  T bandwidth, eps;
  bool exclude_self;  // a target's distance is relative to the least of the other targets
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  // loss: (N); choice: (N, H * W), the generated position that serves each target position best.
  template <class T> void id_mrf_loss(const IdMrfArgs<T>& args, T* loss, int64_t* choice);
  // grad: (N), of the losses.
  template <class T> void id_mrf_loss_backward(const IdMrfArgs<T>& args,
                                               const T* loss,
                                               const int64_t* choice,
                                               const T* grad,
                                               const OutputView<T>& grad_generated,
                                               const OutputView<T>& grad_target);
)
// clang-format on

}  // namespace inpaint
