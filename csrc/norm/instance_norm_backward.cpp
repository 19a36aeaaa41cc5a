// Gradient of instance normalisation.
//
// Algebra, with h = (x - mean) / sd and g the gradient of n = h * weight + bias:
//   dbias = sum of g,   dweight = sum of g h,
//   dx = weight / sd * (g - mean(g) - h mean(g h)).
//
// Tiling: blocks of pixels (norm/blocks.h), once for the sums and once for dx. Sums of a block are
// joined in double, in order. Traffic: x and the gradient twice, the result once; n is computed
// again from x.
#include <algorithm>

#include "base/activation.h"
#include "norm/blocks.h"
#include "norm/instance_norm.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Pixels whose gradients are summed before they are added to the sums of the block. Short chains,
// because in a long one the roundings of equal numbers add up.
constexpr int64_t kChain = 32;

struct Backward {
  const InstanceNormBackwardArgs& a;
  const PixelBlocks blocks;
  Buffer<float> scratch;  // of each thread: for x and for the gradient
  Buffer<float> sums;     // (N, blocks, 2, C): of the gradient of n, and of that times h
  Buffer<float> means;    // (N, 2, C): their means over the pixels of a sample
  Buffer<float> chains;   // of each thread: sums of kChain pixels

  explicit Backward(const InstanceNormBackwardArgs& args)
      : a(args),
        blocks(args),
        scratch(2 * blocks.scratch() * args.threads),
        sums(args.batch * blocks.count * 2 * args.channels),
        means(args.batch * 2 * args.channels),
        chains(2 * args.channels * args.threads) {}

  // Rows of a block: of x and of the gradient.
  struct Rows {
    const float *x, *grad;
    float* spare;  // scratch of x, free for the result
  };

  Rows rows(int64_t task) {
    float* first = scratch.data() + 2 * thread_index() * blocks.scratch();
    return {
        blocks.rows(a.x, task, first), blocks.rows(a.grad, task, first + blocks.scratch()), first};
  }

  // For one vector the gradient of n; `hat` gets (x - mean) / sd.
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
      means[2 * n * a.channels + c] = float(total / double(a.pixels));
      means[(2 * n + 1) * a.channels + c] = float(product / double(a.pixels));
    }
  }

  template <Activation A>
  void finish_block(int64_t task) {
    const int64_t n = task / blocks.count, channels = a.channels;
    const float* mean = means.data() + 2 * n * channels;
    const Rows in = rows(task);
    // Each vector is read before it is written.
    float* to = blocks.target(a.grad_x, task, in.spare);
    for (int64_t at = 0; at < blocks.size(task) * channels; at += channels) {
      each_vector(channels, [&](int64_t c, int64_t count) {
        Vector<float> hat;
        Vector<float> g = gradient<A>(in, n, at, c, count, hat);
        g -= multiply_add(hat, load_some(mean + channels + c, count), load_some(mean + c, count));
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

void instance_norm_backward(const InstanceNormBackwardArgs& a) {
  Backward pass(a);
  with_activation(a.activation, pass);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
