// Folding of padding: zeros are nobody's. Every pixel of the padded image is read once and every
// pixel of the result written once; a task is a row of the result.
#include "convolution/fold.h"

#include <algorithm>
#include <vector>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Sources = std::vector<std::vector<int64_t>>;

// For each pixel of an axis the padded ones that repeat it.
Sources sources_of(int64_t size, int64_t padded, int64_t before, int upsample, PaddingMode mode) {
  const int64_t last = size * upsample - 1;
  Sources sources(static_cast<size_t>(size));
  for (int64_t i = 0; i < padded; ++i) {
    int64_t at = i - before;
    if (mode == PaddingMode::kReflect) {
      at = at < 0 ? -at : at;
      at = at > last ? 2 * last - at : at;
    }
    if (mode == PaddingMode::kZeros && (at < 0 || at > last)) continue;
    at = std::min(std::max<int64_t>(at, 0), last);
    sources[size_t(at / upsample)].push_back(i);
  }
  return sources;
}

}  // namespace

void fold_padding(const FoldArgs& a) {
  const Sources rows = sources_of(a.size.y, a.height, a.before.y, a.upsample, a.mode);
  const Sources columns = sources_of(a.size.x, a.width, a.before.x, a.upsample, a.mode);
  parallel_tasks(a.batch * a.size.y, a.threads, [&](int64_t task) {
    const int64_t n = task / a.size.y, y = task % a.size.y, channels = a.channels;
    std::vector<float> apart(a.stride_c == 1 ? 0 : size_t(channels));
    for (int64_t x = 0; x < a.size.x; ++x) {
      float* to = a.out + n * a.stride_n + y * a.stride_y + x * a.stride_x;
      float* sums = a.stride_c == 1 ? to : apart.data();
      bool first = true;
      for (const int64_t row : rows[size_t(y)])
        for (const int64_t column : columns[size_t(x)]) {
          const float* from = a.padded + ((n * a.height + row) * a.width + column) * channels;
          if (first) {
            std::copy_n(from, channels, sums);
          } else {
            for (int64_t c = 0; c < channels; ++c) sums[c] += from[c];
          }
          first = false;
        }
      if (a.stride_c == 1) continue;
      for (int64_t c = 0; c < channels; ++c) to[c * a.stride_c] = sums[c];
    }
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
