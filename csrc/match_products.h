// Nearest patches for many channels, one row pair at a time.
//
// For a fixed row offset delta the pixel products of a query row with a key row are a small matrix
// product (register tile of gemm.h). The sum of a patch along x is a diagonal sum inside that row
// pair, the sum along y a plain sum of the last k row pairs, kept in a ring.
//
// A pair of pixels costs C multiply-adds, a pair of patches 2 (k - 1) additions; products and ring
// take 256 kB and stay in the second-level cache. A row of scores takes only a running maximum; the
// position is looked up on the rare row that improves it.
#pragma once

#include "match_sample.h"

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
    parallel_tasks(s_.args.key_height, s_.args.threads, [&](int64_t y) {
      Buffer<T> planar(channels * width_);
      const uint8_t* valid = s_.valid ? s_.valid + y * s_.args.key_width : nullptr;
      copy_row(
          s_.args.key, s_.n, y, channels, s_.args.key_width, valid, planar.data(), width_, width_);
      T* to = keys_.data() + y * channels * width_;
      for (int64_t x = 0; x < width_; x += kPanel<T>)
        for (int64_t c = 0; c < channels; ++c, to += kPanel<T>)
          std::memcpy(to, planar.data() + c * width_ + x, sizeof(T) * kPanel<T>);
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

  class Task {
   public:
    Task(ProductMatcher& matcher, const Block& block)
        : s_(matcher.s_),
          m_(matcher),
          block_(block),
          k_(s_.k),
          channels_(s_.args.channels),
          columns_(block.x1 - block.x0),
          pixels_(columns_ + k_ - 1),
          queries_((block.y1 - block.y0 + k_ - 1) * pixels_ * channels_),
          key_block_(key_block_width()),
          ld_(key_block_ + round_up(k_ - 1, W) + W),
          products_(pixels_ * ld_),
          ring_(k_ * columns_ * key_block_),
          scores_(key_block_),
          best_(s_, block) {
      pack_queries();
    }

    void run(int64_t first, int64_t last) {
      for (int64_t x0 = 0; x0 < s_.key_cols; x0 += key_block_) {
        x0_ = x0;
        // Whole panels: what lies beyond the grid never matches.
        width_ = std::min(key_block_, round_up(s_.key_cols - x0, kPanel<T>));
        if (x0 > 0) best_.accept_equal();
        for (int64_t delta = first; delta < last; ++delta) sweep(delta);
      }
      best_.merge_into(s_);
    }

   private:
    int64_t key_block_width() const {
      const int64_t bytes = (k_ * columns_ + pixels_) * int64_t(sizeof(T));
      const int64_t fit = 262144 / bytes / kPanel<T> * kPanel<T>;
      const int64_t all = round_up(s_.key_cols, kPanel<T>);
      const int64_t blocks = ceil_div(all, std::max(fit, 2 * kPanel<T>));
      return round_up(ceil_div(all, blocks), kPanel<T>);
    }

    // [row][tile][channel][rows of the tile]
    void pack_queries() {
      const ImageView<T>& image = s_.args.query;
      T* to = queries_.data();
      for (int64_t y = block_.y0; y < block_.y1 + k_ - 1; ++y) {
        const T* row = image.data + s_.n * image.stride_n + y * image.stride_h;
        for (int64_t tile = 0; tile < tile_count(pixels_); ++tile) {
          const int64_t begin = tile_begin(pixels_, tile), end = tile_begin(pixels_, tile + 1);
          for (int64_t c = 0; c < channels_; ++c) {
            const T* from = row + c * image.stride_c + block_.x0 * image.stride_w;
            for (int64_t p = begin; p < end; ++p) *to++ = from[p * image.stride_w];
          }
        }
      }
    }

    // All row pairs (y, y + delta), downwards; from the k-th on each ends a row of patches.
    void sweep(int64_t delta) {
      const int64_t begin = std::max(block_.y0, -delta);
      const int64_t end = std::min(block_.y1 + k_ - 1, s_.args.key_height - delta);
      for (int64_t y = begin; y < end; ++y) {
        products(queries_.data() + (y - block_.y0) * pixels_ * channels_,
                 m_.keys_.data() + (y + delta) * channels_ * m_.width_);
        const int64_t slot = (y - begin) % k_;
        if (y - begin < k_ - 1) {
          for (int64_t column = 0; column < columns_; ++column) diagonal_sum(slot, column);
        } else {
          finish(slot, y - k_ + 1, y - k_ + 1 + delta);
        }
      }
    }

    // Products of one query row with the key pixels of this block of columns and its halo.
    void products(const T* left, const T* right) {
      const int64_t pixels = std::min(width_ + k_ - 1, m_.width_ - x0_);
      const int64_t vectors = ceil_div(pixels, W);
      for (int64_t r = 0; r < pixels_; ++r)
        std::fill(products_.data() + r * ld_ + vectors * W, products_.data() + (r + 1) * ld_, T(0));
      pixel_products(
          left, pixels_, right + x0_ * channels_, vectors, channels_, products_.data(), ld_);
    }

    inline __attribute__((always_inline)) Vector<T> diagonal(const T* from, int64_t step) const {
      Vector<T> sum = load(from);
      for (int64_t d = 1; d < k_; ++d) sum += load(from + d * step);
      return sum;
    }

    void diagonal_sum(int64_t slot, int64_t column) {
      const T* from = products_.data() + column * ld_;
      T* to = ring_.data() + (slot * columns_ + column) * key_block_;
      for (int64_t j = 0; j < width_; j += W) store(to + j, diagonal(from + j, ld_ + 1));
    }

    // The last row pair of a row of patches: its sum along x joins the ring, the ring is summed
    // oldest first (the same bits wherever the ring began), scored and compared.
    void finish(int64_t slot, int64_t query_row, int64_t key_row) {
      const int64_t step = columns_ * key_block_;
      const T* scale = m_.terms_.scale_row(key_row) + x0_;
      const T* bias = m_.terms_.bias_row(key_row) + x0_;
      const T* limits = best_.limits(query_row);
      for (int64_t column = 0; column < columns_; ++column) {
        diagonal_sum(slot, column);
        const T* ring = ring_.data() + column * key_block_;
        Vector<T> top = broadcast(kMinusInfinity<T>);
        for (int64_t j = 0; j < width_; j += W) {
          int64_t s = slot + 1 == k_ ? 0 : slot + 1;
          Vector<T> sum = load(ring + s * step + j);
          for (int64_t d = 1; d < k_; ++d) {
            s = s + 1 == k_ ? 0 : s + 1;
            sum += load(ring + s * step + j);
          }
          sum = sum * load(scale + j) + load(bias + j);
          store(scores_.data() + j, sum);
          top = max_or_second<T>(sum, top);
        }
        if (any_greater<T>(top, broadcast(limits[column]))) {
          best_.look_at(query_row, column, scores_.data(), width_, key_row * s_.key_cols + x0_);
        }
      }
    }

    Sample<T>& s_;
    const ProductMatcher& m_;
    const Block block_;
    const int64_t k_, channels_, columns_, pixels_;
    Buffer<T> queries_;
    const int64_t key_block_, ld_;
    Buffer<T> products_, ring_, scores_;
    BlockBest<T> best_;
    int64_t x0_ = 0, width_ = 0;
  };

  Sample<T>& s_;
  const ScoreTerms<T> terms_;
  const int64_t width_;
  Buffer<T> keys_;  // [y][panel][c][kPanel]
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
