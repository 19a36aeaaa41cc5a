// Products of pixels and their sums over patches: the basis of all patch matching.
//
// Algebra: with G[p, q] = <pixel p, pixel q>, the product of two k x k patches is the sum of
// G[p + d, q + d] over the k x k offsets d. A pair of pixels costs C multiply-adds and a pair of
// patches 2 (k - 1) additions.
//
// Tiling: for one row of query pixels and one row of key pixels, a row pair, G is a small matrix
// product (register tiles of base/gemm.h), written to a strip. The sum over d along x runs along
// the diagonals of the strip; the sum along y adds up k row pairs (y, v), (y + 1, v + 1), ...
//
// Traffic: the strip of a row pair stays in the first- or second-level cache; of older row pairs
// only the sums along x are kept.
#pragma once

#include <algorithm>
#include <limits>

#include "base/gemm.h"
#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// Columns of one packed panel of the right operand.
template <class T>
constexpr int64_t kPanel = 2 * Simd<T>::kWidth;

template <class T>
struct ProductTile {
  const T *left, *right;
  T* out;
  int64_t ld, channels, vectors;

  template <int ROWS>
  void run() {
    int64_t v = 0;
    for (; v + 2 <= vectors; v += 2) columns<ROWS, 2>(v);
    if (v < vectors) columns<ROWS, 1>(v);
  }

  template <int ROWS, int VECS>
  void columns(int64_t v) {
    constexpr int64_t W = Simd<T>::kWidth;
    Accumulator<T, ROWS, VECS> sum;
    sum.clear();
    sum.add(left, right + v * W * channels, kPanel<T>, channels);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int i = 0; i < VECS; ++i) store(out + r * ld + (v + i) * W, sum.v[r][i]);
  }
};

// Products of packed query pixels, [tile][channel][rows of the tile], with the first `vectors`
// vectors of key pixels, [panel][channel][kPanel]: out[row * ld + column].
template <class T>
void pixel_products(const T* left,
                    int64_t rows,
                    const T* right,
                    int64_t vectors,
                    int64_t channels,
                    T* out,
                    int64_t ld) {
  for (int64_t tile = 0; tile < tile_count(rows); ++tile) {
    const int64_t begin = tile_begin(rows, tile), end = tile_begin(rows, tile + 1);
    ProductTile<T> body{left + begin * channels, right, out + begin * ld, ld, channels, vectors};
    with_rows(end - begin, body);
  }
}

// Zeros around a row pair: `keys` key pixels before the first and after the last, `before` query
// pixels before the first, `after` query pixels after the last.
struct Padding {
  int64_t keys = 0, before = 0, after = 0;
};

// The products of one row pair, and what is summed from them.
//
// Sums run from the oldest row pair to the newest, so that their bits do not depend on where a
// chain of row pairs began.
template <class T>
class GramStrip {
 public:
  // For at most `pixels` query pixels and `vectors` vectors of key pixels, patches of `patch`
  // pixels.
  GramStrip(int64_t pixels, int64_t vectors, int64_t patch, const Padding& padding)
      : most_pixels_(pixels),
        patch_(patch),
        padding_(padding),
        lead_(padding.keys > 0 ? W : 0),
        ld_(lead_ + vectors * W + W),
        pixels_(pixels),
        vectors_(vectors),
        first_(padding.before * ld_ + lead_),
        data_((padding.before + pixels + padding.after) * ld_),
        corner_(data_.data() + lead_ - padding.keys) {
    std::fill_n(data_.data(), padding.before * ld_, T(0));
    std::fill_n(data_.data() + (padding.before + pixels) * ld_, padding.after * ld_, T(0));
    for (int64_t i = 0; i < pixels; ++i) {
      std::fill_n(data_.data() + first_ + i * ld_ - lead_, lead_, T(0));
      std::fill_n(data_.data() + first_ + i * ld_ + vectors * W, W, T(0));
    }
  }

