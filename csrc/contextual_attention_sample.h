// One sample of contextual attention: sizes, packed operands, the sums of the fuse step.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "contextual_attention.h"
#include "patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {

// Index of the feature pixel that stands for each cell along an axis.
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

// Columns of query cells that are worked on together: [begin, end), and around them the columns
// whose scores the fuse step adds in, which wrap around the ends of a row.
class Window {
 public:
  struct Segment {
    int64_t begin, end, place;  // columns, and where the first of them lies in a strip
  };

  Window(int64_t begin, int64_t end, int64_t width, int64_t halo)
      : begin(begin), end(end), place_(width, -1) {
    std::vector<bool> in(width, false);
    for (int64_t x = begin - halo; x < end + halo; ++x) in[((x % width) + width) % width] = true;
    for (int64_t x = 0; x < width; ++x) {
      if (!in[x]) continue;
      if (x == 0 || !in[x - 1]) segments.push_back({x, x, columns});
      segments.back().end = x + 1;
      place_[x] = columns++;
    }
  }

  int64_t place(int64_t x) const { return place_[x]; }

  const int64_t begin, end;
  int64_t columns = 0;
  std::vector<Segment> segments;

 private:
  std::vector<int64_t> place_;
};

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
    norms();
    find_valid();
  }

  // Query pixels [begin, end) of row y, as [tile][channel][rows of the tile].
  void pack_queries(int64_t y, int64_t begin, int64_t end, T* to) const {
    const ImageView<T>& image = args.fg;
    const T* row = image.data + n * image.stride_n + query_ys[y] * image.stride_h;
    for (int64_t tile = 0; tile < tile_count(end - begin); ++tile) {
      const int64_t first = begin + tile_begin(end - begin, tile);
      const int64_t last = begin + tile_begin(end - begin, tile + 1);
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t x = first; x < last; ++x)
          *to++ = row[c * image.stride_c + query_xs[x] * image.stride_w];
    }
  }

  // Calls body(begin, end) for windows of query columns so narrow that a strip of them, (columns) x
  // (keys), takes at most `bytes`, but no narrower than the products need. So memory grows with the
  // number of keys alone.
  template <class Body>
  void each_window(int64_t bytes, const Body& body) const {
    const int64_t column = keys_count * int64_t(sizeof(T));
    const int64_t windows = ceil_div(w, std::max<int64_t>(bytes / column, 2 * kRowTile));
    for (int64_t i = 0; i < windows; ++i) body(w * i / windows, w * (i + 1) / windows);
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
  int64_t missing = 0;     // keys that may not

 private:
  // Multiply-adds of a row of queries below which waking threads costs more than they bring.
  static constexpr int64_t kWorthThreads = int64_t(1) << 20;

  void pack_keys() {
    const ImageView<T>& image = args.bg;
    parallel_tasks(hb, threads, [&](int64_t v) {
      const T* row = image.data + n * image.stride_n + key_ys[v] * image.stride_h;
      T* to = keys.data() + v * channels * key_width;
      for (int64_t u0 = 0; u0 < key_width; u0 += kPanel<T>)
        for (int64_t c = 0; c < channels; ++c, to += kPanel<T>)
          for (int64_t u = 0; u < kPanel<T>; ++u)
            to[u] = u0 + u < wb ? row[c * image.stride_c + key_xs[u0 + u] * image.stride_w] : T(0);
    });
  }

  void norms() {
    Buffer<double> pixel(keys_count);
    const ImageView<T>& image = args.bg;
    parallel_tasks(hb, threads, [&](int64_t v) {
      const T* row = image.data + n * image.stride_n + key_ys[v] * image.stride_h;
      double* sum = pixel.data() + v * wb;
      std::fill_n(sum, wb, 0.0);
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t u = 0; u < wb; ++u) {
          const double x = double(row[c * image.stride_c + key_xs[u] * image.stride_w]);
          sum[u] += x * x;
        }
      }
    });
    for (int64_t v = 0; v < hb; ++v) {
      for (int64_t u = 0; u < wb; ++u) {
        double sum = 0;
        for (int64_t y = std::max<int64_t>(v - 1, 0); y < std::min(v + 2, hb); ++y)
          for (int64_t x = std::max<int64_t>(u - 1, 0); x < std::min(u + 2, wb); ++x)
            sum += pixel[y * wb + x];
        const double norm = args.sum_norm ? std::sqrt(sum + 9e-4 * double(channels))
                                          : std::max(std::sqrt(sum), 1e-4);
        inverse_norm[v * wb + u] = T(1 / norm);
      }
    }
    std::fill_n(inverse_norm.data() + keys_count, Simd<T>::kWidth, T(0));
  }

  // A key is missing if any cell of its 3 x 3 patch is.
  void find_valid() {
    const uint8_t* hole = args.hole.data ? args.hole.data + n * args.hole.stride_n : nullptr;
    for (int64_t v = 0; v < hb; ++v) {
      for (int64_t u = 0; u < wb; ++u) {
        bool whole = true;
        for (int64_t y = std::max<int64_t>(v - 1, 0); hole && y < std::min(v + 2, hb); ++y)
          for (int64_t x = std::max<int64_t>(u - 1, 0); x < std::min(u + 2, wb); ++x)
            whole = whole && !hole[y * wb + x];
        valid[v * wb + u] = T(whole);
        missing += !whole;
      }
    }
    std::fill_n(valid.data() + keys_count, Simd<T>::kWidth, T(0));
  }
};

