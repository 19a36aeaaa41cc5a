// Strips of attention, and the blocks of pixels that it weighs.
#pragma once

#include "contextual_attention_sample.h"
#include "weighted_sum.h"

namespace inpaint {
namespace INPAINT_ISA {

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
