// The store stage of the convolutions: ratio, bias, activation, gate. And the panels of filters
// that give it features and gates together.
#pragma once

#include <algorithm>
#include <vector>

#include "base/activation.h"
#include "convolution/conv.h"

namespace inpaint {
namespace INPAINT_ISA {

// Filters that are summed together, one to a lane of one or two vectors.
//   kPlain: filters first .. first + count - 1.
//   kPair:  vector 0 features, vector 1 their gates.
//   kHalves: one vector, lower half features, upper half their gates; for a remainder of channels.
enum class PanelKind { kPlain, kPair, kHalves };

struct Panel {
  PanelKind kind;
  int vectors;
  int64_t first, count;  // output channels
  int64_t lane0;         // lanes of all panels before it
};

inline std::vector<Panel> panels_of(int64_t filters, bool gated) {
  constexpr int64_t W = Simd<float>::kWidth;
  std::vector<Panel> panels;
  const int64_t channels = gated ? filters / 2 : filters;
  int64_t lane = 0;
  for (int64_t first = 0; first < channels;) {
    const int64_t left = channels - first;
    Panel panel{PanelKind::kPlain, 2, first, std::min(left, 2 * W), lane};
    if (gated) {
      panel.kind = left > W / 2 ? PanelKind::kPair : PanelKind::kHalves;
      panel.vectors = left > W / 2 ? 2 : 1;
      panel.count = std::min(left, W);
    } else if (left <= W) {
      panel.vectors = 1;
    }
    panels.push_back(panel);
    first += panel.count;
    lane += panel.vectors * W;
  }
  return panels;
}

inline int64_t lanes_of(const std::vector<Panel>& panels) {
  return panels.empty()
             ? 0
             : panels.back().lane0 + panels.back().vectors * int64_t(Simd<float>::kWidth);
}

// The filter in a lane of a panel, or -1.
inline int64_t filter_in_lane(const Panel& panel, int64_t filters, int64_t lane) {
  constexpr int64_t W = Simd<float>::kWidth;
  if (panel.kind == PanelKind::kPlain) return lane < panel.count ? panel.first + lane : -1;
  const int64_t half = panel.kind == PanelKind::kPair ? W : W / 2;
  if (lane % half >= panel.count) return -1;
  return (lane < half ? 0 : filters / 2) + panel.first + lane % half;
}

// n numbers and zeros, reading nothing beyond them.
inline Vector<float> load_first(const float* from, int64_t n) {
  constexpr int W = Simd<float>::kWidth;
  if (n >= W) return load(from);
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  alignas(32) static constexpr int32_t kMasks[2 * W] = {-1, -1, -1, -1, -1, -1, -1, -1};
  const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + W - n));
  return (Vector<float>)_mm256_maskload_ps(from, mask);
#else
  float lanes[W] = {};
  for (int i = 0; i < n; ++i) lanes[i] = from[i];
  return load(lanes);
#endif
}

// Lanes begin <= lane < end of a vector, and whether one instruction loads them.
#if defined(__AVX512F__)
using LaneMask = __mmask16;
constexpr bool kLoadsLanes = true;
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
using LaneMask = __m256i;
constexpr bool kLoadsLanes = true;
#else
struct LaneMask {
  int begin, end;
};
constexpr bool kLoadsLanes = false;
#endif

inline LaneMask lane_mask(int begin, int end) {
#if defined(__AVX512F__)
  return static_cast<LaneMask>((1u << end) - (1u << begin));
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  alignas(32) int32_t lanes[8];
  for (int i = 0; i < 8; ++i) lanes[i] = i >= begin && i < end ? -1 : 0;
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
#else
  return {begin, end};
#endif
}

// `others`, zero in the lanes of the mask, and those from memory, where nothing else is read.
inline __attribute__((always_inline)) Vector<float> load_lanes(Vector<float> others,
                                                               const float* lane0,
                                                               LaneMask mask) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_mask_loadu_ps((__m512)others, mask, lane0);
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  return (Vector<float>)_mm256_or_ps((__m256)others, _mm256_maskload_ps(lane0, mask));
#else
  float lanes[Simd<float>::kWidth];
  store(lanes, others);
  for (int i = mask.begin; i < mask.end; ++i) lanes[i] = lane0[i];
  return load(lanes);
#endif
}

inline void store_first(float* to, Vector<float> v, int64_t n) {
  constexpr int W = Simd<float>::kWidth;
  if (n >= W) {
    store(to, v);
    return;
  }
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  // By halves: masked stores are slow on many processors.
  __m128 rest = _mm256_castps256_ps128((__m256)v);
  if (n & 4) {
    _mm_storeu_ps(to, rest);
    rest = _mm256_extractf128_ps((__m256)v, 1);
    to += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(to), rest);
    rest = _mm_movehl_ps(rest, rest);
    to += 2;
  }
  if (n & 1) _mm_store_ss(to, rest);
#else
  float lanes[W];
  store(lanes, v);
  for (int i = 0; i < n; ++i) to[i] = lanes[i];
#endif
}

// The bias of each lane of all panels.
inline std::vector<float> lane_biases(const ConvArgs& a, const std::vector<Panel>& panels) {
  std::vector<float> biases(static_cast<size_t>(lanes_of(panels)), 0.0f);
  if (!a.bias) return biases;
  for (const Panel& panel : panels)
    for (int64_t i = 0; i < panel.vectors * int64_t(Simd<float>::kWidth); ++i) {
      const int64_t filter = filter_in_lane(panel, a.filters, i);
      if (filter >= 0) biases[size_t(panel.lane0 + i)] = a.bias[filter];
    }
  return biases;
}

