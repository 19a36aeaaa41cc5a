// Parts that the weight gradients share: sums over pixels of outer products, and their way into a
// weight.
//
// The sums are cut into tasks (segment of the pixels, range of channels, group of filter panels) by
// the sizes alone, so that threads change no bit. Where there is more than one segment, partial
// sums lie as (segment, panel, tap, channel, lane) and are added up in order.
#pragma once

#include <algorithm>
#include <vector>

#include "base/gemm.h"
#include "base/parallel.h"
#include "base/transpose.h"
#include "convolution/store.h"
#include "convolution/weight_gradient.h"

namespace inpaint {
namespace INPAINT_ISA {

// Rows `left` and `right` of two operands, one pair a pixel.
struct Stretch {
  const float* left;
  const float* right;
};

// Adds sum over pixels of left[0 .. ROWS) times right[0 .. VECS lanes) to `sums`, or puts it there.
template <int VECS>
struct OuterSum {
  const Stretch* stretches;
  int64_t count, depth;  // stretches, pixels of each
  int64_t left_step, right_step;
  float* sums;
  int64_t sums_step;
  bool put;

  template <int ROWS>
  void run() {
    constexpr int W = Simd<float>::kWidth;
    Accumulator<float, ROWS, VECS> sum;
    sum.clear();
    for (int64_t s = 0; s < count; ++s)
      sum.add(stretches[s].left, stretches[s].right, right_step, depth, left_step);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) {
        float* to = sums + r * sums_step + j * W;
        store(to, put ? sum.v[r][j] : load(to) + sum.v[r][j]);
      }
  }
};

// The same for any number of rows.
template <int VECS>
void outer_sums(OuterSum<VECS> sum, const Stretch* stretches, int64_t rows) {
  std::vector<Stretch> here(static_cast<size_t>(sum.count));
  float* sums = sum.sums;
  sum.stretches = here.data();
  for (int64_t t = 0, tiles = tile_count(rows); t < tiles; ++t) {
    const int64_t begin = tile_begin(rows, t), end = tile_begin(rows, t + 1);
    for (int64_t s = 0; s < sum.count; ++s)
      here[size_t(s)] = {stretches[s].left + begin, stretches[s].right};
    sum.sums = sums + begin * sum.sums_step;
    with_rows(end - begin, sum);
  }
}

// Cuts `size` things into at most `most` parts, as evenly as whole units allow.
struct Cut {
  int64_t size, unit, parts;

  Cut(int64_t size_, int64_t unit_, int64_t most)
      : size(size_),
        unit(unit_),
        parts(std::max<int64_t>(1, std::min(most, ceil_div(size, unit)))) {}
  int64_t begin(int64_t part) const {
    return std::min(size, ceil_div(size, unit) * part / parts * unit);
  }
};

// Tasks enough for threads to share evenly, each with partial sums of its own.
constexpr int64_t kTasks = 16;

// Where the sums of the tasks go.
class WeightGradient {
 public:
  WeightGradient(const WeightGradientArgs& args, const std::vector<Panel>& panels, int64_t segments)
      : args_(args),
        panels_(panels),
        taps_(args.conv.kernel.y * args.conv.kernel.x),
        segments_(segments),
        size_(lanes_of(panels) * taps_ * args.conv.channels),
        partial_(segments > 1 ? segments * size_ : 0) {}

  // Takes what one task has of a panel: rows of lanes, those of tap t and channels c0 to c1 from
  // row first_row[t] on.
  void put(const Panel& panel,
           const float* sums,
           const std::vector<int64_t>& first_row,
           int64_t c0,
           int64_t c1,
           int64_t segment) {
    const int64_t lanes = panel.vectors * W, count = c1 - c0;
    if (segments_ == 1) {
      for (int64_t vector = 0; vector < lanes; vector += W)
        for (int64_t c = 0; c < count; ++c)
          scatter(panel, vector, c0 + c, [&](int64_t tap) {
            return load(sums + (first_row[size_t(tap)] + c) * lanes + vector);
          });
      return;
    }
    float* to = place(panel, segment);
    for (int64_t tap = 0; tap < taps_; ++tap)
      std::copy_n(sums + first_row[size_t(tap)] * lanes,
                  count * lanes,
                  to + (tap * args_.conv.channels + c0) * lanes);
  }

  // Adds up the segments, after all tasks.
  void finish() {
    if (segments_ == 1) return;
    parallel_tasks(int64_t(panels_.size()), args_.conv.threads, [&](int64_t task) {
      const Panel& panel = panels_[size_t(task)];
      const int64_t lanes = panel.vectors * W;
      const float* from = place(panel, 0);
      for (int64_t vector = 0; vector < lanes; vector += W)
        for (int64_t c = 0; c < args_.conv.channels; ++c)
          scatter(panel, vector, c, [&](int64_t tap) {
            const int64_t at = (tap * args_.conv.channels + c) * lanes + vector;
            Vector<float> sum = load(from + at);
            for (int64_t s = 1; s < segments_; ++s) sum += load(from + s * size_ + at);
            return sum;
          });
    });
  }

 private:
  static constexpr int64_t W = Simd<float>::kWidth;

  float* place(const Panel& panel, int64_t segment) {
    return partial_.data() + segment * size_ + panel.lane0 * taps_ * args_.conv.channels;
  }

  // value(tap): sums of the filters of a vector. Taps of one filter together: filters lie so far
  // apart that their lines meet in one set of the cache.
  template <class Value>
  void scatter(const Panel& panel, int64_t vector, int64_t c, const Value& value) {
    const int64_t step = args_.conv.channels * taps_, count = std::min(W, panel.count - vector);
    float* to = args_.grad_weight + (panel.first + vector) * step + c * taps_;
    for (int64_t tap = 0; tap < taps_; tap += W) {
      const int64_t here = std::min(W, taps_ - tap);
      Vector<float> square[W] = {};
      for (int64_t t = 0; t < here; ++t) square[t] = value(tap + t);
      transpose(square);
      for (int64_t i = 0; i < count; ++i) store_first(to + i * step + tap, square[i], here);
    }
  }

  const WeightGradientArgs& args_;
  const std::vector<Panel>& panels_;
  int64_t taps_, segments_, size_;
  Buffer<float> partial_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
