// Taps of a panel's filters on their way into packed weights: a few channels at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "base/transpose.h"
#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {

// Returns whether a form of so many floats, all phases together, is written past the caches, which
// keep nothing of it until it is read: twice as fast from 2 MB on, reading included.
inline bool is_past_caches(const float* packed, int64_t floats) {
  constexpr int64_t kCached = int64_t(1) << 19;
  return kVectorBytes >= 32 && floats > kCached &&
         reinterpret_cast<uintptr_t>(packed) % kVectorBytes == 0;
}

// Copies whole vectors.
inline void put(float* to, const float* from, int64_t n, bool past_caches) {
  constexpr int64_t W = Simd<float>::kWidth;
  if (past_caches) {
    for (int64_t i = 0; i < n; i += W) stream(to + i, load(from + i));
  } else {
    for (int64_t i = 0; i < n; i += W) store(to + i, load(from + i));
  }
}

// Runs of n floats, one for each lane of a vector (null: zeros), changed into n vectors `apart`
// floats from each other. `ahead`: how much further on the next ones lie, to be fetched meanwhile.
inline void transpose_runs(
    const float* const* runs, int64_t n, float* to, int64_t apart, int64_t ahead) {
  constexpr int64_t W = Simd<float>::kWidth;
  for (int64_t begin = 0; begin < n; begin += W) {
    // The last square overlaps the one before.
    const int64_t i = n < W ? 0 : std::min(begin, n - W), count = std::min(W, n - i);
    Vector<float> square[W];
    for (int64_t lane = 0; lane < W; ++lane) {
      if (!runs[lane]) {
        square[lane] = Vector<float>{};
        continue;
      }
      square[lane] = load_first(runs[lane] + i, count);
      __builtin_prefetch(runs[lane] + i + ahead);
    }
    transpose(square);
    for (int64_t j = 0; j < count; ++j) store(to + (i + j) * apart, square[j]);
  }
}

// Calls body(first channel, channels, taps) for all channels of the filters in a panel's lanes:
// taps (channels, whole.y, whole.x, lanes), zero in lanes without a filter.
//
// Each filter lies in a run of memory: whole runs change places with lanes in registers, those of
// the next block on their way meanwhile, which are too many for the processor to see them coming.
// What lies otherwise goes tap by tap.
template <class Body>
void each_tap_block(const PackArgs& a, const Panel& panel, const Body& body) {
  constexpr int64_t kBlockFloats = 8192, W = Simd<float>::kWidth;
  const int64_t lanes = panel.vectors * W, taps = a.whole.y * a.whole.x;
  const int64_t most = std::min(a.channels, std::max<int64_t>(kBlockFloats / (taps * lanes), 1));
  std::vector<float> block(size_t(most * taps * lanes), 0.0f);
  int64_t filters[2 * W];
  for (int64_t lane = 0; lane < lanes; ++lane)
    filters[lane] = filter_in_lane(panel, a.filters, lane);
  // Of the taps from `offset` on.
  const auto runs = [&](int64_t offset, int64_t n, float* to, int64_t apart, int64_t ahead) {
    const float* from[W];
    for (int64_t vector = 0; vector < lanes; vector += W) {
      for (int64_t lane = 0; lane < W; ++lane) {
        const int64_t filter = filters[vector + lane];
        from[lane] = filter < 0 ? nullptr : a.weight + filter * a.stride_filter + offset;
      }
      transpose_runs(from, n, to + vector, apart, ahead);
    }
  };
  const bool along_taps = taps > 1 && a.stride_x == 1 && a.stride_y == a.whole.x;
  for (int64_t first = 0; first < a.channels; first += most) {
    const int64_t count = std::min(most, a.channels - first);
    const int64_t offset = first * a.stride_channel;
    if (a.stride_channel == taps && (along_taps || taps == 1)) {
      runs(offset, count * taps, block.data(), lanes, most * taps);
    } else if (along_taps) {
      for (int64_t c = 0; c < count; ++c)
        runs(offset + c * a.stride_channel,
             taps,
             block.data() + c * taps * lanes,
             lanes,
             2 * a.stride_channel);
    } else if (a.stride_channel == 1) {
      for (int64_t tap = 0; tap < taps; ++tap)
        runs(offset + tap / a.whole.x * a.stride_y + tap % a.whole.x * a.stride_x,
             count,
             block.data() + tap * lanes,
             taps * lanes,
             most);
    } else {
      for (int64_t c = 0; c < count; ++c)
        for (int64_t tap = 0; tap < taps; ++tap) {
          const float* from = a.weight + offset + c * a.stride_channel +
                              tap / a.whole.x * a.stride_y + tap % a.whole.x * a.stride_x;
          float* to = block.data() + (c * taps + tap) * lanes;
          for (int64_t lane = 0; lane < lanes; ++lane)
            if (filters[lane] >= 0) to[lane] = from[filters[lane] * a.stride_filter];
        }
    }
    body(first, count, block.data());
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
