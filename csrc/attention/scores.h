// Scores of contextual attention, for a window of query columns, a few query rows at a time.
//
// Algebra: S[p, q] = <patch_p, patch_q> / norm_q, by the diagonal sums of matching/patch_gram.h.
// Tiling: chains of row pairs run in parallel; each keeps the sums of its last three row pairs.
// Traffic: a row pair stays in the second-level cache, a score is written once.
#pragma once

#include "attention/sample.h"
#include "base/transpose.h"

namespace inpaint {
namespace INPAINT_ISA {

// A ring of rows of the query grid, each a strip of (window columns) x (keys). Before and after the
// numbers of a query lie the zeros that FuseSum reads.
//
// In the fuse step the last row of queries is a neighbour of the first. So row 0 and the last row
// have strips of their own, and of the rows next to them single queries are kept, see
// keep_neighbour().
template <class T>
class WrapStrips {
 public:
  WrapStrips(const AttentionSample<T>& sample,
             const QueryWindow& window,
             int64_t ring,
             bool all = false)
      : h_(sample.h),
        w_(sample.w),
        keys_(sample.keys_count),
        window_(window),
        all_(all || ring + 2 >= sample.h),
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

  // True if every row has a strip, so that nothing is computed twice.
  bool all() const { return all_; }

  T* row(int64_t y, int64_t place) {
    const int64_t slot = all_ ? y : y == 0 ? 0 : y == h_ - 1 ? 1 : 2 + y % ring_;
    return data_.data() + slot * strip_ + place * stride_ + front_;
  }

  // Distance from one place of a row to the next.
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
        const bool exists = fuse_shift(h_, w_, t, s, adjoint, ny, nx);
        out[3 * (t + 1) + s + 1] = exists ? near(y, ny, nx) : zeros_row() + front_;
      }
    }
  }

 private:
  int64_t data_size() const { return strip_ * (all_ ? ring_ : ring_ + 2) + 3 * stride_; }
  T* zeros_row() { return data_.data() + data_size() - stride_; }
  T* kept(int64_t i) { return data_.data() + data_size() - (3 - i) * stride_ + front_; }

  const T* near(int64_t y, int64_t ny, int64_t nx) {
    const bool across = ny < y - 2 || ny > y + 2;
    if (!all_ && across && ny == 1) return kept(0);
    if (!all_ && across && ny == h_ - 2) return kept(1);
    return row(ny, window_.place(nx));
  }

  const int64_t h_, w_, keys_;
  const QueryWindow& window_;
  const bool all_;
  const int64_t ring_, front_, stride_, strip_;
  Buffer<T> data_;
};

// Scores of 3 x 3 patches, zeros outside the images.
//
// The row pairs (y, y + delta) of one delta are a chain. Chains run in parallel, a few rows at a
// time, and keep the sums of their last three row pairs. Where queries and keys are the same pixels
// and all rows fit, the chains of delta and -delta have the same products: one serves both, if all
// scores are needed.
template <class T>
class ScoreStrips {
 public:
  // needed: queries whose scores are computed, in columns of the window.
  ScoreStrips(const AttentionSample<T>& sample,
              const QueryWindow& window,
              const CellMap& needed,
              int64_t ring,
              int64_t step)
      : mirrors_(sample.mirrors() && needed.all()),
        strips(sample, window, ring, mirrors_),
        s_(sample),
        window_(window),
        row_length_(round_up(sample.wb, W)),
        rows_(product_rows(needed)),
        // Where all rows are computed at once, nothing is kept from call to call.
        chains_(strips.all() ? 0 : sample.hb + step + 6),
        sums_(chains_ * 3 * window.columns * row_length_),
        starts_(starts(rows_)),
        queries_(starts_.back() * sample.channels) {
    parallel_tasks(sample.h, sample.threads, [&](int64_t y) {
      sample.query_columns(rows_[y].pixels)
          .pack(sample.query_row(y), sample.args.fg.stride_c, sample.channels, queries(y));
    });
  }

  // Scores of query rows [first, last). The sums along x of rows less than `known` are there
  // already: those of first - 1 and first, from the call before.
  void compute(int64_t first, int64_t last, int64_t known) {
    bool any = false;
    for (int64_t y = known; y <= last; ++y) any = any || !rows_[y].runs.empty();
    if (!any) return;
    const int64_t lowest = mirrors_ ? 0 : -last, highest = s_.hb - known;
    parallel_tasks(highest - lowest + 1, s_.threads, [&](int64_t task) {
      chain(lowest + task, first, last, known);
    });
  }

  // Scores of query (y, x), after the fuse step if there is one, which writes them to `row`.
  const T* query(const FuseSum<T>& fuse, int64_t y, int64_t x, T* row) {
    if (!s_.args.fuse) return strips.row(y, window_.place(x));
    const T* rows[9];
    strips.neighbours(y, x, false, rows);
    fuse.run(rows, row);
    return row;
  }

 private:
  const bool mirrors_;

