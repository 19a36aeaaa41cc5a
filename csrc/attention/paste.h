// Strips of attention and of blocks, and the pixels that they weigh.
//
// Algebra: a patch of 2 rate x 2 rate pixels covers 2 x 2 blocks of rate x rate pixels. So the
// result's block (R, K) is the sum of A[(R - t, K - s), (V - t, U - s)] over t, s in {0, 1}, times
// the background's block (V, U). In rows of w1 numbers such a diagonal neighbour lies at one
// distance everywhere.
//
// Tiling: rings of strips, of which only the key rows marked hot hold anything. Traffic: the
// attention is written once and read four times from the second-level cache.
#pragma once

#include "attention/sample.h"
#include "attention/weighted_sum.h"
#include "base/transpose.h"

namespace inpaint {
namespace INPAINT_ISA {

// A block of the result: row R and column K of blocks.
struct ResultBlock {
  int64_t R, K;
};

// Attention of a few rows of queries in the columns of a window. Each query has a number for every
// key, in rows of w1 = wb + 1 numbers of which the last is always zero. A key row of a query that
// is not marked hot is all zero and is never written: its memory may hold older numbers.
template <class T>
class AttentionStrips {
 public:
  AttentionStrips(const AttentionSample<T>& sample, const QueryWindow& window, int64_t ring)
      : s_(sample),
        window_(window),
        ring_(ring),
        front_(round_up(sample.w1 + 1, W)),
        stride_(round_up(front_ + sample.blocks_count + W, W)),
        data_((ring * window.columns + 1) * stride_),
        hot_((ring * window.columns + 1) * (sample.hb + 2)) {
    std::fill_n(data_.data(), (ring * window.columns + 1) * stride_, T(0));
    std::fill_n(hot_.data(), (ring * window.columns + 1) * (sample.hb + 2), uint8_t(0));
  }

  T* row(int64_t y, int64_t x) { return query(slot(y, x)); }
  uint8_t* hot(int64_t y, int64_t x) { return hot_.data() + slot(y, x) * (s_.hb + 2) + 1; }

  // Attention for a tile of blocks of the result.
  class Blocks {
   public:
    Blocks(AttentionStrips& strips, const ResultBlock* blocks, int64_t count)
        : zeros_(strips.query(strips.slots())),
          w1_(strips.s_.w1),
          any_(strips.s_.hb + 1, 0),
          all_(strips.s_.hb + 1, 1) {
      for (int64_t i = 0; i < count; ++i) {
        const auto [R, K] = blocks[i];
        // The block before may lie to the left, and share two queries.
        if (i == 0 || blocks[i - 1].R != R || blocks[i - 1].K != K - 1) add(strips, R, K - 1);
        add(strips, R, K);
        last_.push_back(int64_t(queries_[0].size()) - 1);
      }
    }

    // True if any block (V, *) is not zero.
    bool any(int64_t V) const { return any_[V] != 0; }

    // End of the stretch of rows of blocks that begins with V and that write() takes as one.
    int64_t stretch(int64_t V) const {
      const int64_t rows = int64_t(all_.size());
      int64_t end = V + 1;
      if (all_[V])
        while (end < rows && all_[end] && any_[end]) ++end;
      return end;
    }

    // For block `index` of the tile, blocks first .. first + width counted from (V, 0), all of one
    // stretch: the sum of the attention of the up to four pairs of patches that cover both blocks.
    void write(int64_t index, int64_t V, int64_t first, int64_t width, T* out) const {
      const int64_t right = last_[index], left = right - 1;
      const T* const a = key_row(0, right, V) + first;
      const T* const b = key_row(0, left, V) + first - 1;
      const T* const c = key_row(1, right, V) + first;
      const T* const d = key_row(1, left, V) + first - 1;
      for (int64_t j = 0; j < width; j += W)
        store(out + j, (load(a + j) + load(b + j)) + (load(c + j) + load(d + j)));
    }

   private:
    struct Query {
      const T* row;
      const uint8_t* hot;
    };

