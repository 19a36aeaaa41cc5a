// One sample of contextual attention: sizes, packed operands, the sums of the fuse step.
//
// Sizes: h x w query cells, hb x wb key cells, rate x rate feature pixels a cell. Traffic: the keys
// are packed once a sample; a fuse sum reads nine rows of scores and writes one.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "attention/needed.h"
#include "matching/patch_norms.h"
#include "matching/patch_pack.h"

namespace inpaint {
namespace INPAINT_ISA {

// Indices of the feature pixels that stand for the cells along an axis.
inline std::vector<int64_t> picked(int64_t size, int64_t cells, int64_t rate, bool align_corners) {
  std::vector<int64_t> at(cells);
  for (int64_t i = 0; i < cells; ++i) {
    // round half up of i * (size - 1) / (cells - 1)
    at[i] = !align_corners ? i * rate
            : cells > 1    ? (2 * i * (size - 1) + cells - 1) / (2 * (cells - 1))
                           : 0;
  }
  return at;
}

template <class T>
class AttentionSample {
 public:
  AttentionSample(const ContextualAttentionArgs<T>& args, int64_t n)
      : args(args),
        n(n),
        channels(args.channels),
        rate(args.rate),
        before(args.rate / 2),
        h(args.query_rows()),
        w(args.query_columns()),
        hb(args.key_rows()),
        wb(args.key_columns()),
        keys_count(hb * wb),
        w1(wb + 1),
        blocks_count((hb + 1) * w1),
        threads(w * keys_count * channels < kWorthThreads ? 1 : args.threads),
        query_ys(picked(args.fg_height, h, rate, args.align_corners)),
        query_xs(picked(args.fg_width, w, rate, args.align_corners)),
        key_ys(picked(args.bg_height, hb, rate, args.align_corners)),
        key_xs(picked(args.bg_width, wb, rate, args.align_corners)),
        key_width(round_up(wb, kPanel<T>)),
        keys(hb * channels * key_width),
        inverse_norm(keys_count + Simd<T>::kWidth),
        valid(keys_count + Simd<T>::kWidth) {
    pack_keys();
    find_valid();
  }

  // Query pixels of any row in these columns, as tiles.
  PixelColumns<T> query_columns(const std::vector<int64_t>& columns) const {
    std::vector<int64_t> at;
    for (int64_t x : columns) at.push_back(query_xs[x] * args.fg.stride_w);
    return PixelColumns<T>(std::move(at), 0);
  }
  const T* query_row(int64_t y) const {
    return args.fg.data + n * args.fg.stride_n + query_ys[y] * args.fg.stride_h;
  }
  const T* key_row(int64_t v) const {
    return args.bg.data + n * args.bg.stride_n + key_ys[v] * args.bg.stride_h;
  }

  // Offsets of the picked keys of a row, in elements.
  std::vector<int64_t> key_places() const {
    std::vector<int64_t> at;
    for (int64_t x : key_xs) at.push_back(x * args.bg.stride_w);
    return at;
  }

  // Calls body(begin, end) for windows of query columns. A strip of a window, (columns) x (keys),
  // takes at most `bytes`, save that a window has at least the columns of two tiles. So memory
  // grows with the number of keys alone.
  template <class Body>
  void each_window(int64_t bytes, const Body& body) const {
    const int64_t column = keys_count * int64_t(sizeof(T));
    const int64_t windows = ceil_div(w, std::max<int64_t>(bytes / column, 2 * kRowTile));
    for (int64_t i = 0; i < windows; ++i) body(w * i / windows, w * (i + 1) / windows);
  }

  // True if queries and keys are the same pixels, so that products are symmetric, and so few that
  // all scores can be kept.
  bool mirrors() const {
    const ImageView<T>&f = args.fg, &b = args.bg;
    return keys_count * keys_count * int64_t(sizeof(T)) <= kMostMirrored && f.data == b.data &&
           h == hb && w == wb && args.fg_height == args.bg_height &&
           args.fg_width == args.bg_width && f.stride_n == b.stride_n && f.stride_c == b.stride_c &&
           f.stride_h == b.stride_h && f.stride_w == b.stride_w;
  }

