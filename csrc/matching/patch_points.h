// Patches as points of few coordinates that bound their distances from below.
//
// Algebra: let B hold kCoordinates - 1 orthonormal rows, m be the mean patch, a = B (p - m), and
// r = sqrt(|p - m|^2 - |a|^2) what B leaves of p. Then for two patches
//   |p - q|^2 >= |a_p - a_q|^2 + (r_p - r_q)^2,
// by Pythagoras and the triangle inequality in the complement of B. So the points (a, r) lie no
// farther apart than their patches do. The bound holds for any orthonormal B; it is close where B
// spans the directions in which patches differ most, the first principal components of a sample.
//
// Rounding: coordinates are formed in double and then rounded to T, at most 2^-24 of the largest
// norm each for floats. `slack` covers the sum of these errors for a pair.
//
// Traffic: an image is packed once, channels together, so that a patch row is one run of numbers.
// A point reads its patch from the first-level cache and the basis, 31 kB for 7 x 7 x 5, too.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/parallel.h"
#include "matching/nearest_patch.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr int64_t kCoordinates = 16;

// One sample with the channels of a pixel together, (H, W, C), and a vector of zeros behind.
template <class T>
class PixelRuns {
 public:
  PixelRuns(const ImageView<T>& image,
            int64_t n,
            int64_t channels,
            int64_t height,
            int64_t width,
            const uint8_t* valid,
            int threads)
      : channels_(channels), stride_(width * channels), data_(height * stride_ + Simd<T>::kWidth) {
    for (int64_t i = 0; i < Simd<T>::kWidth; ++i) data_[height * stride_ + i] = T(0);
    constexpr int64_t kRows = 16;
    parallel_tasks(ceil_div(height, kRows), threads, [&](int64_t task) {
      for (int64_t y = task * kRows; y < std::min(height, (task + 1) * kRows); ++y) {
        const T* from = image.data + n * image.stride_n + y * image.stride_h;
        T* to = data_.data() + y * stride_;
        for (int64_t x = 0; x < width; ++x, to += channels) {
          const bool use = !valid || valid[y * width + x];
          for (int64_t c = 0; c < channels; ++c)
            to[c] = use ? from[x * image.stride_w + c * image.stride_c] : T(0);
        }
      }
    });
  }

  const T* at(int64_t y, int64_t x) const { return data_.data() + y * stride_ + x * channels_; }
  // From a patch row to the next.
  int64_t stride() const { return stride_; }

 private:
  const int64_t channels_, stride_;
  Buffer<T> data_;
};

