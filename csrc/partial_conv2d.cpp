// Valid values under each window, by a separable sum of integers: kernel.y + kernel.x additions an
// output row and column instead of their product.
#include "partial_conv2d.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

void window_counts(const WindowCountArgs& a) {
  const int64_t plane = a.height * a.width;
  parallel_tasks(a.batch * a.out_height, a.threads, [&](int64_t task) {
    const int64_t n = task / a.out_height, oy = task % a.out_height;
    std::vector<int32_t> columns(size_t(a.width), 0);
    for (int64_t ky = 0; ky < a.kernel.y; ++ky) {
      const int64_t y = oy * a.stride.y - a.padding.y + ky * a.dilation.y;
      if (y < 0 || y >= a.height) continue;
      const int32_t* row = a.known + n * plane + y * a.width;
      for (int64_t x = 0; x < a.width; ++x) columns[size_t(x)] += row[x];
    }
    int32_t* out = a.counts + task * a.out_width;
    for (int64_t ox = 0; ox < a.out_width; ++ox) {
      int32_t sum = 0;
      for (int64_t kx = 0; kx < a.kernel.x; ++kx) {
        const int64_t x = ox * a.stride.x - a.padding.x + kx * a.dilation.x;
        if (x >= 0 && x < a.width) sum += columns[size_t(x)];
      }
      out[ox] = sum;
    }
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