  const ContextualAttentionArgs<T>& args;
  const int64_t n, channels, rate;
  const int64_t before;  // pixels of the first block that lie outside the image
  const int64_t h, w, hb, wb, keys_count;
  // A patch covers 2 x 2 blocks of rate x rate pixels; blocks lie on a grid of (hb + 1) x w1.
  const int64_t w1, blocks_count;
  const int threads;
  const std::vector<int64_t> query_ys, query_xs, key_ys, key_xs;
  const int64_t key_width;
  Buffer<T> keys;          // [row][panel][channel][kPanel]
  Buffer<T> inverse_norm;  // of key patches
  Buffer<T> valid;         // 1 where a key may be attended to, else 0
  int64_t missing = 0;     // number of keys that may not

 private:
  // Multiply-adds of a row of queries below which waking threads costs more time than it saves.
  static constexpr int64_t kWorthThreads = int64_t(1) << 20;
  // Most bytes of scores for which symmetry is used.
  static constexpr int64_t kMostMirrored = int64_t(8) << 20;

  void pack_keys() {
    const PixelColumns<T> columns(key_places(), kPanel<T>);
    Buffer<double> squares(keys_count);
    parallel_tasks(hb, threads, [&](int64_t v) {
      T* const to = keys.data() + v * channels * key_width;
      columns.pack(key_row(v), args.bg.stride_c, channels, to);
      for (int64_t group = 0; group < columns.groups(); ++group) {
        double panel[kPanel<T>];
        panel_squares(to + columns.begin(group) * channels, channels, panel);
        std::copy_n(panel,
                    columns.end(group) - columns.begin(group),
                    squares.data() + v * wb + columns.begin(group));
      }
    });
    Buffer<double> sums(keys_count);
    box_sums(squares.data(), hb, wb, 3, 1, threads, sums.data());
    for (int64_t q = 0; q < keys_count; ++q) {
      const double norm = args.sum_norm ? std::sqrt(sums[q] + 9e-4 * double(channels))
                                        : std::max(std::sqrt(sums[q]), 1e-4);
      inverse_norm[q] = T(1 / norm);
    }
    std::fill_n(inverse_norm.data() + keys_count, Simd<T>::kWidth, T(0));
  }

