// Gate and activation of stored sums, and their derivative.
//
// Traffic bound: forward reads the filters and writes the channels once; backward reads gradient
// and sums and writes the sums' gradient once. Sums over pixels (bias) are formed per fixed chunk
// of pixels and then over chunks in order, so no thread count changes them.
#include "gated_conv2d.h"

#include <algorithm>

#include "conv_store.h"
#include "parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;
constexpr int64_t kChunk = 512;  // pixels of a task

struct Forward {
  const EpilogueArgs& a;
  int64_t begin, end;

  template <Activation A>
  void run() {
    const int64_t channels = a.gated ? a.filters / 2 : a.filters;
    for (int64_t i = begin; i < end; ++i) {
      float scale = 1, share = 1;
      if (a.scale) {
        const int64_t n = i / a.image_pixels;
        const int64_t at = n * a.scale_stride_n + i % a.image_pixels;
        scale = a.scale[at];
        share = a.share[at];
      }
      const float* z = a.z + i * a.filters;
      for (int64_t c = 0; c < channels; c += W) {
        const int64_t left = channels - c;
        const Vec f = finished(z, c, left, scale, share);
        if (a.gated) {
          const Vec g = finished(z, channels + c, left, scale, share);
          if (a.z_out) {
            store_first(a.z_out + i * a.filters + c, f, left);
            store_first(a.z_out + i * a.filters + channels + c, g, left);
          }
          store_first(a.y + i * channels + c, activate<A>(f) * sigmoid_of(g), left);
        } else {
          if (a.z_out) store_first(a.z_out + i * a.filters + c, f, left);
          store_first(a.y + i * channels + c, activate<A>(f), left);
        }
      }
    }
  }

 private:
  Vec finished(const float* z, int64_t c, int64_t left, float scale, float share) {
    if (share == 0) return Vec{};
    Vec v = load_first(z + c, left);
    if (a.scale) v *= scale;
    if (a.bias) v += load_first(a.bias + c, left) * share;
    return v;
  }
};

struct Backward {
  const EpilogueBackwardArgs& a;
  int64_t begin, end;
  float* bias_sums;  // (filters), zero; or null

  template <Activation A>
  void run() {
    const int64_t channels = a.gated ? a.filters / 2 : a.filters;
    for (int64_t i = begin; i < end; ++i) {
      const float* z = a.z + i * a.filters;
      float* out = a.grad_z ? a.grad_z + i * a.filters : nullptr;
      for (int64_t c = 0; c < channels; c += W) {
        const int64_t left = channels - c;
        const Vec grad = load_first(a.grad + i * channels + c, left);
        const Vec f = load_first(z + c, left);
        if (a.gated) {
          const Vec s = sigmoid_of(load_first(z + channels + c, left));
          const Vec through = grad * s;
          emit(out, c, left, through * derivative<A>(f));
          emit(out, channels + c, left, through * activate<A>(f) * (1.0f - s));
        } else {
          emit(
              out, c, left, grad * (a.from_result ? derivative_of_result<A>(f) : derivative<A>(f)));
        }
      }
    }
  }

 private:
  void emit(float* out, int64_t c, int64_t left, Vec v) {
    if (out) store_first(out + c, v, left);
    if (bias_sums) store_first(bias_sums + c, load_first(bias_sums + c, left) + v, left);
  }
};

}  // namespace

void epilogue(const EpilogueArgs& a) {
  parallel_tasks(ceil_div(a.pixels, kChunk), a.threads, [&](int64_t task) {
    Forward pass{a, task * kChunk, std::min(a.pixels, (task + 1) * kChunk)};
    with_activation(a.activation, pass);
  });
}

void epilogue_backward(const EpilogueBackwardArgs& a) {
  const int64_t chunks = ceil_div(a.pixels, kChunk);
  Buffer<float> sums(a.grad_bias ? chunks * a.filters : 0);
  parallel_tasks(chunks, a.threads, [&](int64_t task) {
    float* mine = a.grad_bias ? sums.data() + task * a.filters : nullptr;
    if (mine) std::fill_n(mine, a.filters, 0.0f);
    Backward pass{a, task * kChunk, std::min(a.pixels, (task + 1) * kChunk), mine};
    with_activation(a.activation, pass);
  });
  if (!a.grad_bias) return;
  std::fill_n(a.grad_bias, a.filters, 0.0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t f = 0; f < a.filters; ++f) a.grad_bias[f] += sums[chunk * a.filters + f];
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