// The fuse step: over the matrix of queries x keys, flattened along rows (S) and along columns (C),
// out[i, j] = sum over t in {-1, 0, 1} of C-shifts and s in {-1, 0, 1} of S-shifts of both indices.
// A query has 9 neighbours; each meets the keys at one offset, save for the keys next to the ends
// of a column, which continue in the next column. Those are `pieces`; all the rest is one loop.
//
// The sums of the forward pass shift along columns first, those of the gradient along rows first.
template <class T>
class FuseSum {
 public:
  FuseSum(int64_t rows, int64_t columns, bool adjoint)
      : n_(rows * columns), begin_(std::min(columns + 1, n_)), end_(n_ - columns - 1) {
    if (end_ <= begin_) begin_ = end_ = n_;
    for (int64_t t = -1; t <= 1; ++t) {
      for (int64_t s = -1; s <= 1; ++s) {
        const int64_t which = 3 * (t + 1) + s + 1, far = (rows - 1) * columns - 1;
        // Range of the index that is shifted along columns, and where it goes: within the column,
        // and from its end to the next column.
        const int64_t within[3] = {t < 0 ? columns : 0, t > 0 ? n_ - columns : n_, t * columns};
        const int64_t beyond[3] = {t < 0 ? 1 : n_ - columns, t < 0 ? columns : n_ - 1, -t * far};
        add(which, within, s, adjoint);
        if (t != 0) add(which, beyond, s, adjoint);
      }
    }
    for (int64_t k = 0; k < 9; ++k) inner_[k] = (k / 3 - 1) * columns + k % 3 - 1;
  }

  // rows[k]: scores of neighbour k, zeros for one that does not exist. They are read from
  // -columns - 1 to n + columns + W, where there must be zeros beyond 0 .. n - 1; out has n + W.
  void run(const T* const rows[9], T* out) const {
    constexpr int W = Simd<T>::kWidth;
    const T* from[9];
    for (int k = 0; k < 9; ++k) from[k] = rows[k] + inner_[k];
    for (int64_t j = begin_; j < end_; j += W) {
      const Vector<T> a = load(from[0] + j) + load(from[1] + j) + load(from[2] + j);
      const Vector<T> b = load(from[3] + j) + load(from[4] + j) + load(from[5] + j);
      const Vector<T> c = load(from[6] + j) + load(from[7] + j) + load(from[8] + j);
      store(out + j, a + b + c);
    }
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
      // The range is that of j + s.
      piece.begin -= s;
      piece.end -= s;
      piece.begin = std::max<int64_t>(piece.begin, std::max<int64_t>(0, -s));
      piece.end = std::min(piece.end, n_ - std::max<int64_t>(0, s));
    } else {
      // What is read must exist: 0 <= j + offset < n.
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
