// Nearest patches for many channels, one row pair at a time (matching/patch_gram.h).
//
// Tiling: a task takes a block of 64 query columns and a range of row offsets delta = key row -
// query row. For a fixed delta the sums along x of the last k row pairs lie in a ring, whose sum is
// the product of patches.
//
// Traffic: products and ring take 256 kB and stay in the second-level cache. A row of scores is
// reduced to its maximum at once; the position is looked up only where that maximum improves on the
// best so far, which is rare.
#pragma once

#include "matching/sample.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
class ProductMatcher {
 public:
  // Query columns of a block: fewer repeat the k - 1 columns of its halo more often.
  static constexpr int64_t kColumns = 64;

  explicit ProductMatcher(Sample<T>& sample)
      : s_(sample),
        terms_(sample),
        width_(round_up(sample.args.key_width, kPanel<T>)),
        keys_(sample.args.key_height * sample.args.channels * width_) {
    const int64_t channels = s_.args.channels;
    const ImageView<T>& image = s_.args.key;
    const PixelColumns<T> columns(places(0, s_.args.key_width, image.stride_w), kPanel<T>);
    parallel_tasks(s_.args.key_height, s_.args.threads, [&](int64_t y) {
      T* const to = keys_.data() + y * channels * width_;
      const T* row = image.data + s_.n * image.stride_n + y * image.stride_h;
      columns.pack(row, image.stride_c, channels, to);
      const uint8_t* valid = s_.valid ? s_.valid + y * s_.args.key_width : nullptr;
      for (int64_t x = 0; valid && x < s_.args.key_width; ++x) {
        if (valid[x]) continue;
        // The content of an unusable pixel must reach no result, not even times zero: it may be
        // NaN.
        T* const pixel = to + x / kPanel<T> * kPanel<T> * channels + x % kPanel<T>;
        for (int64_t c = 0; c < channels; ++c) pixel[c * kPanel<T>] = T(0);
      }
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
    Task(ProductMatcher& matcher, const Block& block)
        : BlockTask<T>(matcher.s_, block),
          m_(matcher),
          queries_(pixel_rows() * pixels_ * channels_),
          key_block_(key_block_width()),
          strip_(pixels_, ceil_div(key_block_ + k_ - 1, W), k_, Padding{}),
          ring_(k_ * columns_ * key_block_),
          scores_(key_block_) {
      const ImageView<T>& image = s_.args.query;
      const PixelColumns<T> columns(places(0, pixels_, image.stride_w), 0);
      for (int64_t i = 0; i < pixel_rows(); ++i)
        columns.pack(this->query_row(block.y0 + i),
                     image.stride_c,
                     channels_,
                     queries_.data() + i * pixels_ * channels_);
    }

    void run(int64_t first, int64_t last) {
      for (int64_t x0 = 0; x0 < s_.key_cols; x0 += key_block_) {
        x0_ = x0;
        // Whole panels: columns beyond the grid have bias -inf and never match.
        width_ = std::min(key_block_, round_up(s_.key_cols - x0, kPanel<T>));
        if (x0 > 0) best_.accept_equal();
        for (int64_t delta = first; delta < last; ++delta)
          this->each_row_pair(delta, [&](int64_t y, int64_t age) { row_pair(y, delta, age); });
      }
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
    using BlockTask<T>::pixel_rows;

    int64_t key_block_width() const {
      const int64_t bytes = (k_ * columns_ + pixels_) * int64_t(sizeof(T));
      const int64_t fit = 262144 / bytes / kPanel<T> * kPanel<T>;
      const int64_t all = round_up(s_.key_cols, kPanel<T>);
      const int64_t blocks = ceil_div(all, std::max(fit, 2 * kPanel<T>));
      return round_up(ceil_div(all, blocks), kPanel<T>);
    }

    T* sums(int64_t age) { return ring_.data() + age % k_ * columns_ * key_block_; }

    void row_pair(int64_t y, int64_t delta, int64_t age) {
      const int64_t pixels = std::min(width_ + k_ - 1, m_.width_ - x0_);
      strip_.multiply(queries_.data() + (y - block_.y0) * pixels_ * channels_,
                      pixels_,
                      m_.keys_.data() + ((y + delta) * m_.width_ + x0_) * channels_,
                      ceil_div(pixels, W),
                      channels_);
      if (age < k_ - 1) return strip_.sum_rows(0, columns_, width_, sums(age), key_block_);
      older_.clear();
      for (int64_t d = k_ - 1; d > 0; --d) older_.push_back(sums(age - d));
      const int64_t query_row = y - k_ + 1, key_row = query_row + delta;
      Scores scores{best_,
                    m_.terms_.scale_row(key_row) + x0_,
                    m_.terms_.bias_row(key_row) + x0_,
                    best_.limits(query_row),
                    scores_.data(),
                    query_row,
                    key_row * s_.key_cols + x0_,
                    width_,
                    {}};
      strip_.sum_patches(0, columns_, width_, sums(age), older_.data(), k_ - 1, key_block_, scores);
    }

    // Turns products of patches into scores and compares them.
    struct Scores {
      BlockBest<T>& best;
      const T *scale, *bias, *limits;
      T* line;
      const int64_t query_row, first_index, width;
      Vector<T> top;

      void begin(int64_t) { top = broadcast(kMinusInfinity<T>); }
      void take(int64_t j, Vector<T> product) {
        const Vector<T> score = multiply_add(product, load(scale + j), load(bias + j));
        store(line + j, score);
        top = max_or_second<T>(score, top);
      }
      void end(int64_t column) {
        if (any_greater<T>(top, broadcast(limits[column])))
          best.look_at(query_row, column, line, width, first_index);
      }
    };

    const ProductMatcher& m_;
    Buffer<T> queries_;  // [row][tile][channel][rows of the tile]
    const int64_t key_block_;
    GramStrip<T> strip_;
    Buffer<T> ring_, scores_;
    std::vector<const T*> older_;
    int64_t x0_ = 0, width_ = 0;
  };

  Sample<T>& s_;
  const ScoreTerms<T> terms_;
  const int64_t width_;
  Buffer<T> keys_;  // [y][panel][c][kPanel]
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
