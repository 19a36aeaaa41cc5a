// Rows of scores of contextual attention, for a window of query columns, a few rows at a time.
#pragma once

#include "contextual_attention_sample.h"

namespace inpaint {
namespace INPAINT_ISA {

// A ring of rows of the query grid, each a strip of (window columns) x (keys). Before and behind
// the numbers of a query lie the zeros that FuseSum reads.
//
// The fuse step meets the last row of queries next to the first. So row 0 and the last row have
// strips of their own, and of the rows next to them single queries are kept, see keep_neighbours().
template <class T>
class WrapStrips {
 public:
  WrapStrips(const AttentionSample<T>& sample, const Window& window, int64_t ring)
      : h_(sample.h),
        w_(sample.w),
        keys_(sample.keys_count),
        window_(window),
        all_(ring + 2 >= sample.h),
        ring_(all_ ? sample.h : ring),
        front_(round_up(sample.wb + 2, Simd<T>::kWidth)),
        stride_(front_ + round_up(keys_ + sample.wb + 2 + Simd<T>::kWidth, Simd<T>::kWidth)),
        strip_(stride_ * window.columns),
        data_(strip_ * (all_ ? ring_ : ring_ + 2) + 3 * stride_) {
    const int64_t rows = (data_size()) / stride_;
    for (int64_t i = 0; i < rows; ++i) {
      T* row = data_.data() + i * stride_;
      std::fill_n(row, front_, T(0));
      std::fill_n(row + front_ + keys_, stride_ - front_ - keys_, T(0));
    }
    std::fill_n(zeros_row(), stride_, T(0));
  }

  // Whether every row has a strip, so that nothing must be computed twice.
  bool all() const { return all_; }

  T* row(int64_t y, int64_t place) {
    const int64_t slot = all_ ? y : y == 0 ? 0 : y == h_ - 1 ? 1 : 2 + y % ring_;
    return data_.data() + slot * strip_ + place * stride_ + front_;
  }

  // Numbers from one place of a row to the next.
  int64_t stride() const { return stride_; }

  // Keeps query (1, 0) or (h - 2, w - 1), if row y holds it.
  void keep_neighbour(int64_t y) {
    if (all_) return;
    if (y == 1 && window_.place(0) >= 0) std::copy_n(row(y, window_.place(0)), keys_, kept(0));
    if (y == h_ - 2 && window_.place(w_ - 1) >= 0)
      std::copy_n(row(y, window_.place(w_ - 1)), keys_, kept(1));
  }

  // The nine neighbours that FuseSum adds up for query (y, x).
  void neighbours(int64_t y, int64_t x, bool adjoint, const T* out[9]) {
    for (int64_t t = -1; t <= 1; ++t) {
      for (int64_t s = -1; s <= 1; ++s) {
        int64_t ny = y, nx = x;
        const bool exists = adjoint ? shift_row(s, ny, nx) && shift_column(t, ny, nx)
                                    : shift_column(t, ny, nx) && shift_row(s, ny, nx);
        out[3 * (t + 1) + s + 1] = exists ? near(y, ny, nx) : zeros_row() + front_;
      }
    }
  }

 private:
  int64_t data_size() const { return strip_ * (all_ ? ring_ : ring_ + 2) + 3 * stride_; }
  T* zeros_row() { return data_.data() + data_size() - stride_; }
  T* kept(int64_t i) { return data_.data() + data_size() - (3 - i) * stride_ + front_; }

  bool shift_row(int64_t s, int64_t& y, int64_t& x) const {
    const int64_t i = y * w_ + x + s;
    y = i / w_;
    x = i % w_;
    return i >= 0 && i < h_ * w_;
  }

  bool shift_column(int64_t t, int64_t& y, int64_t& x) const {
    const int64_t i = x * h_ + y + t;
    y = i % h_;
    x = i / h_;
    return i >= 0 && i < h_ * w_;
  }

  const T* near(int64_t y, int64_t ny, int64_t nx) {
    const bool across = ny < y - 2 || ny > y + 2;
    if (!all_ && across && ny == 1) return kept(0);
    if (!all_ && across && ny == h_ - 2) return kept(1);
    return row(ny, window_.place(nx));
  }

  const int64_t h_, w_, keys_;
  const Window& window_;
  const bool all_;
  const int64_t ring_, front_, stride_, strip_;
  Buffer<T> data_;
};

// Scores S[p, q] = <patch_p, patch_q> / norm_q, 3 x 3 patches, zeros outside the images.
//
// The pixel products of query row y with key row v become sums along x in the same row pair; a
// score is the sum of three of those on the diagonal (y - 1, v - 1), (y, v), (y + 1, v + 1). So
// each diagonal is a chain of its own: chains run in parallel, a few rows at a time, and remember
// their last three row pairs.
template <class T>
class ScoreStrips {
 public:
  ScoreStrips(const AttentionSample<T>& sample, const Window& window, int64_t ring, int64_t step)
      : strips(sample, window, ring),
        s_(sample),
        window_(window),
        wide_(round_up(sample.wb, W)),
        chains_(sample.hb + std::max(step, strips.all() ? sample.h : 0) + 6),
        sums_(chains_ * 3 * window.columns * wide_) {
    for (const Window::Segment& segment : window.segments) {
      const int64_t begin = std::max<int64_t>(segment.begin - 1, 0);
      const int64_t end = std::min(segment.end + 1, sample.w);
      queries_.emplace_back(new Buffer<T>(sample.h * (end - begin) * sample.channels));
      T* to = queries_.back()->data();
      parallel_tasks(sample.h, sample.threads, [&](int64_t y) {
        sample.pack_queries(y, begin, end, to + y * (end - begin) * sample.channels);
      });
    }
  }