// Orthonormal directions in which a sample of patches differs most.
class PatchBasis {
 public:
  // rows: (count, depth) sampled patches, in double.
  PatchBasis(std::vector<double> rows, int64_t count, int64_t depth)
      : depth_(depth),
        used_(std::min(kCoordinates - 1, depth)),
        mean_(depth, 0.0),
        columns_(depth * kCoordinates, 0.0) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < depth; ++d) mean_[d] += rows[i * depth + d] / double(count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < depth; ++d) rows[i * depth + d] -= mean_[d];
    // Subspace iteration. It need not converge: any orthonormal basis gives a bound.
    uint64_t state = 1;
    for (int64_t d = 0; d < depth; ++d) {
      for (int64_t j = 0; j < used_; ++j) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        columns_[d * kCoordinates + j] = double(int64_t(state >> 33)) / double(1u << 31) - 0.5;
      }
    }
    orthonormalise();
    std::vector<double> next(depth * kCoordinates);
    for (int turn = 0; turn < kTurns; ++turn) {
      std::fill(next.begin(), next.end(), 0.0);
      for (int64_t i = 0; i < count; ++i) {
        const double* row = rows.data() + i * depth;
        double along[kCoordinates] = {};
        for (int64_t d = 0; d < depth; ++d)
          for (int64_t j = 0; j < kCoordinates; ++j)
            along[j] += row[d] * columns_[d * kCoordinates + j];
        for (int64_t d = 0; d < depth; ++d)
          for (int64_t j = 0; j < kCoordinates; ++j)
            next[d * kCoordinates + j] += row[d] * along[j];
      }
      columns_.swap(next);
      orthonormalise();
    }
  }

  static constexpr int64_t kBlock = 4;

  // Up to kBlock patches, whose points are formed together: each number of the basis is read once.
  class Block {
   public:
    explicit Block(const PatchBasis& basis)
        : basis_(basis), values_(kBlock * basis.depth_, 0.0), norms_(kBlock, 0.0) {}

    // Sets patch j; its rows of `run` numbers lie `stride` apart.
    template <class T>
    void set(int64_t j, const T* patch, int64_t run, int64_t stride) {
      double* to = values_.data() + j * basis_.depth_;
      const double* mean = basis_.mean_.data();
      for (int64_t d = 0; d < basis_.depth_; d += run, patch += stride)
        for (int64_t i = 0; i < run; ++i) to[d + i] = double(patch[i]) - mean[d + i];
    }

    // Squared norm of patch j less the mean, after points().
    double norm(int64_t j) const { return norms_[j]; }

    template <class T>
    void points(int64_t patches, T* out) {
      constexpr int64_t W = Simd<double>::kWidth, V = kCoordinates / W;
      const int64_t depth = basis_.depth_;
      const double* const values = values_.data();
      Vector<double> sums[kBlock][V] = {};
      const double* column = basis_.columns_.data();
      for (int64_t d = 0; d < depth; ++d, column += kCoordinates) {
#pragma GCC unroll 4
        for (int64_t j = 0; j < kBlock; ++j) {
          const Vector<double> x = broadcast(values[j * depth + d]);
#pragma GCC unroll 8
          for (int64_t v = 0; v < V; ++v)
            sums[j][v] = multiply_add(load(column + v * W), x, sums[j][v]);
        }
      }
      for (int64_t j = 0; j < patches; ++j, out += kCoordinates) {
        double a[kCoordinates];
        for (int64_t v = 0; v < V; ++v) store(a + v * W, sums[j][v]);
        double left = norms_[j] = square_norm(values + j * depth, depth);
        for (int64_t i = 0; i < kCoordinates - 1; ++i) {
          left -= a[i] * a[i];
          out[i] = T(a[i]);
        }
        out[kCoordinates - 1] = T(std::sqrt(std::max(left, 0.0)));
      }
    }

   private:
    static double square_norm(const double* x, int64_t count) {
      constexpr int64_t W = Simd<double>::kWidth;
      Vector<double> sum{};
      int64_t d = 0;
      for (; d + W <= count; d += W) sum = multiply_add(load(x + d), load(x + d), sum);
      double total = horizontal_sum<double>(sum);
      for (; d < count; ++d) total += x[d] * x[d];
      return total;
    }

    const PatchBasis& basis_;
    std::vector<double> values_;  // [patch][depth], less the mean
    std::vector<double> norms_;
  };

 private:
  static constexpr int kTurns = 4;

  // Gram-Schmidt, twice for full precision. A column without a rest becomes zero.
  void orthonormalise() {
    for (int64_t j = 0; j < used_; ++j) {
      double before = 0;
      for (int64_t d = 0; d < depth_; ++d) before += square(d, j);
      for (int pass = 0; pass < 2; ++pass) {
        for (int64_t i = 0; i < j; ++i) {
          double dot = 0;
          for (int64_t d = 0; d < depth_; ++d) dot += entry(d, i) * entry(d, j);
          for (int64_t d = 0; d < depth_; ++d) entry(d, j) -= dot * entry(d, i);
        }
      }
      double after = 0;
      for (int64_t d = 0; d < depth_; ++d) after += square(d, j);
      const double scale = after > 1e-20 * before ? 1 / std::sqrt(after) : 0.0;
      for (int64_t d = 0; d < depth_; ++d) entry(d, j) *= scale;
    }
  }
  double& entry(int64_t d, int64_t j) { return columns_[d * kCoordinates + j]; }
  double square(int64_t d, int64_t j) { return entry(d, j) * entry(d, j); }

  const int64_t depth_, used_;
  std::vector<double> mean_, columns_;  // (depth), (depth, kCoordinates)
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