  // A key is missing if any cell of its 3 x 3 patch is.
  void find_valid() {
    std::fill_n(valid.data(), keys_count, T(1));
    std::fill_n(valid.data() + keys_count, Simd<T>::kWidth, T(0));
    if (!args.hole.data) return;
    const uint8_t* const hole = args.hole.data + n * args.hole.stride_n;
    Buffer<uint8_t> whole(keys_count);
    const auto bad = [&](int64_t q) { return hole[q] != 0; };
    whole_patches(hb, wb, 3, 1, threads, bad, whole.data());
    for (int64_t q = 0; q < keys_count; ++q) {
      valid[q] = T(whole[q]);
      missing += !whole[q];
    }
  }
};

// out[j] = sum over k of from[k][j], begin <= j < end, in whole vectors.
template <class T>
inline void add_up(const T* const* from, int64_t count, int64_t begin, int64_t end, T* out) {
  constexpr int64_t W = Simd<T>::kWidth;
  if (count == 9) {
    for (int64_t j = begin; j < end; j += W) {
      const Vector<T> a = load(from[0] + j) + load(from[1] + j) + load(from[2] + j);
      const Vector<T> b = load(from[3] + j) + load(from[4] + j) + load(from[5] + j);
      const Vector<T> c = load(from[6] + j) + load(from[7] + j) + load(from[8] + j);
      store(out + j, a + b + c);
    }
    return;
  }
  for (int64_t j = begin; j < end; j += W) {
    Vector<T> sum = load(from[0] + j);
    for (int64_t k = 1; k < count; ++k) sum += load(from[k] + j);
    store(out + j, sum);
  }
}

// The fuse step. Both indices of the matrix of queries x keys are shifted together: by t in
// {-1, 0, 1} along grids flattened column by column, and by s in {-1, 0, 1} along grids flattened
// row by row. out[i, j] is the sum of the matrix over these 9 shifts. For each shift the keys lie
// at one offset, save for those next to the ends of a column, which continue in the next column.
// The latter are `pieces_`; all the rest is one loop.
//
// The forward pass shifts along columns first, the gradient (adjoint) along rows first.
template <class T>
class FuseSum {
 public:
  FuseSum(int64_t rows, int64_t columns, bool adjoint)
      : n_(rows * columns),
        // Whole vectors, so that what is stored crosses no cache line.
        begin_(std::min(round_up(columns + 1, Simd<T>::kWidth), n_)),
        end_(n_ - columns - 1) {
    if (end_ <= begin_) begin_ = end_ = n_;
    for (int64_t t = -1; t <= 1; ++t) {
      for (int64_t s = -1; s <= 1; ++s) {
        const int64_t which = 3 * (t + 1) + s + 1, far = (rows - 1) * columns - 1;
        // Begin, end and offset of the shift along columns: of indices that stay in their column,
        // and of those that go from its end to the next column.
        const int64_t within[3] = {t < 0 ? columns : 0, t > 0 ? n_ - columns : n_, t * columns};
        const int64_t beyond[3] = {t < 0 ? 1 : n_ - columns, t < 0 ? columns : n_ - 1, -t * far};
        add(which, within, s, adjoint);
        if (t != 0) add(which, beyond, s, adjoint);
      }
    }
    for (int64_t k = 0; k < 9; ++k) inner_[k] = (k / 3 - 1) * columns + k % 3 - 1;
  }

  // rows[k]: scores of neighbour k, zeros for one that does not exist. They are read from
  // -columns - 1 to n + columns + W and must be zero outside 0 .. n - 1; `out` has n + W numbers.
  void run(const T* const rows[9], T* out) const {
    const T* from[9];
    for (int k = 0; k < 9; ++k) from[k] = rows[k] + inner_[k];
    add_up(from, 9, begin_, end_, out);
    edge(rows, out, 0, begin_);
    edge(rows, out, end_, n_);
  }

 private:
  struct Piece {
    int64_t which, begin, end, offset;
  };

  void add(int64_t which, const int64_t range[3], int64_t s, bool adjoint) {
    Piece piece{which, range[0], range[1], range[2] + s};
    if (adjoint) {
      // The range is one of j + s.
      piece.begin -= s;
      piece.end -= s;
      piece.begin = std::max<int64_t>(piece.begin, std::max<int64_t>(0, -s));
      piece.end = std::min(piece.end, n_ - std::max<int64_t>(0, s));
    } else {
      // Only read what exists: 0 <= j + offset < n.
      piece.begin = std::max(piece.begin, -piece.offset);
      piece.end = std::min(piece.end, n_ - piece.offset);
    }
    piece.begin = std::max<int64_t>(piece.begin, 0);
    piece.end = std::min(piece.end, n_);
    if (piece.begin < piece.end) pieces_.push_back(piece);
  }

  void edge(const T* const rows[9], T* out, int64_t begin, int64_t end) const {
    if (begin >= end) return;
    std::fill(out + begin, out + end, T(0));
    for (const Piece& piece : pieces_) {
      const T* from = rows[piece.which] + piece.offset;
      const int64_t last = std::min(end, piece.end);
      for (int64_t j = std::max(begin, piece.begin); j < last; ++j) out[j] += from[j];
    }
  }

  const int64_t n_;
  int64_t begin_, end_;
  int64_t inner_[9];
  std::vector<Piece> pieces_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
