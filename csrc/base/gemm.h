// Register tile of a matrix product: `rows` packed rows times one or two vectors of columns.
//
// Tile: kRowTile x 2 vectors, chosen so that the sums fill the registers (AVX-512: 14 x 32 floats
// in 28 of 32 registers; AVX2: 6 x 16 in 12 of 16). Left operand [depth][rows], packed or lda
// apart, so one step reads `rows` consecutive numbers; right operand read at stride ldb. Sums run
// over depth in order, whatever the tile, so an entry has the same bits in every tiling.
#pragma once

#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr int kRowTile = kManyRegisters ? 14 : 6;

// Rows of tile `tile` when `rows` rows are cut into as few tiles as possible, as evenly as
// possible.
inline int64_t tile_count(int64_t rows) { return ceil_div(rows, kRowTile); }
inline int64_t tile_begin(int64_t rows, int64_t tile) {
  const int64_t tiles = tile_count(rows);
  return rows * tile / tiles;
}

// Every loop over the sums is unrolled, here and in users: one that is not makes the compiler keep
// them in memory and copy them for each product.
template <class T, int ROWS, int VECS>
struct Accumulator {
  Vector<T> v[ROWS][VECS];

  inline __attribute__((always_inline)) void clear() {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) v[r][j] = Vector<T>{};
  }

  inline __attribute__((always_inline)) void add(const T* __restrict a,
                                                 const T* __restrict b,
                                                 ptrdiff_t ldb,
                                                 int64_t depth,
                                                 ptrdiff_t lda = ROWS) {
    constexpr int W = Simd<T>::kWidth;
    for (int64_t k = 0; k < depth; ++k) {
      Vector<T> col[VECS];
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) col[j] = load(b + j * W);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const Vector<T> x = broadcast(a[r]);
#pragma GCC unroll 2
        for (int j = 0; j < VECS; ++j) v[r][j] = multiply_add(x, col[j], v[r][j]);
      }
      a += lda;
      b += ldb;
    }
  }

  // The same with rows of the left operand lda apart, each read along its length. Three rows share
  // a pointer: x86 addresses base, base + lda and base + 2 lda, and has too few registers for one a
  // row.
  inline __attribute__((always_inline)) void add_strided(
      const T* __restrict a, ptrdiff_t lda, const T* __restrict b, ptrdiff_t ldb, int64_t depth) {
    constexpr int kBases = (ROWS + 2) / 3;
    const T* base[kBases];
    for (int g = 0; g < kBases; ++g) base[g] = a + 3 * g * lda;
    for (int64_t k = 0; k < depth; ++k) {
      add_step(base, lda, b);
#pragma GCC unroll 8
      for (int g = 0; g < kBases; ++g) ++base[g];
      b += ldb;
    }
  }

  // The same over `runs` runs of `depth`, `run_step` apart, in one loop: where runs are short,
  // loops of their own cost as much as the sums.
  inline __attribute__((always_inline)) void add_runs(const T* __restrict a,
                                                      ptrdiff_t lda,
                                                      const T* __restrict b,
                                                      ptrdiff_t ldb,
                                                      int64_t depth,
                                                      int64_t runs,
                                                      ptrdiff_t run_step) {
    constexpr int kBases = (ROWS + 2) / 3;
    const T* base[kBases];
    for (int g = 0; g < kBases; ++g) base[g] = a + 3 * g * lda;
    int64_t left = depth;
    for (int64_t k = 0; k < runs * depth; ++k) {
      add_step(base, lda, b);
      // All bits where a run ends: without a branch.
      const int64_t ends = -int64_t(--left == 0);
      const ptrdiff_t ahead = 1 + (ends & (run_step - depth));
      left += ends & depth;
#pragma GCC unroll 8
      for (int g = 0; g < kBases; ++g) base[g] += ahead;
      b += ldb;
    }
  }

 private:
  // The next number of each row.
  inline __attribute__((always_inline)) void add_step(const T* const* base,
                                                      ptrdiff_t lda,
                                                      const T* b) {
    constexpr int W = Simd<T>::kWidth;
    Vector<T> col[VECS];
#pragma GCC unroll 2
    for (int j = 0; j < VECS; ++j) col[j] = load(b + j * W);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const Vector<T> x = broadcast(base[r / 3][r % 3 * lda]);
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) v[r][j] = multiply_add(x, col[j], v[r][j]);
    }
  }
};

// Calls body.template run<ROWS>() with ROWS = rows; rows is 1..kRowTile.
template <int ROWS, class Body>
inline void with_rows_from(int64_t rows, Body& body) {
  if constexpr (ROWS == 1) {
    body.template run<1>();
  } else {
    if (rows == ROWS) {
      body.template run<ROWS>();
    } else {
      with_rows_from<ROWS - 1>(rows, body);
    }
  }
}

template <class Body>
inline void with_rows(int64_t rows, Body& body) {
  with_rows_from<kRowTile>(rows, body);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
