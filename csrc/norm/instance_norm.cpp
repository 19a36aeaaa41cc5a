// Instance normalisation: moments of blocks of pixels, then one pass that normalises.
//
// A block fits the second-level cache and is read twice there: its mean, then the squares about
// that mean, so that a large common offset costs no digits. Blocks are joined in double, in order,
// and their size depends on the image alone: any number of threads gives equal bits. A block of an
// image that lies as planes is transposed in scratch, so that both layouts give equal bits as well.
// Traffic: x twice, y once (backward: x and the gradient twice, the result once).
#include "norm/instance_norm.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/activation.h"
#include "base/parallel.h"
#include "base/transpose.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t kWidth = Simd<float>::kWidth;

// Pixels whose gradients are summed before they are added to a block's: roundings of equal numbers
// add up.
constexpr int64_t kChain = 32;

// Pixels of a block: 128 KB, and few enough that float sums keep their digits.
int64_t block_pixels(int64_t channels) {
  return std::max<int64_t>(16, std::min<int64_t>(512, 32768 / channels));
}

inline Vector<float> load_some(const float* from, int64_t count) {
  if (count == kWidth) return load(from);
  Vector<float> v = {};
  std::memcpy(&v, from, sizeof(float) * count);
  return v;
}

inline void store_some(float* to, Vector<float> v, int64_t count) {
  if (count == kWidth) return store(to, v);
  std::memcpy(to, &v, sizeof(float) * count);
}

// Exchanges rows and columns: to[j * to_step + i] = from[i * from_step + j].
void transpose_block(const float* from,
                     int64_t from_step,
                     int64_t rows,
                     int64_t columns,
                     float* to,
                     int64_t to_step) {
  const int64_t whole_rows = rows / kWidth * kWidth, whole_columns = columns / kWidth * kWidth;
  for (int64_t i = 0; i < whole_rows; i += kWidth)
    for (int64_t j = 0; j < whole_columns; j += kWidth) {
      Vector<float> square[kWidth];
#pragma GCC unroll 16
      for (int64_t k = 0; k < kWidth; ++k) square[k] = load(from + (i + k) * from_step + j);
      transpose(square);
#pragma GCC unroll 16
      for (int64_t k = 0; k < kWidth; ++k) store(to + (j + k) * to_step + i, square[k]);
    }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_step + i] = from[i * from_step + j];
}

// Blocks of an image (N, pixels, channels), or of (N, channels, pixels) where it lies as planes.
struct Blocks {
  int64_t pixels, channels, block, count;  // count: blocks of a sample
  bool planes;

  template <class Args>
  explicit Blocks(const Args& a)
      : pixels(a.pixels),
        channels(a.channels),
        block(block_pixels(a.channels)),
        count(ceil_div(a.pixels, block)),
        planes(a.planes && a.channels > 1 && a.pixels > 1) {}

  int64_t begin(int64_t task) const { return task % count * block; }
  int64_t size(int64_t task) const { return std::min(block, pixels - begin(task)); }
  // Floats that one image needs in scratch.
  int64_t scratch() const { return planes ? block * channels : 0; }

  // The rows of a block: where they lie, or a copy in scratch.
  const float* rows(const float* image, int64_t task, float* scratch) const {
    if (!image || !planes) return at(image, task);
    transpose_block(at(image, task), pixels, channels, size(task), scratch, channels);
    return scratch;
  }
  // Memory for rows to be written, and their way to the image.
  float* target(float* image, int64_t task, float* scratch) const {
    return planes ? scratch : at(image, task);
  }
  void settle(const float* rows, float* image, int64_t task) const {
    if (planes) transpose_block(rows, channels, size(task), channels, at(image, task), pixels);
  }

 private:
  template <class Float>
  Float* at(Float* image, int64_t task) const {
    if (!image) return nullptr;
    const int64_t step = planes ? 1 : channels;
    return image + task / count * pixels * channels + begin(task) * step;
  }
};

// body(first channel, number of channels) for whole vectors, then for the rest.
template <class Body>
inline void each_vector(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kWidth <= channels; c += kWidth) body(c, kWidth);
  if (c < channels) body(c, channels - c);
}

// Calls add(pixel pointer, number of pixels) for four rows at a time: sums wait in memory, so they
// are fetched once for four.
template <class Add>
inline void each_four(int64_t pixels, const Add& add) {
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4) add(p, std::integral_constant<int, 4>());
  for (; p < pixels; ++p) add(p, std::integral_constant<int, 1>());
}

// mean and sum of squares about it, of `pixels` rows.
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

// Mean and 1 / sqrt(variance + eps) of a sample from those of its blocks.
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

// `pixels` rows of sample n.
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
  const Blocks& blocks;
  float* scratch;  // two images' a thread

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

struct Backward {
  const InstanceNormBackwardArgs& a;
  const Blocks blocks;
  Buffer<float> scratch;  // of a thread: x and the gradient
  Buffer<float> sums;    // (N, blocks, 2, C): of the gradient of n, and of that times (x - mean)/sd
  Buffer<float> shares;  // (N, 2, C): their totals, divided by the pixels
  Buffer<float> chains;  // of a thread: sums of kChain pixels

  explicit Backward(const InstanceNormBackwardArgs& args)
      : a(args),
        blocks(args),
        scratch(2 * blocks.scratch() * args.threads),
        sums(args.batch * blocks.count * 2 * args.channels),
        shares(args.batch * 2 * args.channels),
        chains(2 * args.channels * args.threads) {}