    // The queries (R, K) and (R - 1, K).
    void add(AttentionStrips& strips, int64_t R, int64_t K) {
      const int64_t hb = strips.s_.hb;
      for (int64_t t = 0; t < 2; ++t) {
        const int64_t y = R - t;
        const bool inside = y >= 0 && y < strips.s_.h && strips.holds(K);
        const uint8_t* hot = inside ? strips.hot(y, K) : strips.cold();
        queries_[t].push_back({inside ? strips.row(y, K) : zeros_, hot});
        if (!inside) continue;
        // Zeros lie before the first key row and after the last.
        for (int64_t V = 0; V <= hb; ++V) {
          any_[V] |= hot[V - t];
          all_[V] &= hot[V - t] || V - t < 0 || V - t >= hb;
        }
      }
    }

    const T* key_row(int64_t t, int64_t index, int64_t V) const {
      const Query& query = queries_[t][index];
      return query.hot[V - t] || all_[V] ? query.row + (V - t) * w1_ : zeros_;
    }

    const T* zeros_;
    const int64_t w1_;
    std::vector<uint8_t> any_, all_;
    std::vector<Query> queries_[2];
    std::vector<int64_t> last_;  // for each block the query of its own row and column
  };

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  bool holds(int64_t x) const { return x >= 0 && x < s_.w && window_.place(x) >= 0; }
  int64_t slot(int64_t y, int64_t x) const {
    return y % ring_ * window_.columns + window_.place(x);
  }

  int64_t slots() const { return ring_ * window_.columns; }
  T* query(int64_t slot) { return data_.data() + slot * stride_ + front_; }
  const uint8_t* cold() const { return hot_.data() + slots() * (s_.hb + 2) + 1; }

  const AttentionSample<T>& s_;
  const QueryWindow& window_;
  const int64_t ring_, front_, stride_;
  // Both with zeros before and after the key rows of each query, and a query of zeros at the end.
  Buffer<T> data_;
  Buffer<uint8_t> hot_;
};

// A ring of strips: for each place a row of numbers for all keys or blocks, with zeros around it.
template <class T>
class BlockStrips {
 public:
  BlockStrips(int64_t ring, int64_t columns, int64_t rows, int64_t w1)
      : ring_(ring),
        columns_(columns),
        front_(round_up(w1 + 1, Simd<T>::kWidth)),
        ld(round_up(front_ + rows * w1 + w1 + 1 + Simd<T>::kWidth, Simd<T>::kWidth)),
        data_(ring * columns * ld) {
    std::fill_n(data_.data(), ring * columns * ld, T(0));
  }

  T* row(int64_t y, int64_t place) {
    return data_.data() + (y % ring_ * columns_ + place) * ld + front_;
  }

 private:
  const int64_t ring_, columns_, front_;

 public:
  const int64_t ld;

 private:
  Buffer<T> data_;
};

// The pixels of row V of blocks, one vector of rate * rate * C numbers a block, ld apart; zero
// outside the image and in the rest of the last panel.
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
  // Channels often lie a power of two apart, which is the same set of the cache. So rows are copied
  // along their length first, into lines that are not.
  const int64_t padded = round_up(width, 16) + 16;
  Buffer<T> lines(16 * padded);
  for (int64_t a = 0; a < s.rate; ++a) {
    const int64_t y = V * s.rate - s.before + a;
    if (y < 0 || y >= height) continue;
    for (int64_t c0 = 0; c0 < s.channels; c0 += 16) {
      const int64_t count = std::min<int64_t>(16, s.channels - c0);
      ImageView<T> some = image;
      some.data += c0 * image.stride_c;
      copy_row(some, s.n, y, count, width, nullptr, lines.data(), padded, width);
      const int64_t end = std::min(width, columns * s.rate - s.before);
      const auto place = [&](int64_t x) {
        const int64_t U = (x + s.before) / s.rate, b = (x + s.before) % s.rate;
        return out + U * ld + (a * s.rate + b) * s.channels + c0;
      };
      int64_t x = 0;
      if constexpr (sizeof(T) == 4) {
        constexpr int64_t W = Simd<T>::kWidth;
        for (; count == 16 && x + W <= end; x += W) {
          for (int64_t c = 0; c < 16; c += W) {
            Vector<T> square[W];
#pragma GCC unroll 16
            for (int64_t i = 0; i < W; ++i) square[i] = load(lines.data() + (c + i) * padded + x);
            transpose(square);
#pragma GCC unroll 16
            for (int64_t i = 0; i < W; ++i) store(place(x + i) + c, square[i]);
          }
        }
      }
      for (; x < end; ++x)
        for (int64_t c = 0; c < count; ++c) place(x)[c] = lines[c * padded + x];
    }
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
