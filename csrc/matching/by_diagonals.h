// Nearest patches for few channels (RGB and the like), one row pair at a time.
//
// Algebra: for a fixed row offset delta and a fixed j, lane l of query column m holds the key
// column x = j + m + l. The sum of a patch along x then adds the same lane of m, m + 1, ..., m + k
// - 1: it needs registers only, no shuffles.
//
// Tiling: a pass over m makes each product P(m) = sum_c q[m][c] * key[c][j + m + l] once, keeps the
// last k in registers and puts their sum into a ring of k row pairs. The sum of the ring is the
// product of patches. Two vectors share each broadcast.
//
// Why not matching/patch_gram.h: there a row pair is a matrix product of register tiles, which is
// stored to a strip and loaded again k times along its diagonals. With few channels that store and
// those loads would cost more than the products. Here no product is stored, but each one needs a
// load of keys; with many channels those loads would cost more.
//
// Traffic, loads a vector of scores: 1.5 C + 1 for products (about half of them across a cache
// line), k - 1 for the ring, 1 for the bias; 1 store. The ring takes k x columns x 2 vectors, 25 kB
// for 7 x 28 x 128 bytes.
#pragma once

#include "matching/sample.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
class DiagonalMatcher {
 public:
  // Query columns of a block: more waste the first-level cache, fewer repeat k - 1 products.
  static constexpr int64_t kColumns = 28;

  explicit DiagonalMatcher(Sample<T>& sample)
      : s_(sample),
        terms_(sample),
        left_pad_(kPanel<T>),
        ld_(round_up(sample.args.key_width, kPanel<T>) + 2 * kPanel<T>),
        keys_(sample.args.key_height * sample.args.channels * ld_) {
    const int64_t channels = s_.args.channels;
    parallel_tasks(s_.args.key_height, s_.args.threads, [&](int64_t y) {
      T* row = keys_.data() + y * channels * ld_;
      const uint8_t* valid = s_.valid ? s_.valid + y * s_.args.key_width : nullptr;
      for (int64_t c = 0; c < channels; ++c) std::fill_n(row + c * ld_, left_pad_, T(0));
      copy_row(s_.args.key,
               s_.n,
               y,
               channels,
               s_.args.key_width,
               valid,
               row + left_pad_,
               ld_,
               ld_ - left_pad_);
    });
  }

