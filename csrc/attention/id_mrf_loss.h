// id_mrf_loss: the distributional patch loss on unit vectors, and its gradient.
// Algebra and tiling: attention/id_mrf_similarity.h, id_mrf_loss.cpp and id_mrf_loss_backward.cpp.
#pragma once

#include "attention/contextual_attention.h"

namespace inpaint {

template <class T>
struct IdMrfArgs {
  int64_t batch, channels, height, width;
  ImageView<T> generated, target;  // unit vectors along channels
  T bandwidth, eps;
  bool exclude_self;  // the nearest target's distance is relative to that of the next one
  int threads;
};

template <class T>
struct IdMrfResult {
  T* loss;          // (N)
  int64_t* choice;  // (N, H * W), the generated position that serves each target position best
};

template <class T>
struct IdMrfGradient {
  const T* loss;          // of the forward pass
  const int64_t* choice;  // of the forward pass
  const T* grad;          // (N), of the losses
  OutputView<T> grad_generated, grad_target;
};

// clang-format off
INPAINT_EACH_ISA(
  template <class T> void id_mrf_loss(const IdMrfArgs<T>& args, const IdMrfResult<T>& result);
  template <class T> void id_mrf_loss_backward(const IdMrfArgs<T>& args,
                                               const IdMrfGradient<T>& gradient);
)
// clang-format on

}  // namespace inpaint
