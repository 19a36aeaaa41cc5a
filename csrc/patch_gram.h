// Pieces shared by the patch-matching kernels: pixel rows, patch norms, best matches.
#pragma once

#include <cmath>
#include <limits>
#include <mutex>

#include "gemm.h"
#include "nearest_patch.h"
#include "parallel.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr double kNormFloor = 1e-8;

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// Columns of one packed panel of the right operand.
template <class T>
constexpr int64_t kPanel = 2 * Simd<T>::kWidth;

// Copies row y of sample n to `out`, (C, width) at row stride ldo; pixels that are not valid become
// zero, so that nothing they hold can reach a result; columns beyond the image become zero too.
template <class T>
void copy_row(const ImageView<T>& image,
              int64_t n,
              int64_t y,
              int64_t channels,
              int64_t width,
              const uint8_t* valid_row,
              T* out,
              int64_t ldo,
              int64_t padded_width) {
  const T* row = image.data + n * image.stride_n + y * image.stride_h;
  constexpr int64_t kBlock = 16;
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t c1 = c0 + kBlock < channels ? c0 + kBlock : channels;
    if (image.stride_w == 1) {
      for (int64_t c = c0; c < c1; ++c)
        std::memcpy(out + c * ldo, row + c * image.stride_c, sizeof(T) * width);
    } else {
      for (int64_t x = 0; x < width; ++x)
        for (int64_t c = c0; c < c1; ++c)
          out[c * ldo + x] = row[c * image.stride_c + x * image.stride_w];
    }
    for (int64_t c = c0; c < c1; ++c) {
      T* o = out + c * ldo;
      if (valid_row) {
        for (int64_t x = 0; x < width; ++x) o[x] = valid_row[x] ? o[x] : T(0);
      }
      for (int64_t x = width; x < padded_width; ++x) o[x] = T(0);
    }
  }
}

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

// Squared norm of every patch of one sample, (H - k + 1, W - k + 1), summed in double.
template <class T>
void patch_square_norms(const ImageView<T>& image,
                        int64_t n,
                        int64_t channels,
                        int64_t height,
                        int64_t width,
                        int64_t patch,
                        const uint8_t* valid,
                        int threads,
                        double* out) {
  Buffer<double> columns(height * width);  // sums of `patch` pixels along x
  const int64_t out_width = width - patch + 1;
  parallel_tasks(ceil_div(height, 16), threads, [&](int64_t task) {
    Buffer<double> pixel(width);
    const int64_t end = task * 16 + 16 < height ? task * 16 + 16 : height;
    for (int64_t y = task * 16; y < end; ++y) {
      const T* row = image.data + n * image.stride_n + y * image.stride_h;
      for (int64_t x = 0; x < width; ++x) pixel[x] = 0;
      if (image.stride_w == 1) {
        for (int64_t c = 0; c < channels; ++c) {
          const T* p = row + c * image.stride_c;
          for (int64_t x = 0; x < width; ++x) pixel[x] += double(p[x]) * double(p[x]);
        }
      } else {
        for (int64_t x = 0; x < width; ++x) {
          const T* p = row + x * image.stride_w;
          double sum = 0;
          for (int64_t c = 0; c < channels; ++c) {
            const double value = double(p[c * image.stride_c]);
            sum += value * value;
          }
          pixel[x] = sum;
        }
      }
      if (valid) {
        for (int64_t x = 0; x < width; ++x) pixel[x] = valid[y * width + x] ? pixel[x] : 0.0;
      }
      double* o = columns.data() + y * width;
      for (int64_t x = 0; x < out_width; ++x) {
        double sum = 0;
        for (int64_t d = 0; d < patch; ++d) sum += pixel[x + d];
        o[x] = sum;
      }
    }
  });
  for (int64_t y = 0; y + patch <= height; ++y) {
    double* o = out + y * out_width;
    for (int64_t x = 0; x < out_width; ++x) o[x] = columns[y * width + x];
    for (int64_t d = 1; d < patch; ++d) {
      const double* row = columns.data() + (y + d) * width;
      for (int64_t x = 0; x < out_width; ++x) o[x] += row[x];
    }
  }
}

// Best key of each query. Order-free: of equal scores the lowest key index wins, whoever comes
// first, so the result does not depend on how tasks are cut or scheduled.
template <class T>
class BestMatches {
 public:
  explicit BestMatches(int64_t queries) : score_(queries), index_(queries) {
    for (int64_t i = 0; i < queries; ++i) {
      score_[i] = kMinusInfinity<T>;
      index_[i] = -1;
    }
  }

  // Takes in the best matches that one task found for a stretch of queries.
  void merge(int64_t first, const T* score, const int64_t* index, int64_t count) {
    std::lock_guard<std::mutex> lock(guard_);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t q = first + i;
      if (index[i] >= 0 &&
          (score[i] > score_[q] || (score[i] == score_[q] && index[i] < index_[q]))) {
        score_[q] = score[i];
        index_[q] = index[i];
      }
    }
  }

  void scores(int64_t first, int64_t count, T* out) {
    std::lock_guard<std::mutex> lock(guard_);
    for (int64_t i = 0; i < count; ++i) out[i] = score_[first + i];
  }

  T score(int64_t query) const { return score_[query]; }
  int64_t index(int64_t query) const { return index_[query]; }

 private:
  Buffer<T> score_;
  Buffer<int64_t> index_;
  std::mutex guard_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
