// Sums of neighbouring taps. Every tap is read twice, the second time from a cache, and every sum
// written once; a task is a filter.
#include "convolution/tap_sums.h"

#include <vector>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

void sum_neighbours(const TapSumsArgs& a) {
  const int64_t row = a.kernel.x + 1, size = (a.kernel.y + 1) * row;
  parallel_tasks(a.filters, a.threads, [&](int64_t filter) {
    // Sums of two rows, with zeros beside them.
    std::vector<float> sums(size_t(row + 1), 0.0f);
    for (int64_t c = 0; c < a.channels; ++c) {
      const float* taps = a.weight + filter * a.stride_filter + c * a.stride_channel;
      float* to = a.sums + (filter * a.channels + c) * size;
      for (int64_t y = 0; y <= a.kernel.y; ++y) {
        for (int64_t x = 0; x < a.kernel.x; ++x) {
          const float above = y > 0 ? taps[(y - 1) * a.stride_y + x * a.stride_x] : 0.0f;
          const float here = y < a.kernel.y ? taps[y * a.stride_y + x * a.stride_x] : 0.0f;
          sums[size_t(x + 1)] = above + here;
        }
        for (int64_t x = 0; x < row; ++x) to[y * row + x] = sums[size_t(x)] + sums[size_t(x + 1)];
      }
    }
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
