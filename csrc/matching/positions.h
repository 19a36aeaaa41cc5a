// Gather of positions and its transpose: the value side of shift_connection.
#pragma once

#include "matching/nearest_patch.h"

namespace inpaint {

// out[n, :, p] = in[n, :, index[n, p]], zero where the index is negative; and, scattered,
// out[n, :, index[n, p]] += scale * in[n, :, p]. Both arrays (N, C, H, W) with the same row-major
// flattening of H x W, in one layout: planes (channels apart) or pixels (channels together).
template <class T>
struct PositionsArgs {
  int64_t batch, channels, in_positions, out_positions;
  int64_t out_channels;  // of the array that holds `out`: samples and, channels last, places lie
                         // apart by it, so that a result may be a slice of a concatenation
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
