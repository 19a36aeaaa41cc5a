// One sample of a nearest_patch call: wanted queries, usable keys, best matches, blocks of work.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "matching/best_matches.h"
#include "matching/patch_norms.h"
#include "matching/patch_pack.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr double kNormFloor = 1e-8;

// A rectangle of query patches, columns [x0, x1) and rows [y0, y1) of the grid of origins.
struct Block {
  int64_t x0, x1, y0, y1;
};

template <class T>
struct Sample {
  const NearestPatchArgs<T>& args;
  const int64_t n, k;
  const int64_t query_rows, query_cols;  // grid of query origins at stride 1
  const int64_t key_rows, key_cols;      // grid of key origins at stride 1
  const uint8_t* valid;
  Buffer<uint8_t> wanted, usable;  // on the grids at stride 1
  int64_t wanted_count = 0, usable_count = 0;
  BestMatches<T> matches;

  Sample(const NearestPatchArgs<T>& a, int64_t sample)
      : args(a),
        n(sample),
        k(a.patch),
        query_rows(a.query_height - k + 1),
        query_cols(a.query_width - k + 1),
        key_rows(a.key_height - k + 1),
        key_cols(a.key_width - k + 1),
        valid(a.valid.data ? a.valid.data + n * a.valid.stride_n : nullptr),
        wanted(query_rows * query_cols),
        usable(key_rows * key_cols),
        matches(query_rows * query_cols) {
    find_wanted();
    find_usable();
  }

  // Blocks of at most `columns` columns and 128 rows that hold all wanted queries. Gaps shorter
  // than a patch stay inside a block: the products of their pixels are needed anyway.
  std::vector<Block> blocks(int64_t columns) const {
    std::vector<Block> out;
    for (int64_t x0 = 0; x0 < query_cols;) {
      if (!column_wanted(x0)) {
        ++x0;
        continue;
      }
      int64_t end = x0 + 1;
      for (int64_t x = end; x < query_cols && x - end < k; ++x)
        if (column_wanted(x)) end = x + 1;
      const int64_t parts = ceil_div(end - x0, columns);
      for (int64_t part = 0; part < parts; ++part)
        add_rows(x0 + (end - x0) * part / parts, x0 + (end - x0) * (part + 1) / parts, out);
      x0 = end;
    }
    return out;
  }

 private:
  void find_wanted() {
    std::fill_n(wanted.data(), query_rows * query_cols, uint8_t(0));
    const PatchAxis ys{query_rows - 1, args.stride}, xs{query_cols - 1, args.stride};
    const uint8_t* where = args.where.data ? args.where.data + n * args.where.stride_n : nullptr;
    for (int64_t i = 0; i < ys.count(); ++i) {
      for (int64_t j = 0; j < xs.count(); ++j) {
        if (where && !where[i * xs.count() + j]) continue;
        wanted[ys.origin(i) * query_cols + xs.origin(j)] = 1;
        ++wanted_count;
      }
    }
  }

  void find_usable() {
    Buffer<uint8_t> whole(valid ? key_rows * key_cols : 0);
    if (valid) {
      const auto bad = [&](int64_t i) { return valid[i] == 0; };
      whole_patches(args.key_height, args.key_width, k, 0, args.threads, bad, whole.data());
    }
    std::fill_n(usable.data(), key_rows * key_cols, uint8_t(0));
    const PatchAxis ys{key_rows - 1, args.key_stride}, xs{key_cols - 1, args.key_stride};
    for (int64_t i = 0; i < ys.count(); ++i) {
      for (int64_t j = 0; j < xs.count(); ++j) {
        const int64_t key = ys.origin(i) * key_cols + xs.origin(j);
        if (valid && !whole[key]) continue;
        usable[key] = 1;
        ++usable_count;
      }
    }
  }

  bool column_wanted(int64_t x) const {
    for (int64_t y = 0; y < query_rows; ++y)
      if (wanted[y * query_cols + x]) return true;
    return false;
  }

  void add_rows(int64_t x0, int64_t x1, std::vector<Block>& out) const {
    constexpr int64_t kMaxRows = 128;
    const size_t before = out.size();
    for (int64_t y = 0; y < query_rows; ++y) {
      const uint8_t* row = wanted.data() + y * query_cols;
      if (!std::any_of(row + x0, row + x1, [](uint8_t w) { return w != 0; })) continue;
      const bool joins =
          out.size() > before && y - out.back().y1 < k && y + 1 - out.back().y0 <= kMaxRows;
      if (joins) {
        out.back().y1 = y + 1;
      } else {
        out.push_back(Block{x0, x1, y, y + 1});
      }
    }
  }
};

template <class T>
inline T key_scale(bool cosine, double square_norm) {
  return cosine ? T(1 / std::max(std::sqrt(square_norm), kNormFloor)) : T(1);
}

template <class T>
inline T key_bias(bool cosine, double square_norm) {
  return cosine ? T(0) : T(-0.5 * square_norm);
}

// Factors of score = product * scale + bias for every key on the dense grid. On either side of a
// row lie kPad entries that never match, so that whole vectors may reach beyond the edge of the
// grid.
template <class T>
class ScoreTerms {
 public:
  explicit ScoreTerms(const Sample<T>& s)
      : ld_(round_up(s.key_cols, kPanel<T>) + 2 * kPad),
        scale_(s.key_rows * ld_),
        bias_(s.key_rows * ld_) {
    const NearestPatchArgs<T>& a = s.args;
    Buffer<double> norms(s.key_rows * s.key_cols);
    patch_square_norms(
        a.key, s.n, a.channels, a.key_height, a.key_width, s.k, s.valid, a.threads, norms.data());
    std::fill_n(scale_.data(), s.key_rows * ld_, T(0));
    std::fill_n(bias_.data(), s.key_rows * ld_, kMinusInfinity<T>);
    for (int64_t i = 0; i < s.key_rows * s.key_cols; ++i) {
      if (!s.usable[i]) continue;
      const int64_t to = i / s.key_cols * ld_ + kPad + i % s.key_cols;
      scale_[to] = key_scale<T>(a.cosine, norms[i]);
      bias_[to] = key_bias<T>(a.cosine, norms[i]);
    }
  }