  void run() {
    for_each_offset(s_, s_.blocks(kColumns), [&](const Block& block, int64_t first, int64_t last) {
      Task task(*this, block);
      task.run(first, last);
    });
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  class Task : private BlockTask<T> {
   public:
    Task(DiagonalMatcher& matcher, const Block& block)
        : BlockTask<T>(matcher.s_, block),
          m_(matcher),
          queries_(this->pixel_rows() * pixels_ * channels_),
          ring_(k_ * columns_ * 2 * W),
          products_(pixels_ * 2 * W) {
      const ImageView<T>& image = s_.args.query;
      T* to = queries_.data();
      for (int64_t y = block.y0; y < block.y0 + this->pixel_rows(); ++y)
        for (int64_t x = 0; x < pixels_; ++x)
          for (int64_t c = 0; c < channels_; ++c)
            *to++ = this->query_row(y)[c * image.stride_c + x * image.stride_w];
    }

    void run(int64_t first, int64_t last) {
      // A query meets its keys in the order of j, not of their indices.
      best_.accept_equal();
      for (int64_t j = 1 - columns_; j < s_.key_cols; j += 2 * W)
        for (int64_t delta = first; delta < last; ++delta) sweep(j, delta);
      best_.merge_into(s_);
    }

   private:
    using BlockTask<T>::s_;
    using BlockTask<T>::block_;
    using BlockTask<T>::k_;
    using BlockTask<T>::channels_;
    using BlockTask<T>::columns_;
    using BlockTask<T>::pixels_;
    using BlockTask<T>::best_;

    void sweep(int64_t j, int64_t delta) {
      const int64_t step = columns_ * 2 * W;
      Row row;
      row.j = j;
      // Columns with a lane on the grid of keys.
      row.begin = std::max<int64_t>(0, 1 - 2 * W - j);
      row.end = std::min(columns_, s_.key_cols - j);
      this->each_row_pair(delta, [&](int64_t y, int64_t age) {
        row.newest = ring_.data() + age % k_ * step;
        row.query_row = y - k_ + 1;
        row.key_row = row.query_row + delta;
        row.query = queries_.data() + (y - block_.y0) * pixels_ * channels_;
        row.key = m_.keys_.data() + (y + delta) * channels_ * m_.ld_ + m_.left_pad_ + j;
        row.full = age >= k_ - 1;
        if (row.full) {
          row.oldest = (age + 1) % k_;
          row.scale = m_.terms_.scale_row(row.key_row) + j;
          row.bias = m_.terms_.bias_row(row.key_row) + j;
          row.limit = best_.limits(row.query_row);
        }
        dispatch(row);
      });
    }

    struct Row {
      int64_t j, begin, end, query_row, key_row, oldest = 0;
      const T *query, *key, *scale = nullptr, *bias = nullptr, *limit = nullptr;
      T* newest;
      bool full;
    };

    void dispatch(const Row& row) {
      if (k_ == 7 && channels_ == 3) return sums<7, 3>(row);
      if (k_ == 7 && channels_ == 5) return sums<7, 5>(row);
      if (k_ == 5 && channels_ == 3) return sums<5, 3>(row);
      if (k_ == 3 && channels_ == 3) return sums<3, 3>(row);
      sums<0, 0>(row);
    }

    // C = 0, K = 0: channels and patch size known at run time only, products pass through memory.
    template <int K, int C>
    inline __attribute__((always_inline)) void product(const Row& row,
                                                       int64_t m,
                                                       Vector<T>& p0,
                                                       Vector<T>& p1) const {
      const int64_t channels = C ? C : channels_;
      const T* q = row.query + m * channels;
      const T* key = row.key + m;
      p0 = Vector<T>{};
      p1 = Vector<T>{};
#pragma GCC unroll 8
      for (int64_t c = 0; c < channels; ++c) {
        const Vector<T> x = broadcast(q[c]);
        p0 = multiply_add(x, load(key), p0);
        p1 = multiply_add(x, load(key + W), p1);
        key += m_.ld_;
      }
    }

    // Always the oldest first, so that the bits of a sum do not depend on where its first column
    // lies.
    template <int K, int C>
    __attribute__((noinline)) void sums(const Row& row) {
      if constexpr (K == 0) {
        for (int64_t m = row.begin; m < row.end + k_ - 1; ++m) {
          Vector<T> p0, p1;
          product<K, C>(row, m, p0, p1);
          store(products_.data() + m * 2 * W, p0);
          store(products_.data() + m * 2 * W + W, p1);
        }
        for (int64_t m = row.begin; m < row.end; ++m) {
          const T* p = products_.data() + m * 2 * W;
          Vector<T> t0 = load(p), t1 = load(p + W);
          for (int64_t d = 1; d < k_; ++d) {
            t0 += load(p + d * 2 * W);
            t1 += load(p + d * 2 * W + W);
          }
          finish<K>(row, m, t0, t1);
        }
      } else {
        Vector<T> p0[K], p1[K];
#pragma GCC unroll 8
        for (int d = 0; d < K - 1; ++d) product<K, C>(row, row.begin + d, p0[d], p1[d]);
        for (int64_t m0 = row.begin; m0 < row.end; m0 += K) {
#pragma GCC unroll 8
          for (int i = 0; i < K; ++i) {
            const int64_t m = m0 + i;
            if (m >= row.end) break;
            const int last = (i + K - 1) % K;
            product<K, C>(row, m + K - 1, p0[last], p1[last]);
            Vector<T> t0 = p0[i], t1 = p1[i];
#pragma GCC unroll 8
            for (int d = 1; d < K; ++d) {
              t0 += p0[(i + d) % K];
              t1 += p1[(i + d) % K];
            }
            finish<K>(row, m, t0, t1);
          }
        }
      }
    }

    template <int K>
    inline __attribute__((always_inline)) void finish(const Row& row,
                                                      int64_t m,
                                                      Vector<T> t0,
                                                      Vector<T> t1) {
      store(row.newest + m * 2 * W, t0);
      store(row.newest + m * 2 * W + W, t1);
      if (!row.full) return;
      const int64_t patch = K ? K : k_;
      const int64_t step = columns_ * 2 * W;
      if (patch > 1) {
        int64_t slot = row.oldest;
        const T* older = ring_.data() + m * 2 * W;
        Vector<T> v0 = load(older + slot * step), v1 = load(older + slot * step + W);
#pragma GCC unroll 8
        for (int64_t d = 2; d < patch; ++d) {
          slot = slot + 1 == patch ? 0 : slot + 1;
          v0 += load(older + slot * step);
          v1 += load(older + slot * step + W);
        }
        t0 = v0 + t0;
        t1 = v1 + t1;
      }
      t0 = multiply_add(t0, load(row.scale + m), load(row.bias + m));
      t1 = multiply_add(t1, load(row.scale + m + W), load(row.bias + m + W));
      const Vector<T> limit = broadcast(row.limit[m]);
      if (__builtin_expect(any_greater<T>(t0, limit) || any_greater<T>(t1, limit), 0))
        look_at(row, m, t0, t1);
    }

    __attribute__((noinline)) void look_at(const Row& row, int64_t m, Vector<T> t0, Vector<T> t1) {
      alignas(64) T scores[2 * W];
      store(scores, t0);
      store(scores + W, t1);
      best_.look_at(row.query_row, m, scores, 2 * W, row.key_row * s_.key_cols + row.j + m);
    }

    const DiagonalMatcher& m_;
    Buffer<T> queries_, ring_, products_;
  };

  Sample<T>& s_;
  const ScoreTerms<T> terms_;
  const int64_t left_pad_, ld_;
  Buffer<T> keys_;  // [y][c][x], zeros on both sides
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