 public:
  WrapStrips<T> strips;

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  static std::vector<int64_t> starts(const std::vector<ProductRow>& rows) {
    std::vector<int64_t> at{0};
    for (const ProductRow& row : rows) at.push_back(at.back() + int64_t(row.pixels.size()));
    return at;
  }
  T* queries(int64_t y) { return queries_.data() + starts_[y] * s_.channels; }

  // Row pairs (y, y + delta).
  void chain(int64_t delta, int64_t first, int64_t last, int64_t known) {
    const int64_t row = window_.columns * row_length_;
    int64_t most = 0;
    for (int64_t y = known; y <= last; ++y) most = std::max(most, int64_t(rows_[y].pixels.size()));
    GramStrip<T> products(most, row_length_ / W, 3, {1, 1, 1});
    Buffer<T> own(strips.all() ? 3 * row : 0), raw(mirrors_ ? row : 0);
    const auto sums = [&](int64_t y, int64_t place) {
      T* const ring = strips.all() ? own.data() : sums_.data() + slot(delta) * 3 * row;
      return ring + y % 3 * row + place * row_length_;
    };
    for (int64_t y = known; y <= last; ++y) {
      const int64_t v = y + delta;
      const bool inside = y < s_.h && v >= 0 && v < s_.hb;
      const bool emits = y > first && v >= 1 && v <= s_.hb;
      if (inside && !rows_[y].pixels.empty())
        products.multiply(queries(y),
                          int64_t(rows_[y].pixels.size()),
                          s_.keys.data() + v * s_.channels * s_.key_width,
                          row_length_ / W,
                          s_.channels);
      for (const ProductRow::Run& run : rows_[y].runs) {
        const int64_t columns = run.end - run.begin, place = window_.place(run.begin);
        T* const newest = inside ? sums(y, place) : nullptr;
        if (!emits || !run.scored) {
          if (inside) products.sum_rows(run.first, columns, s_.wb, newest, row_length_);
          continue;
        }
        const int64_t count = y >= 2 && v >= 2 ? 2 : 1;
        // Those of y - count and y - 1.
        const T* const older[2] = {sums(y + 3 - count, place), sums(y + 2, place)};
        Scores scores{s_.inverse_norm.data() + (v - 1) * s_.wb,
                      strips.row(y - 1, place) + (v - 1) * s_.wb,
                      strips.stride(),
                      s_.wb};
        if (!mirrors_ || delta == 0) {
          products.sum_patches(
              run.first, columns, s_.wb, newest, older, count, row_length_, scores);
          continue;
        }
        MirroredScores both{scores, raw.data(), row_length_};
        products.sum_patches(run.first, columns, s_.wb, newest, older, count, row_length_, both);
        mirror(raw.data(), y - 1, v - 1);
      }
    }
  }

  // Divides the products of patches by the norms of the keys.
  struct Scores {
    const T* scale;
    T* out;
    const int64_t stride, width;

    void begin(int64_t) {}
    void take(int64_t u, Vector<T> product) {
      const Vector<T> score = product * load(scale + u);
      if (u + W <= width) {
        store(out + u, score);
      } else {
        // The next row of keys may be written by another thread.
        std::memcpy(out + u, &score, sizeof(T) * (width - u));
      }
    }
    void end(int64_t) { out += stride; }
  };

  // The same, and keeps the products.
  struct MirroredScores {
    Scores& scores;
    T* raw;
    const int64_t ld;

    void begin(int64_t) {}
    void take(int64_t u, Vector<T> product) {
      store(raw + u, product);
      scores.take(u, product);
    }
    void end(int64_t column) {
      raw += ld;
      scores.end(column);
    }
  };

  // The products of query row y with key row v are those of query row v with key row y.
  void mirror(const T* raw, int64_t y, int64_t v) {
    const T* const scale = s_.inverse_norm.data() + y * s_.wb;
    T* const out = strips.row(v, 0) + y * s_.wb;
    const int64_t ld = strips.stride();
    int64_t whole = 0;
    if constexpr (sizeof(T) == 4) {
      whole = s_.wb / W * W;
      for (int64_t u = 0; u < whole; u += W) {
        for (int64_t x = 0; x < whole; x += W) {
          Vector<T> square[W];
#pragma GCC unroll 16
          for (int64_t i = 0; i < W; ++i) square[i] = load(raw + (x + i) * row_length_ + u);
          transpose(square);
#pragma GCC unroll 16
          for (int64_t i = 0; i < W; ++i)
            store(out + (u + i) * ld + x, square[i] * load(scale + x));
        }
      }
    }
    for (int64_t u = 0; u < s_.wb; ++u)
      for (int64_t x = u < whole ? whole : 0; x < s_.wb; ++x)
        out[u * ld + x] = raw[x * row_length_ + u] * scale[x];
  }

  int64_t slot(int64_t delta) const { return (delta % chains_ + chains_) % chains_; }

  const AttentionSample<T>& s_;
  const QueryWindow& window_;
  const int64_t row_length_;
  const std::vector<ProductRow> rows_;
  const int64_t chains_;
  Buffer<T> sums_;                     // [chain][3][place of the window][row_length_]
  const std::vector<int64_t> starts_;  // of the rows, in pixels
  Buffer<T> queries_;                  // [row][tile][channel][rows of the tile]
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
