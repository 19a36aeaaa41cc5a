// Weighted sums of feature vectors, where many weights are exactly zero, and the gradients of the
// vectors.
//
// Algebra: sum[row] = sum over k of weight[row][k] * vector[k], and its transpose.
// Tiling: register tiles of kRowTile rows x one panel, over a list of the k that count.
// Traffic: a panel of up to 256 vectors stays in the first-level cache for all tiles of rows.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "matching/patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {

// A term of the sums below: weight `left` of each row times vector `right`.
struct ListedPair {
  int32_t left, right;
};

// Adds the listed terms to the sums of a tile of rows and one panel. The weights of one term lie
// kRowStep apart, those of consecutive terms `step` apart.
template <class T, int64_t kRowStep>
struct ListedProduct {
  const T* weights;
  int64_t step;
  const T* vectors;
  T* sums;
  int64_t ld;
  const ListedPair* list;
  int64_t count;

  template <int ROWS>
  void run() {
    constexpr int64_t W = Simd<T>::kWidth;
    Vector<T> v[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      v[r][0] = load(sums + r * ld);
      v[r][1] = load(sums + r * ld + W);
    }
    for (int64_t i = 0; i < count; ++i) {
      const T* a = weights + list[i].left * step;
      const T* b = vectors + int64_t(list[i].right) * kPanel<T>;
      const Vector<T> b0 = load(b), b1 = load(b + W);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const Vector<T> x = broadcast(a[r * kRowStep]);
        v[r][0] = multiply_add(x, b0, v[r][0]);
        v[r][1] = multiply_add(x, b1, v[r][1]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      store(sums + r * ld, v[r][0]);
      store(sums + r * ld + W, v[r][1]);
    }
  }
};

// sum[row] = sum over k of weight[row][k] * vector[k], for a few rows of weights given piece by
// piece in the order of k.
//
// A softmax over thousands of scores leaves most weights exactly zero (exp(-87) is about the least
// float32). So each tile of rows lists the k at which any of its weights is not zero. The other k
// cost one test and no multiplications.
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

  // Panels (1 = left out) in which the sums of the first row, of the last row are not wanted.
  void leave_out(std::vector<uint8_t> first, std::vector<uint8_t> last) {
    without_first_ = std::move(first);
    without_last_ = std::move(last);
  }

  int64_t tiles() const { return tiles_; }
  int64_t begin(int64_t tile) const { return tile_begin(rows_, tile); }
  int64_t end(int64_t tile) const { return tile_begin(rows_, tile + 1); }

  // True if there is room for another piece; if not, flush() makes room.
  bool fits(int64_t tile, int64_t width) const { return fill_[tile] + width <= kDepth; }
  void prepare(int64_t tile, int64_t width) {
    if (!fits(tile, width)) flush();
  }

  // Place for the weights of a row of a tile; whole vectors may be stored.
  T* weights(int64_t tile, int64_t row) {
    return left_.data() + (tile * kRowTile + row) * kStride + fill_[tile];
  }

  // Lists the terms of the piece just written to weights(), which begins at k.
  void push(int64_t tile, int64_t k, int64_t width) {
    const int64_t rows = end(tile) - begin(tile);
    const T* left = left_.data() + tile * kRowTile * kStride + fill_[tile];
    const int32_t first = int32_t(fill_[tile]), vector = int32_t(k);
    ListedPair* to = lists_.data() + tile * kDepth;
    int64_t count = count_[tile];
    for (int64_t j = 0; j < width; j += W) {
      uint32_t any = 0;
      for (int64_t r = 0; r < rows; ++r) any |= nonzero_lanes<T>(load(left + r * kStride + j));
      const int32_t last = int32_t(std::min(W, width - j)), at = int32_t(j);
      if (any == 0) continue;
      for (int32_t i = 0; i < last; ++i) {
        to[count] = {first + at + i, vector + at + i};
        count += any >> i & 1;
      }
    }
    count_[tile] = count;
    fill_[tile] += width;
  }

  // The sums of a row, all panels one after the other; after flush().
  const T* sums(int64_t row) const { return sums_.data() + row * panels_ * kPanel<T>; }

  void flush() { flush(0, panels_); }

  // The same, where all vectors listed since the last flush are zero outside these panels.
  void flush(int64_t first_panel, int64_t last_panel) {
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      for (int64_t tile = 0; tile < tiles_; ++tile) {
        const int64_t skip =
            tile == 0 && panel < int64_t(without_first_.size()) && without_first_[panel];
        const int64_t row = begin(tile) + skip;
        const int64_t rows =
            end(tile) - row -
            (tile + 1 == tiles_ && panel < int64_t(without_last_.size()) && without_last_[panel]);
        if (count_[tile] == 0 || rows <= 0) continue;
        ListedProduct<T, kStride> body{left_.data() + (tile * kRowTile + skip) * kStride,
                                       1,
                                       vectors_ + panel * depth_ * kPanel<T>,
                                       sums_.data() + (row * panels_ + panel) * kPanel<T>,
                                       panels_ * kPanel<T>,
                                       lists_.data() + tile * kDepth,
                                       count_[tile]};
        with_rows(rows, body);
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

  const T* vectors_;
  const int64_t depth_, panels_, rows_, tiles_;
  Buffer<T> left_, sums_;
  Buffer<ListedPair> lists_;
  std::vector<int64_t> fill_, count_;
  std::vector<uint8_t> without_first_, without_last_;
};

// sum[panel][j] += sum over rows k of weights[k][j] * vectors[panel][k]: the gradient of the right
// operand of a weighted sum.
template <class T>
struct TransposedSum {
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int64_t kChunk = 8 * kRowTile;

  const T* weights;
  int64_t ld, rows;
  const T* vectors;
  int64_t panels;
  T* sums;
  int64_t depth;  // numbers of a row of weights

  int64_t chunks() const { return ceil_div(depth, kChunk); }

  // Columns of weights [chunk * kChunk, ...).
  void run(int64_t chunk) const {
    const int64_t begin = chunk * kChunk, end = std::min(begin + kChunk, depth);
    Buffer<ListedPair> list(rows);
    for (int64_t tile = 0; tile < tile_count(end - begin); ++tile) {
      const int64_t j0 = begin + tile_begin(end - begin, tile);
      const int64_t j1 = begin + tile_begin(end - begin, tile + 1);
      int64_t count = 0;
      for (int64_t k = 0; k < rows; ++k) {
        bool any = false;
        for (int64_t j = j0; j < j1; ++j) any |= weights[k * ld + j] != T(0);
        list[count] = {int32_t(k), int32_t(k)};
        count += any;
      }
      if (count == 0) continue;
      for (int64_t panel = 0; panel < panels; ++panel) {
        ListedProduct<T, 1> body{weights + j0,
                                 ld,
                                 vectors + panel * rows * kPanel<T>,
                                 sums + (panel * depth + j0) * kPanel<T>,
                                 kPanel<T>,
                                 list.data(),
                                 count};
        with_rows(j1 - j0, body);
      }
    }
  }
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
