// contextual_attention: soft patch matching and its gradient.
// Algebra and tiling: attention/contextual_attention.cpp and contextual_attention_backward.cpp.
#pragma once

#include "matching/nearest_patch.h"

namespace inpaint {

// An (N, C, H, W) array to write, strides in elements; any layout.
template <class T>
struct OutputView {
  T* data;
  int64_t stride_n, stride_c, stride_h, stride_w;
};

template <class T>
struct ContextualAttentionArgs {
  int64_t batch, channels;
  int64_t fg_height, fg_width, bg_height, bg_width;
  int64_t rate;  // feature pixels a cell of the matching grid, along each axis
  ImageView<T> fg, bg;
  MaskView hole;       // on the grid of keys, 1 = missing
  MaskView wanted;     // pixels of y that are computed
  bool align_corners;  // else every rate-th pixel is picked
  bool sum_norm;       // key norm sqrt(|w|^2 + 9 C 1e-4), else max(|w|, 1e-4)
  bool exclude;        // missing keys leave the softmax, else they count as scores of 0
  bool count;          // divide by the number of patches over a pixel, else by 4
  bool fuse;
  T scale;
  int threads;

  int64_t query_rows() const { return (fg_height + rate - 1) / rate; }
  int64_t query_columns() const { return (fg_width + rate - 1) / rate; }
  int64_t key_rows() const { return (bg_height + rate - 1) / rate; }
  int64_t key_columns() const { return (bg_width + rate - 1) / rate; }
};

// Results of the forward pass: y like fg; the others (N, h, w), kept for the gradient. A query
// whose keys are all excluded has maximum -inf and sum 0. Wanted pixels of y have the bits of a
// whole computation; the others, and the other results of queries that no wanted pixel needs, are
// undefined. The gradient takes results of a whole computation.
template <class T>
struct ContextualAttentionResult {
  OutputView<T> y;
  int64_t* index;
  T *row_max, *row_sum;
};

template <class T>
struct ContextualAttentionGradient {
  ImageView<T> grad;
  const T *row_max, *row_sum;
  OutputView<T> grad_fg, grad_bg;
};

// clang-format off
INPAINT_EACH_ISA(
  template <class T> void contextual_attention(const ContextualAttentionArgs<T>& args,
                                               const ContextualAttentionResult<T>& result);
  template <class T> void contextual_attention_backward(
      const ContextualAttentionArgs<T>& args, const ContextualAttentionGradient<T>& gradient);
)
// clang-format on

}  // namespace inpaint
