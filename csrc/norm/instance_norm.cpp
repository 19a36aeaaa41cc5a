// Instance normalisation: moments of blocks of pixels, then one pass that normalises.
//
// Algebra: y = activation((x - mean) / sqrt(variance + eps) * weight + bias) + residual. The mean
// of a block comes first, then the squares about that mean, so that a large common offset costs no
// digits. Blocks are joined in double, in order.
//
// Tiling: blocks of pixels (norm/blocks.h). Traffic: x twice, y once; a block's second read comes
// from the second-level cache.
#include "norm/instance_norm.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/activation.h"
#include "norm/blocks.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Calls add(first pixel, number of pixels), four pixels at a time, then one by one. The sums lie in
// memory, so four pixels share a load and a store.
template <class Add>
inline void each_four(int64_t pixels, const Add& add) {
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4) add(p, std::integral_constant<int, 4>());
  for (; p < pixels; ++p) add(p, std::integral_constant<int, 1>());
}

// Mean of `pixels` rows, and the sum of squares about it.
void moments(const float* x, int64_t pixels, int64_t channels, float* mean, float* squares) {
  std::fill_n(mean, channels, 0.0f);
  std::fill_n(squares, channels, 0.0f);
  each_four(pixels, [&](int64_t p, auto rows) {
    const float* row = x + p * channels;
    each_vector(channels, [&](int64_t c, int64_t count) {
      Vector<float> sum = load_some(row + c, count);
      for (int r = 1; r < rows; ++r) sum += load_some(row + r * channels + c, count);
      store_some(mean + c, load_some(mean + c, count) + sum, count);
    });
  });
  for (int64_t c = 0; c < channels; ++c) mean[c] /= float(pixels);
  each_four(pixels, [&](int64_t p, auto rows) {
    const float* row = x + p * channels;
    each_vector(channels, [&](int64_t c, int64_t count) {
      const Vector<float> m = load_some(mean + c, count);
      Vector<float> sum = {};
      for (int r = 0; r < rows; ++r) {
        const Vector<float> d = load_some(row + r * channels + c, count) - m;
        sum = multiply_add(d, d, sum);
      }
      store_some(squares + c, load_some(squares + c, count) + sum, count);
    });
  });
}

// Mean and 1 / sqrt(variance + eps) of a sample, from the moments of its blocks.
void join(
    const InstanceNormArgs& a, int64_t n, int64_t block, const float* means, const float* squares) {
  const int64_t blocks = ceil_div(a.pixels, block);
  for (int64_t c = 0; c < a.channels; ++c) {
    double sum = 0, about = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      const double count = double(std::min(block, a.pixels - b * block));
      sum += count * double(means[b * a.channels + c]);
    }
    const double mean = sum / double(a.pixels);
    for (int64_t b = 0; b < blocks; ++b) {
      const double count = double(std::min(block, a.pixels - b * block));
      const double d = double(means[b * a.channels + c]) - mean;
      about += double(squares[b * a.channels + c]) + count * d * d;
    }
    a.mean[n * a.channels + c] = float(mean);
    a.inverse[n * a.channels + c] = float(1 / std::sqrt(about / double(a.pixels) + a.eps));
  }
}

// Normalises `pixels` rows of sample n.
template <Activation A>
void normalise(const InstanceNormArgs& a,
               int64_t n,
               int64_t pixels,
               const float* x,
               const float* residual,
               const float* scale,
               float* to) {
  const float* mean = a.mean + n * a.channels;
  const Vector<float> zero = {};
  for (int64_t at = 0; at < pixels * a.channels; at += a.channels) {
    each_vector(a.channels, [&](int64_t c, int64_t count) {
      const Vector<float> shift = a.bias ? load_some(a.bias + c, count) : zero;
      const Vector<float> d = load_some(x + at + c, count) - load_some(mean + c, count);
      Vector<float> y = activate<A>(multiply_add(d, load_some(scale + c, count), shift));
      if (residual) y += load_some(residual + at + c, count);
      store_some(to + at + c, y, count);
    });
  }
}

struct Normalise {
  const InstanceNormArgs& a;
  const float* scale;  // (N, C)
  const PixelBlocks& blocks;
  float* scratch;  // of each thread: for x and for the residual

  template <Activation A>
  void run() {
    parallel_tasks(a.batch * blocks.count, a.threads, [&](int64_t task) {
      const int64_t n = task / blocks.count;
      float* first = scratch + 2 * thread_index() * blocks.scratch();
      const float* x = blocks.rows(a.x, task, first);
      const float* residual = blocks.rows(a.residual, task, first + blocks.scratch());
      // Each vector is read before it is written.
      float* y = blocks.target(a.y, task, first);
      normalise<A>(a, n, blocks.size(task), x, residual, scale + n * a.channels, y);
      blocks.settle(y, a.y, task);
    });
  }
};

}  // namespace

void instance_norm(const InstanceNormArgs& a) {
  const PixelBlocks blocks(a);
  const int64_t stride = blocks.count * a.channels;
  Buffer<float> scratch(2 * blocks.scratch() * a.threads);
  Buffer<float> means(a.batch * stride), squares(a.batch * stride), scale(a.batch * a.channels);
  parallel_tasks(a.batch * blocks.count, a.threads, [&](int64_t task) {
    const float* x = blocks.rows(a.x, task, scratch.data() + 2 * thread_index() * blocks.scratch());
    const int64_t of = task * a.channels;
    moments(x, blocks.size(task), a.channels, means.data() + of, squares.data() + of);
  });
  parallel_tasks(a.batch, a.threads, [&](int64_t n) {
    join(a, n, blocks.block, means.data() + n * stride, squares.data() + n * stride);
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t of = n * a.channels + c;
      scale[of] = a.inverse[of] * (a.weight ? a.weight[c] : 1.0f);
    }
  });
  Normalise pass{a, scale.data(), blocks, scratch.data()};
  with_activation(a.activation, pass);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
