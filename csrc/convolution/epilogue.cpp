// Gate and activation of stored sums, and their derivative.
//
// Traffic bound: forward reads the filters and writes the channels once; backward reads the
// gradient and what the forward pass saved and writes the pre-activation's gradient once. Sums over
// pixels (bias) are formed per fixed chunk of pixels and then over chunks in order, so no thread
// count changes them.
#include "convolution/epilogue.h"

#include <algorithm>

#include "base/parallel.h"
#include "convolution/store.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;
constexpr int64_t kChunk = 512;      // pixels of a task
constexpr int64_t kWorth = 1 << 15;  // filters times pixels that are worth a thread

struct Forward {
  const EpilogueArgs& a;
  int64_t begin, end;

  template <Activation A>
  void run() {
    const int64_t channels = a.gated ? a.filters / 2 : a.filters;
    for (int64_t i = begin; i < end; ++i) {
      float mask_ratio = 1, update_mask = 1;
      if (a.mask_ratio) {
        const int64_t n = i / a.image_pixels;
        const int64_t at = n * a.mask_stride_n + i % a.image_pixels;
        mask_ratio = a.mask_ratio[at];
        update_mask = a.update_mask[at];
      }
      const float* sums = a.sums + i * a.filters;
      for (int64_t c = 0; c < channels; c += W) {
        const int64_t left = channels - c;
        const Vec f = finished(sums, c, left, mask_ratio, update_mask);
        if (a.gated) {
          const Vec g = finished(sums, channels + c, left, mask_ratio, update_mask);
          if (a.pre_activation) {
            store_first(a.pre_activation + i * a.filters + c, f, left);
            store_first(a.pre_activation + i * a.filters + channels + c, g, left);
          }
          store_first(a.y + i * channels + c, activate<A>(f) * sigmoid_of(g), left);
        } else {
          if (a.pre_activation) store_first(a.pre_activation + i * a.filters + c, f, left);
          store_first(a.y + i * channels + c, activate<A>(f), left);
        }
      }
    }
  }

 private:
  Vec finished(const float* sums, int64_t c, int64_t left, float mask_ratio, float update_mask) {
    if (update_mask == 0) return Vec{};
    Vec v = load_first(sums + c, left);
    if (a.mask_ratio) v *= mask_ratio;
    if (a.bias) v = multiply_add(load_first(a.bias + c, left), update_mask, v);
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
      const float* saved = a.saved + i * a.filters;
      float* out = a.grad_pre_activation ? a.grad_pre_activation + i * a.filters : nullptr;
      for (int64_t c = 0; c < channels; c += W) {
        const int64_t left = channels - c;
        const Vec grad = load_first(a.grad + i * channels + c, left);
        const Vec f = load_first(saved + c, left);
        if (a.gated) {
          const Vec s = sigmoid_of(load_first(saved + channels + c, left));
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
  // Few filters would leave most lanes empty: there a vector's worth of pixels counts as one pixel
  // of as many times the filters.
  const int64_t together = !a.gated && a.filters < W ? W : 1;
  EpilogueBackwardArgs folded = a;
  folded.filters = together * a.filters;
  Buffer<float> sums(a.grad_bias ? chunks * folded.filters : 0);
  const int64_t work = a.pixels * a.filters / kWorth;
  const int threads = int(std::min<int64_t>(a.threads, std::max<int64_t>(work, 1)));
  parallel_tasks(chunks, threads, [&](int64_t task) {
    float* mine = a.grad_bias ? sums.data() + task * folded.filters : nullptr;
    if (mine) std::fill_n(mine, folded.filters, 0.0f);
    const int64_t begin = task * kChunk, end = std::min(a.pixels, begin + kChunk);
    const int64_t rest = end / together * together;
    Backward pass{folded, begin / together, end / together, mine};
    with_activation(a.activation, pass);
    Backward last{a, rest, end, mine};
    if (rest < end) with_activation(a.activation, last);
  });
  if (!a.grad_bias) return;
  std::fill_n(a.grad_bias, a.filters, 0.0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t f = 0; f < folded.filters; ++f)
      a.grad_bias[f % a.filters] += sums[chunk * folded.filters + f];
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
