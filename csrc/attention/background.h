// Background of contextual attention, as all windows of its gradient share it: values and keys
// packed as right operands, and the sums of their gradients.
//
// Tiling: every sum belongs to one panel, block or key, so windows and threads only ever add to it
// in one order. Traffic: the background is packed once a sample; its gradient is written once, at
// the end.
#pragma once

#include "attention/paste.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
class BackgroundGradient {
 public:
  explicit BackgroundGradient(const AttentionSample<T>& sample)
      : columns(sample.rate * sample.rate * sample.channels),
        panels(ceil_div(columns, kPanel<T>)),
        key_panels(ceil_div(sample.channels, kPanel<T>)),
        block_panels(ceil_div(sample.blocks_count, kPanel<T>)),
        values(block_panels * columns * kPanel<T>),
        key_vectors(key_panels * sample.hb * sample.w1 * kPanel<T>),
        grad_values(panels * sample.blocks_count * kPanel<T>),
        grad_keys(key_panels * sample.hb * sample.w1 * kPanel<T>),
        grad_norm(sample.keys_count + Simd<T>::kWidth),
        s_(sample) {
    std::fill_n(grad_values.data(), panels * s_.blocks_count * kPanel<T>, T(0));
    std::fill_n(grad_keys.data(), key_panels * s_.hb * s_.w1 * kPanel<T>, T(0));
    std::fill_n(grad_norm.data(), s_.keys_count + Simd<T>::kWidth, T(0));
    pack();
  }

  // Writes the gradient of the background, after the last window has added to the sums.
  void write(const OutputView<T>& out) {
    const ContextualAttentionArgs<T>& args = s_.args;
    T* const sample = out.data + s_.n * out.stride_n;
    // Values: each pixel belongs to one block.
    parallel_tasks(args.bg_height, s_.threads, [&](int64_t y) {
      const int64_t V = (y + s_.before) / s_.rate, a = (y + s_.before) % s_.rate;
      for (int64_t x = 0; x < args.bg_width; ++x) {
        const int64_t U = (x + s_.before) / s_.rate, b = (x + s_.before) % s_.rate;
        T* to = sample + y * out.stride_h + x * out.stride_w;
        for (int64_t c = 0; c < s_.channels; ++c) {
          const int64_t q = (a * s_.rate + b) * s_.channels + c;
          to[c * out.stride_c] =
              grad_values[(q / kPanel<T> * s_.blocks_count + V * s_.w1 + U) * kPanel<T> +
                          q % kPanel<T>];
        }
      }
    });
    // dL/d(|b|^2) at each pixel is the sum over the patches that hold it.
    const T floor_norm = T(1e-4);
    for (int64_t q = 0; q < s_.keys_count; ++q) {
      const T inverse = s_.inverse_norm[q];
      const bool constant = !args.sum_norm && inverse * floor_norm >= T(1);
      // dn = -sum of dT S is the gradient of the norm n; d|b| = b / n brings another 1 / n.
      grad_norm[q] = constant || grad_norm[q] == T(0) ? T(0) : -grad_norm[q] * inverse;
    }
    const ImageView<T>& bg = args.bg;
    parallel_tasks(s_.hb, s_.threads, [&](int64_t v) {
      for (int64_t u = 0; u < s_.wb; ++u) {
        T norm = 0;
        for (int64_t y = std::max<int64_t>(v - 1, 0); y < std::min(v + 2, s_.hb); ++y)
          for (int64_t x = std::max<int64_t>(u - 1, 0); x < std::min(u + 2, s_.wb); ++x)
            norm += grad_norm[y * s_.wb + x];
        T* to = sample + s_.key_ys[v] * out.stride_h + s_.key_xs[u] * out.stride_w;
        const T* b =
            bg.data + s_.n * bg.stride_n + s_.key_ys[v] * bg.stride_h + s_.key_xs[u] * bg.stride_w;
        const int64_t k = v * s_.w1 + u;
        for (int64_t c = 0; c < s_.channels; ++c) {
          const T key = grad_keys[(c / kPanel<T> * s_.hb * s_.w1 + k) * kPanel<T> + c % kPanel<T>];
          to[c * out.stride_c] += norm != T(0) ? key + b[c * bg.stride_c] * norm : key;
        }
      }
    });
  }

  const int64_t columns, panels, key_panels, block_panels;
  Buffer<T> values;       // [panel of blocks][rate * rate * C][kPanel]
  Buffer<T> key_vectors;  // [panel of channels][row][w1][kPanel]
  Buffer<T> grad_values;  // [panel of rate * rate * C][block][kPanel]
  Buffer<T> grad_keys;    // like key_vectors
  Buffer<T> grad_norm;    // of keys

 private:
  void pack() {
    const ContextualAttentionArgs<T>& args = s_.args;
    std::fill_n(
        values.data() + (block_panels - 1) * columns * kPanel<T>, columns * kPanel<T>, T(0));
    const int64_t ld = panels * kPanel<T>;
    parallel_tasks(s_.hb + 1, s_.threads, [&](int64_t V) {
      Buffer<T> blocks(s_.w1 * ld);
      block_row(args.bg, s_, args.bg_height, args.bg_width, s_.w1, V, ld, blocks.data());
      for (int64_t U = 0; U < s_.w1; ++U) {
        const int64_t block = V * s_.w1 + U;
        T* to = values.data() + block / kPanel<T> * columns * kPanel<T> + block % kPanel<T>;
        for (int64_t q = 0; q < columns; ++q) to[q * kPanel<T>] = blocks[U * ld + q];
      }
    });
    // The last place of a row of w1 holds no key.
    std::fill_n(key_vectors.data(), key_panels * s_.hb * s_.w1 * kPanel<T>, T(0));
    const std::vector<int64_t> at = s_.key_places();
    parallel_tasks(s_.hb, s_.threads, [&](int64_t v) {
      pack_vectors(s_.key_row(v),
                   args.bg.stride_c,
                   s_.channels,
                   at.data(),
                   s_.wb,
                   s_.hb * s_.w1,
                   key_vectors.data() + v * s_.w1 * kPanel<T>);
    });
  }

  const AttentionSample<T>& s_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
