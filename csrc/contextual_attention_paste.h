// Weighted sums of feature vectors with few weights that are not zero, and the strips of attention
// that the weights come from.
#pragma once

#include <type_traits>

#include "contextual_attention_sample.h"

namespace inpaint {
namespace INPAINT_ISA {

// sum[row] = sum over k of weight[row][k] * vector[k], for a few rows of weights given piece by
// piece in the order of k.
//
// A softmax over thousands of scores leaves most weights exactly zero (float32 holds nothing below
// exp(-87)), so each tile of rows keeps a list of the k at which any of its weights is not: what is
// not in the list costs a look, no multiplications.
template <class T>
class WeightedSum {
 public:
  static constexpr int64_t kPiece = 128;  // most numbers of a piece

  // vectors: [panel][k][kPanel], `depth` of them in a panel.
  WeightedSum(const T* vectors, int64_t depth, int64_t panels, int64_t rows)
      : vectors_(vectors),
        depth_(depth),
        panels_(panels),
        rows_(rows),
        tiles_(tile_count(rows)),
        left_(tiles_ * kRowTile * kStride),
        sums_(rows * panels * kPanel<T>),
        lists_(tiles_ * kDepth),
        fill_(tiles_, 0),
        count_(tiles_, 0) {
    std::fill_n(sums_.data(), rows * panels * kPanel<T>, T(0));
  }

  int64_t tiles() const { return tiles_; }
  int64_t begin(int64_t tile) const { return tile_begin(rows_, tile); }
  int64_t end(int64_t tile) const { return tile_begin(rows_, tile + 1); }

  // Makes room for a piece.
  void prepare(int64_t tile, int64_t width) {
    if (fill_[tile] + width > kDepth) flush();
  }

  // Where the weights of a row of a tile go; whole vectors may be stored.
  T* weights(int64_t tile, int64_t row) {
    return left_.data() + (tile * kRowTile + row) * kStride + fill_[tile];
  }

  // Takes in the piece that `weights` was asked for, which begins at k.
  void push(int64_t tile, int64_t k, int64_t width) {
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typedef Int IntVector __attribute__((vector_size(kVectorBytes)));
    const int64_t rows = end(tile) - begin(tile);
    const T* left = left_.data() + tile * kRowTile * kStride + fill_[tile];
    Entry* to = lists_.data() + tile * kDepth;
    int64_t count = count_[tile];
    for (int64_t j = 0; j < width; j += W) {
      IntVector any = {};
      for (int64_t r = 0; r < rows; ++r) any |= load(left + r * kStride + j) != Vector<T>{};
      Int lanes[W];
      std::memcpy(lanes, &any, sizeof(any));
      const int64_t last = std::min(W, width - j);
      for (int64_t i = 0; i < last; ++i) {
        to[count] = {int32_t(fill_[tile] + j + i), int32_t(k + j + i)};
        count += lanes[i] != 0;
      }
    }
    count_[tile] = count;
    fill_[tile] += width;
  }

  // The sums of a row, all panels one after the other; after flush().
  const T* sums(int64_t row) const { return sums_.data() + row * panels_ * kPanel<T>; }

  void flush() {
    for (int64_t panel = 0; panel < panels_; ++panel) {
      for (int64_t tile = 0; tile < tiles_; ++tile) {
        if (count_[tile] == 0) continue;
        Tile body{left_.data() + tile * kRowTile * kStride,
                  vectors_ + panel * depth_ * kPanel<T>,
                  sums_.data() + (begin(tile) * panels_ + panel) * kPanel<T>,
                  panels_ * kPanel<T>,
                  lists_.data() + tile * kDepth,
                  count_[tile]};
        with_rows(end(tile) - begin(tile), body);
      }
    }
    std::fill(fill_.begin(), fill_.end(), 0);
    std::fill(count_.begin(), count_.end(), 0);
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  // Numbers of a row held back: a panel of as many vectors stays in the first-level cache.
  static constexpr int64_t kDepth = 256;
  static constexpr int64_t kStride = kDepth + 2 * W;

  struct Entry {
    int32_t left, right;
  };

  struct Tile {
    const T *left, *right;
    T* sums;
    int64_t ld;
    const Entry* list;
    int64_t count;

    template <int ROWS>
    void run() {
      Vector<T> v[ROWS][2];
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        v[r][0] = load(sums + r * ld);
        v[r][1] = load(sums + r * ld + W);
      }
      for (int64_t i = 0; i < count; ++i) {
        const T* a = left + list[i].left;
        const T* b = right + int64_t(list[i].right) * kPanel<T>;
        const Vector<T> b0 = load(b), b1 = load(b + W);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
          const Vector<T> x = broadcast(a[r * kStride]);
          v[r][0] += x * b0;
          v[r][1] += x * b1;
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        store(sums + r * ld, v[r][0]);
        store(sums + r * ld + W, v[r][1]);
      }
    }
  };

