// Taps of a panel's filters on their way into packed weights: a few channels at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {

// Calls body(first channel, channels, taps) for all channels of the filters in a panel's lanes:
// taps (channels, kernel.y, kernel.x, lanes), zero in lanes without a filter.
//
// Filters of many weights lie a power of two apart, where a cache holds few of them at once: lane
// by lane each is read in long runs, instead of all of them tap by tap.
template <class Body>
void each_tap_block(const PackArgs& a, const Panel& panel, const Body& body) {
  constexpr int64_t kBlockFloats = 8192, kLineFloats = 16;
  const int64_t lanes = panel.vectors * int64_t(Simd<float>::kWidth);
  const int64_t row = a.kernel.x * lanes, channel = a.kernel.y * row;
  const int64_t most = std::min(a.channels, std::max<int64_t>(kBlockFloats / channel, 1));
  // The inner loop goes along the runs. Those of the next block are on their way meanwhile: there
  // are too many for the processor to see them coming.
  const bool along_channels = a.stride_channel <= a.stride_filter;
  const int64_t ahead = along_channels ? most : 2;
  std::vector<float> taps(size_t(most * channel), 0.0f);
  const auto bring = [&](int64_t lane, int64_t c, float* to) {
    const int64_t filter = filter_in_lane(panel, a.filters, lane);
    if (filter < 0) return;
    const float* from = a.weight + filter * a.stride_filter + c * a.stride_channel;
    if (c + ahead < a.channels)
      for (int64_t tap = 0; tap < a.kernel.y * a.kernel.x; tap += kLineFloats)
        __builtin_prefetch(from + ahead * a.stride_channel + (a.stride_x < 0 ? -tap : tap));
    for (int64_t y = 0; y < a.kernel.y; ++y)
      for (int64_t x = 0; x < a.kernel.x; ++x)
        to[y * row + x * lanes + lane] = from[y * a.stride_y + x * a.stride_x];
  };
  for (int64_t first = 0; first < a.channels; first += most) {
    const int64_t count = std::min(most, a.channels - first);
    if (along_channels) {
      for (int64_t lane = 0; lane < lanes; ++lane)
        for (int64_t c = 0; c < count; ++c) bring(lane, first + c, taps.data() + c * channel);
    } else {
      for (int64_t c = 0; c < count; ++c)
        for (int64_t lane = 0; lane < lanes; ++lane)
          bring(lane, first + c, taps.data() + c * channel);
    }
    body(first, count, taps.data());
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