  const T* scale_row(int64_t y) const { return scale_.data() + y * ld_ + kPad; }
  const T* bias_row(int64_t y) const { return bias_.data() + y * ld_ + kPad; }

 private:
  static constexpr int64_t kPad = kPanel<T>;
  const int64_t ld_;
  Buffer<T> scale_, bias_;
};

// Greatest number less than x: to exceed it means to reach x.
template <class T>
inline T just_below(T x) {
  return std::nextafter(x, kMinusInfinity<T>);
}

// Best matches of the queries of one block, while one task runs. A score is looked at only if it
// exceeds the query's limit. While keys come in the order of their indices the limit is the best
// score so far; otherwise it is just below that, so that an equal score with a lower index counts.
template <class T>
class BlockBest {
 public:
  BlockBest(const Sample<T>& sample, const Block& block)
      : block_(block),
        width_(block.x1 - block.x0),
        limit_(width_ * (block.y1 - block.y0)),
        best_(width_ * (block.y1 - block.y0)),
        index_(width_ * (block.y1 - block.y0)) {
    for (int64_t i = 0; i < width_ * (block.y1 - block.y0); ++i) {
      const int64_t y = block.y0 + i / width_, x = block.x0 + i % width_;
      best_[i] = kMinusInfinity<T>;
      index_[i] = -1;
      // An unwanted query never improves.
      limit_[i] = sample.wanted[y * sample.query_cols + x] ? kMinusInfinity<T> : -kMinusInfinity<T>;
    }
  }

  // Limits of the queries of row y, beginning with column x0 of the block.
  const T* limits(int64_t y) const { return limit_.data() + (y - block_.y0) * width_; }

  // Call before keys come out of the order of their indices.
  void accept_equal() {
    in_order_ = false;
    for (int64_t i = 0; i < width_ * (block_.y1 - block_.y0); ++i)
      if (limit_[i] < -kMinusInfinity<T>) limit_[i] = just_below(best_[i]);
  }

  // Compares `count` scores of one query (row y, column x of the block) with consecutive keys.
  void look_at(int64_t y, int64_t x, const T* scores, int64_t count, int64_t first_index) {
    const int64_t q = (y - block_.y0) * width_ + x;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t index = first_index + j;
      if (scores[j] > best_[q] || (scores[j] == best_[q] && index < index_[q])) {
        best_[q] = scores[j];
        index_[q] = index;
      }
    }
    if (limit_[q] < -kMinusInfinity<T>) limit_[q] = in_order_ ? best_[q] : just_below(best_[q]);
  }

  void merge_into(Sample<T>& sample) const {
    for (int64_t y = block_.y0; y < block_.y1; ++y) {
      const int64_t i = (y - block_.y0) * width_;
      sample.matches.merge(
          y * sample.query_cols + block_.x0, best_.data() + i, index_.data() + i, width_);
    }
  }

 private:
  const Block block_;
  const int64_t width_;
  Buffer<T> limit_, best_;
  Buffer<int64_t> index_;
  bool in_order_ = true;
};

// A task's work: a block of queries and, for one row offset delta after the other, the row pairs
// (y, y + delta) of its pixels.
template <class T>
class BlockTask {
 protected:
  BlockTask(Sample<T>& sample, const Block& block)
      : s_(sample),
        block_(block),
        k_(sample.k),
        channels_(sample.args.channels),
        columns_(block.x1 - block.x0),
        pixels_(columns_ + k_ - 1),
        best_(sample, block) {}

  // Query pixels of the block.
  int64_t pixel_rows() const { return block_.y1 - block_.y0 + k_ - 1; }
  const T* query_row(int64_t y) const {
    const ImageView<T>& image = s_.args.query;
    return image.data + s_.n * image.stride_n + y * image.stride_h + block_.x0 * image.stride_w;
  }

  // Calls body(y, age) for the row pairs of one delta from top to bottom. The row pair of age k - 1
  // and each later one complete a row of patches.
  template <class Body>
  void each_row_pair(int64_t delta, const Body& body) const {
    const int64_t begin = std::max(block_.y0, -delta);
    const int64_t end = std::min(block_.y1 + k_ - 1, s_.args.key_height - delta);
    for (int64_t y = begin; y < end; ++y) body(y, y - begin);
  }

  Sample<T>& s_;
  const Block block_;
  const int64_t k_, channels_, columns_, pixels_;
  BlockBest<T> best_;
};

// Calls task(block, first delta, last delta) for all blocks and all row offsets delta = key row -
// query row, cut into enough ranges for an even load of the threads.
template <class T, class Task>
void for_each_offset(const Sample<T>& sample, const std::vector<Block>& blocks, const Task& task) {
  const int threads = sample.args.threads;
  const int64_t count = int64_t(blocks.size());
  const int64_t cuts = threads == 1 ? 1 : std::max<int64_t>(1, ceil_div(8 * threads, count));
  parallel_tasks(count * cuts, threads, [&](int64_t i) {
    const Block& block = blocks[i / cuts];
    const int64_t first = -(block.y1 - 1), range = sample.key_rows - block.y0 - first;
    task(block, first + range * (i % cuts) / cuts, first + range * (i % cuts + 1) / cuts);
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