  const T* vectors_;
  const int64_t depth_, panels_, rows_, tiles_;
  Buffer<T> left_, sums_;
  Buffer<Entry> lists_;
  std::vector<int64_t> fill_, count_;
};

// Attention of a few rows of queries: per query a number for every key, in rows of w1 = wb + 1 of
// which the last is always zero. Of a query only the key rows marked hot hold anything.
template <class T>
class AttentionStrips {
 public:
  AttentionStrips(const AttentionSample<T>& sample, const Window& window, int64_t ring)
      : s_(sample),
        begin_(window.begin),
        end_(window.end),
        ring_(ring),
        stride_(round_up(W + sample.hb * sample.w1 + W, W)),
        data_(ring * (end_ - begin_) * stride_),
        hot_((ring * (end_ - begin_) + 1) * (sample.hb + 2)),
        zeros_(sample.w1 + 3 * W) {
    std::fill_n(data_.data(), ring * (end_ - begin_) * stride_, T(0));
    std::fill_n(hot_.data(), (ring * (end_ - begin_) + 1) * (sample.hb + 2), uint8_t(0));
    std::fill_n(zeros_.data(), sample.w1 + 3 * W, T(0));
  }

  T* row(int64_t y, int64_t x) { return data_.data() + slot(y, x) * stride_ + W; }
  uint8_t* hot(int64_t y, int64_t x) { return hot_.data() + slot(y, x) * (s_.hb + 2) + 1; }

  // What a tile of blocks (R, K0 .. K0 + count) of the result is made of.
  class Blocks {
   public:
    Blocks(AttentionStrips& strips, int64_t R, int64_t K0, int64_t count)
        : zeros_(strips.zeros_.data() + W), w1_(strips.s_.w1), any_(strips.s_.hb + 1, 0) {
      const int64_t hb = strips.s_.hb;
      for (int64_t K = K0 - 1; K < K0 + count; ++K) {
        for (int64_t t = 0; t < 2; ++t) {
          const int64_t y = R - t;
          const bool inside = y >= 0 && y < strips.s_.h && K >= strips.begin_ && K < strips.end_;
          const uint8_t* hot = inside ? strips.hot(y, K) : strips.cold();
          queries_[t].push_back({inside ? strips.row(y, K) : zeros_, hot});
          for (int64_t V = 0; V <= hb; ++V) any_[V] |= hot[V - t];
        }
      }
    }

    // Whether any block (V, *) is not zero.
    bool any(int64_t V) const { return any_[V] != 0; }

    // Blocks (V, first .. first + width) of row `index` of the tile: the sum of the attention of
    // the up to four pairs of patches that cover both blocks.
    void write(int64_t index, int64_t V, int64_t first, int64_t width, T* out) const {
      const T* const a = part(0, index + 1, V, 0) + first;
      const T* const b = part(0, index, V, 1) + first;
      const T* const c = part(1, index + 1, V, 0) + first;
      const T* const d = part(1, index, V, 1) + first;
      for (int64_t j = 0; j < width; j += W)
        store(out + j, (load(a + j) + load(b + j)) + (load(c + j) + load(d + j)));
    }

   private:
    struct Query {
      const T* row;
      const uint8_t* hot;
    };

    const T* part(int64_t t, int64_t index, int64_t V, int64_t shift) const {
      const Query& query = queries_[t][index];
      return query.hot[V - t] ? query.row + (V - t) * w1_ - shift : zeros_;
    }

    const T* zeros_;
    const int64_t w1_;
    std::vector<Query> queries_[2];
    std::vector<uint8_t> any_;
  };

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  int64_t slot(int64_t y, int64_t x) const { return y % ring_ * (end_ - begin_) + x - begin_; }

  const uint8_t* cold() const { return hot_.data() + ring_ * (end_ - begin_) * (s_.hb + 2) + 1; }

  const AttentionSample<T>& s_;
  const int64_t begin_, end_, ring_, stride_;
  Buffer<T> data_;
  // With a zero before and behind the key rows of each query, and a query of zeros at the end.
  Buffer<uint8_t> hot_;
  Buffer<T> zeros_;
};

// The pixels of block row V as vectors of rate * rate * C numbers, (w1, that), zero outside the
// image and rounded up to whole panels.
template <class T>
void block_row(const ImageView<T>& image,
               const AttentionSample<T>& s,
               int64_t height,
               int64_t width,
               int64_t columns,
               int64_t V,
               int64_t ld,
               T* out) {
  std::fill_n(out, columns * ld, T(0));
  const T* sample = image.data + s.n * image.stride_n;
  for (int64_t a = 0; a < s.rate; ++a) {
    const int64_t y = V * s.rate - s.before + a;
    if (y < 0 || y >= height) continue;
    const T* row = sample + y * image.stride_h;
    for (int64_t c0 = 0; c0 < s.channels; c0 += 16) {
      const int64_t c1 = std::min(c0 + 16, s.channels);
      for (int64_t x = 0; x < width; ++x) {
        const int64_t U = (x + s.before) / s.rate, b = (x + s.before) % s.rate;
        if (U >= columns) break;
        T* to = out + U * ld + (a * s.rate + b) * s.channels;
        for (int64_t c = c0; c < c1; ++c) to[c] = row[c * image.stride_c + x * image.stride_w];
      }
    }
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
