// Gather of positions and its transpose: values and gradients of shift_connection.
#pragma once

#include "matching/nearest_patch.h"

namespace inpaint {

// Gather: out[n, :, p] = in[n, :, index[n, p]], zero where the index is negative. Scatter:
// out[n, :, index[n, p]] += scale * in[n, :, p]. Both arrays are (N, C, H, W) with the same
// row-major flattening of H x W, and both in one layout, channels first or last.
template <class T>
struct PositionsArgs {
  int64_t batch, channels, in_positions, out_positions;
  int64_t out_channels;  // of the array that holds `out`, which may be a slice of a concatenation
  const T* in;
  T* out;
  const int64_t* index;  // (N, positions)
  bool channels_last;
  double scale;
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  template <class T> void gather_positions(const PositionsArgs<T>& args);
  template <class T> void scatter_positions(const PositionsArgs<T>& args);
)
// clang-format on

}  // namespace inpaint