// Finishes `count` pixels of one panel.
struct StorePanel {
  const ConvArgs& args;
  const Panel& panel;
  const float* lane_bias;
  const float* sums;     // (count, panel.vectors * W)
  const int64_t* pixel;  // (count): number of the output pixel, or -1: leave it out
  int count;
  int64_t mask_shift;  // mask_ratio and update_mask lie at pixel - mask_shift

  template <Activation A>
  void run() {
    switch (panel.kind) {
      case PanelKind::kPlain:
        if (panel.count == panel.vectors * Simd<float>::kWidth && !args.pre_activation)
          return panel.vectors == 2 ? whole_pixels<A, 2>() : whole_pixels<A, 1>();
        return panel.vectors == 2 ? pixels<A, PanelKind::kPlain, 2>()
                                  : pixels<A, PanelKind::kPlain, 1>();
      case PanelKind::kPair:
        return pixels<A, PanelKind::kPair, 2>();
      case PanelKind::kHalves:
        return pixels<A, PanelKind::kHalves, 1>();
    }
  }

 private:
  // Whole vectors of plain filters, channels last.
  template <Activation A, int VECS>
  void whole_pixels() {
    constexpr int W = Simd<float>::kWidth;
    const bool streams = kStreams<VECS> && args.y_streams;
    Vector<float> bias[VECS];
    for (int j = 0; j < VECS; ++j) bias[j] = load(lane_bias + panel.lane0 + j * W);
    for (int i = 0; i < count; ++i) {
      if (pixel[i] < 0) continue;
      float* y = args.y + pixel[i] * args.filters + panel.first;
      Vector<float> v[VECS];
      after_sums<VECS>(i, bias, v);
#pragma GCC unroll 2
      for (int j = 0; j < VECS; ++j) {
        v[j] = activate<A>(v[j]);
        if (streams) {
          stream(y + j * W, v[j]);
        } else {
          store(y + j * W, v[j]);
        }
      }
    }
  }

  // Ratio and bias of pixel i.
  template <int VECS>
  inline __attribute__((always_inline)) void after_sums(int i,
                                                        const Vector<float>* bias,
                                                        Vector<float>* v) {
    constexpr int W = Simd<float>::kWidth;
    if (!args.mask_ratio) {
      for (int j = 0; j < VECS; ++j) v[j] = load(sums + (i * VECS + j) * W) + bias[j];
      return;
    }
    const float mask_ratio = args.mask_ratio[pixel[i] - mask_shift];
    const float update_mask = args.update_mask[pixel[i] - mask_shift];
    for (int j = 0; j < VECS; ++j) {
      v[j] = load(sums + (i * VECS + j) * W);
      // A NaN that Winograd carried over from a neighbour must not survive where nothing is known.
      v[j] = update_mask == 0 ? Vector<float>{}
                              : multiply_add(v[j], mask_ratio, bias[j] * update_mask);
    }
  }

  template <Activation A, PanelKind K, int VECS>
  void pixels() {
    constexpr int W = Simd<float>::kWidth;
    const int64_t channels = args.gated ? args.filters / 2 : args.filters;
    Vector<float> bias[VECS];
    for (int j = 0; j < VECS; ++j) bias[j] = load(lane_bias + panel.lane0 + j * W);
    for (int i = 0; i < count; ++i) {
      if (pixel[i] < 0) continue;
      Vector<float> v[VECS];
      after_sums<VECS>(i, bias, v);
      float* pre_activation = args.pre_activation
                                  ? args.pre_activation + pixel[i] * args.filters + panel.first
                                  : nullptr;
      if constexpr (K == PanelKind::kPlain) {
        for (int j = 0; j < VECS; ++j) {
          const int64_t left = panel.count - j * W;
          if (pre_activation) store_first(pre_activation + j * W, v[j], left);
          store_result(pixel[i], panel.first + j * W, activate<A>(v[j]), left);
        }
      } else {
        Vector<float> gate;
        if constexpr (K == PanelKind::kPair) {
          gate = v[VECS - 1];
        } else {
          float lanes[W + W / 2] = {};
          store(lanes, v[0]);
          gate = load(lanes + W / 2);
        }
        if (pre_activation) {
          store_first(pre_activation, v[0], panel.count);
          store_first(pre_activation + channels, gate, panel.count);
        }
        store_result(pixel[i], panel.first, activate<A>(v[0]) * sigmoid_of(gate), panel.count);
      }
    }
  }

  inline __attribute__((always_inline)) void store_result(int64_t at,
                                                          int64_t channel,
                                                          Vector<float> v,
                                                          int64_t size) {
    const int64_t channels = args.gated ? args.filters / 2 : args.filters;
    if (kStreams<1> && args.y_streams && size >= Simd<float>::kWidth)
      return stream(args.y + at * channels + channel, v);
    store_first(args.y + at * channels + channel, v, size);
  }
};

// Writes zeros to one pixel of image n: where nothing valid is seen.
inline void clear_pixel(const ConvArgs& a, int64_t n, int64_t pixel) {
  const int64_t channels = a.gated ? a.filters / 2 : a.filters;
  if (a.y_planes) {
    const int64_t plane = a.store_size.y * a.store_size.x;
    float* y = a.y + pixel + n * (channels - 1) * plane;
    for (int64_t c = 0; c < channels; ++c) y[c * plane] = 0;
  } else {
    std::fill_n(a.y + pixel * channels, channels, 0.0f);
  }
  if (a.pre_activation) std::fill_n(a.pre_activation + pixel * a.filters, a.filters, 0.0f);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
