// Instance normalisation: moments of blocks of pixels, then one pass that normalises.
//
// A block fits the second-level cache and is read twice there: its mean, then the squares about
// that mean, so that a large common offset costs no digits. Blocks are joined in double, in order,
// and their size depends on the image alone: any number of threads gives equal bits.
// Traffic: x twice, y once (backward: x and the gradient twice, the result once).
#include "instance_norm.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "activation.h"
#include "parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t kWidth = Simd<float>::kWidth;

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
        sum += d * d;
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

template <Activation A>
void normalise(const InstanceNormArgs& a, int64_t n, int64_t p0, int64_t p1, const float* scale) {
  const float* mean = a.mean + n * a.channels;
  const Vector<float> zero = {};
  for (int64_t p = p0; p < p1; ++p) {
    const int64_t at = (n * a.pixels + p) * a.channels;
    each_vector(a.channels, [&](int64_t c, int64_t count) {
      const Vector<float> shift = a.bias ? load_some(a.bias + c, count) : zero;
      const Vector<float> d = load_some(a.x + at + c, count) - load_some(mean + c, count);
      Vector<float> y = activate<A>(d * load_some(scale + c, count) + shift);
      if (a.residual) y += load_some(a.residual + at + c, count);
      store_some(a.y + at + c, y, count);
    });
  }
}

struct Normalise {
  const InstanceNormArgs& a;
  const float* scale;  // (N, C)
  int64_t block;

  template <Activation A>
  void run() {
    const int64_t blocks = ceil_div(a.pixels, block);
    parallel_tasks(a.batch * blocks, a.threads, [&](int64_t task) {
      const int64_t n = task / blocks, p0 = task % blocks * block;
      normalise<A>(a, n, p0, std::min(a.pixels, p0 + block), scale + n * a.channels);
    });
  }
};

struct Backward {
  const InstanceNormBackwardArgs& a;
  int64_t block, blocks;
  Buffer<float> sums;    // (N, blocks, 2, C): of the gradient of n, and of that times (x - mean)/sd
  Buffer<float> shares;  // (N, 2, C): their totals, divided by the pixels

  explicit Backward(const InstanceNormBackwardArgs& args)
      : a(args),
        block(block_pixels(args.channels)),
        blocks(ceil_div(args.pixels, block)),
        sums(args.batch * blocks * 2 * args.channels),
        shares(args.batch * 2 * args.channels) {}

  // The gradient of n and the normalised value, of one vector.
  template <Activation A>
  inline Vector<float> gradient(
      int64_t n, int64_t at, int64_t c, int64_t count, Vector<float>& hat) const {
    const int64_t of = n * a.channels + c;
    hat = (load_some(a.x + at + c, count) - load_some(a.mean + of, count)) *
          load_some(a.inverse + of, count);
    Vector<float> value = hat;
    if (a.weight) value *= load_some(a.weight + c, count);
    if (a.bias) value += load_some(a.bias + c, count);
    return load_some(a.grad + at + c, count) * derivative<A>(value);
  }

  template <Activation A>
  void sum_block(int64_t task) {
    const int64_t n = task / blocks, p0 = task % blocks * block, channels = a.channels;
    float* sum = sums.data() + task * 2 * channels;
    std::fill_n(sum, 2 * channels, 0.0f);
    for (int64_t p = p0; p < std::min(a.pixels, p0 + block); ++p) {
      const int64_t at = (n * a.pixels + p) * channels;
      each_vector(channels, [&](int64_t c, int64_t count) {
        Vector<float> hat;
        const Vector<float> g = gradient<A>(n, at, c, count, hat);
        store_some(sum + c, load_some(sum + c, count) + g, count);
        float* product = sum + channels + c;
        store_some(product, load_some(product, count) + g * hat, count);
      });
    }
  }

  void join_sample(int64_t n) {
    for (int64_t c = 0; c < a.channels; ++c) {
      double total = 0, product = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        const float* sum = sums.data() + (n * blocks + b) * 2 * a.channels;
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
    const int64_t n = task / blocks, p0 = task % blocks * block, channels = a.channels;
    const float* share = shares.data() + 2 * n * channels;
    for (int64_t p = p0; p < std::min(a.pixels, p0 + block); ++p) {
      const int64_t at = (n * a.pixels + p) * channels;
      each_vector(channels, [&](int64_t c, int64_t count) {
        Vector<float> hat;
        Vector<float> g = gradient<A>(n, at, c, count, hat);
        g -= load_some(share + c, count) + hat * load_some(share + channels + c, count);
        g *= load_some(a.inverse + n * channels + c, count);
        if (a.weight) g *= load_some(a.weight + c, count);
        store_some(a.grad_x + at + c, g, count);
      });
    }
  }

  template <Activation A>
  void run() {
    const int64_t tasks = a.batch * blocks;
    parallel_tasks(tasks, a.threads, [&](int64_t task) { sum_block<A>(task); });
    parallel_tasks(a.batch, a.threads, [&](int64_t n) { join_sample(n); });
    parallel_tasks(tasks, a.threads, [&](int64_t task) { finish_block<A>(task); });
  }
};

}  // namespace

void instance_norm(const InstanceNormArgs& a) {
  const int64_t block = block_pixels(a.channels), blocks = ceil_div(a.pixels, block);
  const int64_t plane = blocks * a.channels;
  Buffer<float> means(a.batch * plane), squares(a.batch * plane), scale(a.batch * a.channels);
  parallel_tasks(a.batch * blocks, a.threads, [&](int64_t task) {
    const int64_t n = task / blocks, p0 = task % blocks * block;
    const float* x = a.x + (n * a.pixels + p0) * a.channels;
    const int64_t of = task * a.channels;
    moments(x, std::min(block, a.pixels - p0), a.channels, means.data() + of, squares.data() + of);
  });
  parallel_tasks(a.batch, a.threads, [&](int64_t n) {
    join(a, n, block, means.data() + n * plane, squares.data() + n * plane);
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t of = n * a.channels + c;
      scale[of] = a.inverse[of] * (a.weight ? a.weight[c] : 1.0f);
    }
  });
  Normalise pass{a, scale.data(), block};
  with_activation(a.activation, pass);
}

void instance_norm_backward(const InstanceNormBackwardArgs& a) {
  Backward pass(a);
  with_activation(a.activation, pass);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
