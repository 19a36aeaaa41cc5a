// Values of shift_connection: gathered forward, scattered backward. The match itself is
// nearest_patch with patches of one pixel.
//
// Algebra: out[:, p] = in[:, index[p]], and its transpose out[:, index[p]] += scale * in[:, p].
// Tiling: blocks of positions or channels. Several positions may add to one place, so scatter
// divides the channels among threads, never the positions: each sum has one fixed order.
// Traffic: gather reads and writes each value once. Scatter reads each gradient once and adds it to
// a pixel (channels last) or a channel's plane that stays in cache.
#include "matching/positions.h"

#include <algorithm>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
void gather_positions(const PositionsArgs<T>& a) {
  if (a.channels_last) {
    const int64_t block = 64, blocks = ceil_div(a.out_positions, block);
    parallel_tasks(a.batch * blocks, a.threads, [&](int64_t task) {
      const int64_t n = task / blocks, p0 = task % blocks * block;
      for (int64_t p = p0; p < std::min(a.out_positions, p0 + block); ++p) {
        const int64_t from = a.index[n * a.out_positions + p];
        T* out = a.out + (n * a.out_positions + p) * a.out_channels;
        if (from < 0) {
          std::fill_n(out, a.channels, T(0));
        } else {
          std::copy_n(a.in + (n * a.in_positions + from) * a.channels, a.channels, out);
        }
      }
    });
    return;
  }
  // Channels first: the few places that receive something are listed once for all channels.
  const int64_t block = 32, blocks = ceil_div(a.channels, block);
  parallel_tasks(a.batch * blocks, a.threads, [&](int64_t task) {
    const int64_t n = task / blocks, c0 = task % blocks * block;
    Buffer<int64_t> to(a.out_positions), from(a.out_positions);
    int64_t count = 0;
    for (int64_t p = 0; p < a.out_positions; ++p) {
      const int64_t source = a.index[n * a.out_positions + p];
      to[count] = p;
      from[count] = source;
      count += source >= 0;
    }
    for (int64_t c = c0; c < std::min(a.channels, c0 + block); ++c) {
      const T* in = a.in + (n * a.channels + c) * a.in_positions;
      T* out = a.out + (n * a.out_channels + c) * a.out_positions;
      std::fill_n(out, a.out_positions, T(0));
      for (int64_t i = 0; i < count; ++i) out[to[i]] = in[from[i]];
    }
  });
}

template <class T>
void scatter_positions(const PositionsArgs<T>& a) {
  const int64_t block = a.channels_last ? 64 : 16, blocks = ceil_div(a.channels, block);
  const T scale = T(a.scale);
  parallel_tasks(a.batch * blocks, a.threads, [&](int64_t task) {
    const int64_t n = task / blocks, c0 = task % blocks * block;
    const int64_t c1 = std::min(a.channels, c0 + block);
    const int64_t* index = a.index + n * a.in_positions;
    if (a.channels_last) {
      const T* in = a.in + n * a.in_positions * a.channels;
      T* out = a.out + n * a.out_positions * a.channels;
      for (int64_t p = 0; p < a.out_positions; ++p)
        std::fill(out + p * a.channels + c0, out + p * a.channels + c1, T(0));
      for (int64_t p = 0; p < a.in_positions; ++p) {
        if (index[p] < 0) continue;
        T* to = out + index[p] * a.channels;
        for (int64_t c = c0; c < c1; ++c) to[c] += scale * in[p * a.channels + c];
      }
      return;
    }
    for (int64_t c = c0; c < c1; ++c) {
      const T* in = a.in + (n * a.channels + c) * a.in_positions;
      T* out = a.out + (n * a.channels + c) * a.out_positions;
      std::fill_n(out, a.out_positions, T(0));
      for (int64_t p = 0; p < a.in_positions; ++p)
        if (index[p] >= 0) out[index[p]] += scale * in[p];
    }
  });
}

template void gather_positions<uint16_t>(const PositionsArgs<uint16_t>&);
template void gather_positions<float>(const PositionsArgs<float>&);
template void gather_positions<double>(const PositionsArgs<double>&);
template void scatter_positions<float>(const PositionsArgs<float>&);
template void scatter_positions<double>(const PositionsArgs<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