  // Both operands packed as for pixel_products().
  void multiply(const T* left, int64_t pixels, const T* right, int64_t vectors, int64_t channels) {
    for (int64_t i = 0; vectors < vectors_ && i < most_pixels_; ++i)
      std::fill_n(data_.data() + first_ + i * ld_ + vectors * W, (vectors_ - vectors) * W, T(0));
    vectors_ = vectors;
    if (pixels != pixels_)
      std::fill_n(data_.data() + (padding_.before + pixels) * ld_, padding_.after * ld_, T(0));
    pixels_ = pixels;
    pixel_products(left, pixels_, right, vectors, channels, data_.data() + first_, ld_);
  }

  // Sums along x for `columns` query columns and `width` key columns, to rows ldo apart. The first
  // sum begins with query pixel `first`, zeros before the first pixel included.
  void sum_rows(int64_t first, int64_t columns, int64_t width, T* out, int64_t ldo) const {
    if (patch_ == 3) return rows<3>(first, columns, width, out, ldo);
    rows<0>(first, columns, width, out, ldo);
  }

  // The last row pair of a row of patches. Writes to `out` what sum_rows() writes, adds the sums of
  // the `count` row pairs before it (`older`, the oldest first) and gives the products of patches
  // to the sink: for each query column sink.begin(column), sink.take(key column, vector) ...,
  // sink.end(column). Where patches reach beyond the edge, `count` is less than patch - 1, and
  // `out` is null if the last row pair itself lies outside.
  template <class Sink>
  void sum_patches(int64_t first,
                   int64_t columns,
                   int64_t width,
                   T* out,
                   const T* const* older,
                   int64_t count,
                   int64_t ldo,
                   Sink& sink) const {
    if (patch_ == 3 && count == 2) {
      out ? patches<3, 2, true>(first, columns, width, out, older, count, ldo, sink)
          : patches<3, 2, false>(first, columns, width, out, older, count, ldo, sink);
    } else if (patch_ == 3 && count == 1) {
      out ? patches<3, 1, true>(first, columns, width, out, older, count, ldo, sink)
          : patches<3, 1, false>(first, columns, width, out, older, count, ldo, sink);
    } else {
      patches<0, 0, true>(first, columns, width, out, older, count, ldo, sink);
    }
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // K = 0: the size of a patch is known at run time only; COUNT likewise.
  template <int K>
  inline __attribute__((always_inline)) Vector<T> diagonal(const T* from) const {
    const int64_t patch = K ? K : patch_;
    Vector<T> sum = load(from);
#pragma GCC unroll 4
    for (int64_t d = 1; d < patch; ++d) sum += load(from + d * (ld_ + 1));
    return sum;
  }

  template <int K>
  void rows(int64_t first, int64_t columns, int64_t width, T* out, int64_t ldo) const {
    for (int64_t column = 0; column < columns; ++column)
      for (int64_t j = 0; j < width; j += W)
        store(out + column * ldo + j, diagonal<K>(corner_ + (first + column) * ld_ + j));
  }

  template <int K, int COUNT, bool NEWEST, class Sink>
  void patches(int64_t first,
               int64_t columns,
               int64_t width,
               T* out,
               const T* const* older,
               int64_t count,
               int64_t ldo,
               Sink& sink) const {
    const int64_t before = COUNT ? COUNT : count;
    for (int64_t column = 0; column < columns; ++column) {
      const T* const from = corner_ + (first + column) * ld_;
      const int64_t at = column * ldo;
      sink.begin(column);
      for (int64_t j = 0; j < width; j += W) {
        Vector<T> sum = load(older[0] + at + j);
#pragma GCC unroll 4
        for (int64_t d = 1; d < before; ++d) sum += load(older[d] + at + j);
        if (NEWEST) {
          const Vector<T> newest = diagonal<K>(from + j);
          store(out + at + j, newest);
          sum += newest;
        }
        sink.take(j, sum);
      }
      sink.end(column);
    }
  }

  const int64_t most_pixels_, patch_;
  const Padding padding_;
  const int64_t lead_, ld_;
  int64_t pixels_, vectors_;
  const int64_t first_;
  Buffer<T> data_;
  const T* const corner_;  // of the diagonals of the first patch
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