  // A block's rows of x and of the gradient.
  struct Rows {
    const float *x, *grad;
    float* spare;  // memory of the first, if it is scratch
  };

  Rows rows(int64_t task) {
    float* first = scratch.data() + 2 * thread_index() * blocks.scratch();
    return {
        blocks.rows(a.x, task, first), blocks.rows(a.grad, task, first + blocks.scratch()), first};
  }

  // The gradient of n and the normalised value, of one vector.
  template <Activation A>
  inline Vector<float> gradient(
      const Rows& in, int64_t n, int64_t at, int64_t c, int64_t count, Vector<float>& hat) const {
    const int64_t of = n * a.channels + c;
    hat = (load_some(in.x + at + c, count) - load_some(a.mean + of, count)) *
          load_some(a.inverse + of, count);
    const Vector<float> one = broadcast(1.0f), zero = {};
    const Vector<float> weight = a.weight ? load_some(a.weight + c, count) : one;
    const Vector<float> value =
        multiply_add(hat, weight, a.bias ? load_some(a.bias + c, count) : zero);
    return load_some(in.grad + at + c, count) * derivative<A>(value);
  }

  template <Activation A>
  void sum_block(int64_t task) {
    const int64_t n = task / blocks.count, channels = a.channels;
    const Rows in = rows(task);
    float* sum = sums.data() + task * 2 * channels;
    float* chain = chains.data() + thread_index() * 2 * channels;
    std::fill_n(sum, 2 * channels, 0.0f);
    for (int64_t p = 0; p < blocks.size(task); p += kChain) {
      std::fill_n(chain, 2 * channels, 0.0f);
      const int64_t end = std::min(blocks.size(task), p + kChain);
      for (int64_t at = p * channels; at < end * channels; at += channels) {
        each_vector(channels, [&](int64_t c, int64_t count) {
          Vector<float> hat;
          const Vector<float> g = gradient<A>(in, n, at, c, count, hat);
          store_some(chain + c, load_some(chain + c, count) + g, count);
          float* product = chain + channels + c;
          store_some(product, multiply_add(g, hat, load_some(product, count)), count);
        });
      }
      for (int64_t i = 0; i < 2 * channels; ++i) sum[i] += chain[i];
    }
  }

  void join_sample(int64_t n) {
    for (int64_t c = 0; c < a.channels; ++c) {
      double total = 0, product = 0;
      for (int64_t b = 0; b < blocks.count; ++b) {
        const float* sum = sums.data() + (n * blocks.count + b) * 2 * a.channels;
        total += double(sum[c]);
        product += double(sum[a.channels + c]);
      }
      a.grad_bias[n * a.channels + c] = total;
      a.grad_weight[n * a.channels + c] = product;
      shares[2 * n * a.channels + c] = float(total / double(a.pixels));
      shares[(2 * n + 1) * a.channels + c] = float(product / double(a.pixels));
    }
  }

  template <Activation A>
  void finish_block(int64_t task) {
    const int64_t n = task / blocks.count, channels = a.channels;
    const float* share = shares.data() + 2 * n * channels;
    const Rows in = rows(task);
    // Each vector is read before it is written.
    float* to = blocks.target(a.grad_x, task, in.spare);
    for (int64_t at = 0; at < blocks.size(task) * channels; at += channels) {
      each_vector(channels, [&](int64_t c, int64_t count) {
        Vector<float> hat;
        Vector<float> g = gradient<A>(in, n, at, c, count, hat);
        g -= multiply_add(hat, load_some(share + channels + c, count), load_some(share + c, count));
        g *= load_some(a.inverse + n * channels + c, count);
        if (a.weight) g *= load_some(a.weight + c, count);
        store_some(to + at + c, g, count);
      });
    }
    blocks.settle(to, a.grad_x, task);
  }

  template <Activation A>
  void run() {
    const int64_t tasks = a.batch * blocks.count;
    parallel_tasks(tasks, a.threads, [&](int64_t task) { sum_block<A>(task); });
    parallel_tasks(a.batch, a.threads, [&](int64_t n) { join_sample(n); });
    parallel_tasks(tasks, a.threads, [&](int64_t task) { finish_block<A>(task); });
  }
};

}  // namespace

void instance_norm(const InstanceNormArgs& a) {
  const Blocks blocks(a);
  const int64_t plane = blocks.count * a.channels;
  Buffer<float> scratch(2 * blocks.scratch() * a.threads);
  Buffer<float> means(a.batch * plane), squares(a.batch * plane), scale(a.batch * a.channels);
  parallel_tasks(a.batch * blocks.count, a.threads, [&](int64_t task) {
    const float* x = blocks.rows(a.x, task, scratch.data() + 2 * thread_index() * blocks.scratch());
    const int64_t of = task * a.channels;
    moments(x, blocks.size(task), a.channels, means.data() + of, squares.data() + of);
  });
  parallel_tasks(a.batch, a.threads, [&](int64_t n) {
    join(a, n, blocks.block, means.data() + n * plane, squares.data() + n * plane);
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t of = n * a.channels + c;
      scale[of] = a.inverse[of] * (a.weight ? a.weight[c] : 1.0f);
    }
  });
  Normalise pass{a, scale.data(), blocks, scratch.data()};
  with_activation(a.activation, pass);
}

void instance_norm_backward(const InstanceNormBackwardArgs& a) {
  Backward pass(a);
  with_activation(a.activation, pass);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
