// Softmax of one query's scores over the keys that may be used.
//
// Algebra: weight_k = exp(scale s_k - max) / sum. Two passes over a row in the first-level cache:
// the scaled scores with their maxima for each row of keys, then the exponentials with their sum. A
// row of keys whose exponentials all vanish (float32: 87 below the maximum) is left out, not
// written.
#pragma once

#include "attention/sample.h"
#include "base/vector_math.h"

namespace inpaint {
namespace INPAINT_ISA {

// Scratch: `row` (keys + two vectors) and `best` (a vector for each row of keys).
template <class T>
class SoftmaxRow {
 public:
  // Scales the scores; those of missing keys become -inf.
  SoftmaxRow(const AttentionSample<T>& sample, const T* scores, T* row, T* best)
      : s_(sample),
        row_(row),
        best_(best),
        counts_missing_(sample.missing > 0 && !sample.args.exclude) {
    const Vector<T> lowest = broadcast(kMinusInfinity<T>);
    const T scale = s_.args.scale;
    const T* const valid = s_.valid.data();
    const int64_t width = s_.wb, whole = width / W * W;
    Vector<T> top = lowest;
    auto nan_lanes = top != top;
    const auto scaled = [&](int64_t j) {
      return load(valid + j) > T(0) ? load(scores + j) * scale : lowest;
    };
    for (int64_t v = 0; v < s_.hb; ++v) {
      Vector<T> most = lowest;
      const int64_t j0 = v * width;
      for (int64_t j = j0; j < j0 + whole; j += W) {
        const Vector<T> value = scaled(j);
        store(row + j, value);
        nan_lanes |= value != value;
        most = max_or_second<T>(value, most);
      }
      if (whole < width) {
        const Vector<T> value =
            keep(scaled(j0 + whole), row + j0 + whole, width - whole, kMinusInfinity<T>);
        nan_lanes |= value != value;
        most = max_or_second<T>(value, most);
      }
      store(best + v * W, most);
      top = max_or_second<T>(most, top);
    }
    int64_t words[kVectorBytes / 8];
    std::memcpy(words, &nan_lanes, sizeof(nan_lanes));
    for (int64_t word : words) has_nan_ = has_nan_ || word != 0;
    greatest_ = horizontal_max<T>(top);
  }

  // Number subtracted from every score before its exponential; NaN if any score is NaN.
  T max() const {
    if (has_nan_) return std::numeric_limits<T>::quiet_NaN();
    return counts_missing_ ? std::max(greatest_, T(0)) : greatest_;
  }

  // First key with the greatest score; 0 if there is none.
  int64_t first_best() const {
    if (!(greatest_ > kMinusInfinity<T>)) return 0;
    for (int64_t v = 0; v < s_.hb; ++v) {
      const Vector<T> hit = load(best_ + v * W) == greatest_ ? broadcast(T(1)) : Vector<T>{};
      if (nonzero_lanes<T>(hit) == 0) continue;
      for (int64_t j = v * s_.wb; j < (v + 1) * s_.wb; ++j)
        if (row_[j] == greatest_) return j;
    }
    return 0;
  }

  // Replaces scores by exponentials and returns their sum. Marks as hot the rows of keys in which
  // any exponential is more than zero; the other rows keep their scores.
  T weigh(T max, uint8_t* hot) const {
    const Vector<T> limit = broadcast(max + ExpTerms<T>::kLowest);
    const int64_t width = s_.wb, whole = width / W * W;
    Vector<T> sums = {};
    for (int64_t v = 0; v < s_.hb; ++v) {
      hot[v] = max != max || any_greater<T>(load(best_ + v * W), limit);
      if (!hot[v]) continue;
      T* const row = row_ + v * width;
      for (int64_t u = 0; u < whole; u += W) {
        const Vector<T> weight = exp<T>(load(row + u) - max);
        store(row + u, weight);
        sums += weight;
      }
      if (whole < width)
        sums += keep(exp<T>(load(row + whole) - max), row + whole, width - whole, T(0));
    }
    T sum = 0;
    for (int64_t i = 0; i < W; ++i) sum += sums[i];
    return counts_missing_ ? sum + T(s_.missing) * exp<T>(broadcast(-max))[0] : sum;
  }

  // Writes the weights of hot rows to rows of w1 numbers.
  void write(T sum, const uint8_t* hot, T* to) const {
    const T factor = 1 / sum;
    for (int64_t v = 0; v < s_.hb; ++v) {
      if (!hot[v]) continue;
      const T* from = row_ + v * s_.wb;
      T* line = to + v * s_.w1;
      for (int64_t u = 0; u < s_.wb; ++u) line[u] = from[u] * factor;
    }
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // Stores the first `count` lanes, not all, and returns the vector with `fill` in the others,
  // which belong to the next row of keys.
  static Vector<T> keep(Vector<T> v, T* to, int64_t count, T fill) {
    std::memcpy(to, &v, sizeof(T) * count);
    T lanes[W];
    std::fill_n(lanes, W, fill);
    std::memcpy(lanes, &v, sizeof(T) * count);
    return load(lanes);
  }

  const AttentionSample<T>& s_;
  T *const row_, *const best_;
  const bool counts_missing_;
  bool has_nan_ = false;
  T greatest_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