  // Scores of query rows [first, last). The row sums of rows below `known` are there already: those
  // of first - 1 and first, from the call before.
  void compute(int64_t first, int64_t last, int64_t known) {
    const int64_t lowest = -last, highest = s_.hb - known;
    const int64_t chains = highest - lowest + 1;
    const int64_t segments = int64_t(window_.segments.size());
    parallel_tasks(chains * segments, s_.threads, [&](int64_t task) {
      chain(task % segments, lowest + task / segments, first, last, known);
    });
  }

  WrapStrips<T> strips;

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // Row pairs (y, y + delta) of one segment.
  void chain(int64_t index, int64_t delta, int64_t first, int64_t last, int64_t known) {
    const Window::Segment& segment = window_.segments[index];
    const int64_t left = std::max<int64_t>(segment.begin - 1, 0);
    const int64_t pixels = std::min(segment.end + 1, s_.w) - left;
    const int64_t vectors = wide_ / W, ld = wide_ + 2 * W;
    Buffer<T> products(pixels * ld + ld);
    T* const zeros = products.data() + pixels * ld;
    std::fill_n(zeros, ld, T(0));
    for (int64_t i = 0; i < pixels; ++i) {
      std::fill_n(products.data() + i * ld, W, T(0));
      std::fill_n(products.data() + (i + 1) * ld - W, W, T(0));
    }
    for (int64_t y = known; y <= last; ++y) {
      const int64_t v = y + delta;
      const bool sum = y < s_.h && v >= 0 && v < s_.hb;
      const bool emit = y > first && v >= 1 && v <= s_.hb;
      if (sum) {
        pixel_products(queries_[index]->data() + y * pixels * s_.channels,
                       pixels,
                       s_.keys.data() + v * s_.channels * s_.key_width,
                       vectors,
                       s_.channels,
                       products.data() + W,
                       ld);
      }
      if (!sum && !emit) continue;
      const bool old = y >= 2 && v >= 2;
      T* const sums[3] = {row_sums(delta, y), row_sums(delta, y + 1), row_sums(delta, y + 2)};
      const T* const scale = emit ? s_.inverse_norm.data() + (v - 1) * s_.wb : nullptr;
      T* const scores = emit ? strips.row(y - 1, segment.place) + (v - 1) * s_.wb : nullptr;
      for (int64_t x = segment.begin; x < segment.end; ++x) {
        const int64_t i = x - segment.begin, at = (segment.place + i) * wide_;
        const T* product = products.data() + (x - left) * ld + W;
        const T* from[3] = {x > 0 ? product - ld - 1 : zeros + W,
                            product,
                            x + 1 < s_.w ? product + ld + 1 : zeros + W};
        T* const now = sums[0] + at;
        const T *const two = sums[1] + at, *const one = sums[2] + at;  // of y - 2 and y - 1
        T* const out = emit ? scores + i * strips.stride() : nullptr;
        if (!emit) {
          line<true, false, false>(from, now, one, two, scale, out);
        } else if (sum) {
          old ? line<true, true, true>(from, now, one, two, scale, out)
              : line<true, true, false>(from, now, one, two, scale, out);
        } else {
          old ? line<false, true, true>(from, now, one, two, scale, out)
              : line<false, true, false>(from, now, one, two, scale, out);
        }
      }
    }
  }

  // One query column of a row pair: its sum along x, and the score it completes.
  template <bool SUM, bool EMIT, bool OLD>
  void line(
      const T* const from[3], T* now, const T* one, const T* two, const T* scale, T* out) const {
    for (int64_t u = 0; u < s_.wb; u += W) {
      Vector<T> score = {};
      if (SUM) {
        const Vector<T> sum = load(from[0] + u) + load(from[1] + u) + load(from[2] + u);
        store(now + u, sum);
        score = sum;
      }
      if (!EMIT) continue;
      score += load(one + u);
      if (OLD) score += load(two + u);
      if (u + W <= s_.wb) {
        store(out + u, score * load(scale + u));
      } else {
        // The next row of keys may be written by another thread.
        score *= load(scale + u);
        std::memcpy(out + u, &score, sizeof(T) * (s_.wb - u));
      }
    }
  }

  // A row for each place of the window.
  T* row_sums(int64_t delta, int64_t y) {
    const int64_t chain = (delta % chains_ + chains_) % chains_;
    return sums_.data() + (chain * 3 + y % 3) * window_.columns * wide_;
  }

  const AttentionSample<T>& s_;
  const Window& window_;
  const int64_t wide_, chains_;
  Buffer<T> sums_;
  std::vector<std::unique_ptr<Buffer<T>>> queries_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
