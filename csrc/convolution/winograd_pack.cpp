// Transformed weights of Winograd tiles, packed (panel, 36, 25 or 64, parts x channels, lanes): in
// double precision, once for many tiles.
#include "base/parallel.h"
#include "convolution/pack_taps.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Channels whose transformed taps are brought together before they go to memory, a run for each
// product: the runs lie a power of two apart.
constexpr int64_t kRun = 4;

// Doubles in a vector as wide as that of floats has half the lanes.
constexpr int64_t kHalf = Simd<double>::kWidth;
typedef float Narrow __attribute__((vector_size(kHalf * 4), aligned(4)));

// The transformed taps of a part of the kernel and one channel; `points`: a run apart.
template <class T>
void transform_taps(const PackArgs& a,
                    const Layout<T>& layout,
                    Size2 first,
                    const float* taps,
                    int64_t lanes,
                    float* points) {
  constexpr int N = T::kWeights, R = T::kTaps;
  for (int64_t lane = 0; lane < lanes; lane += kHalf) {
    Vector<double> g[R * R] = {}, half[R * N], out[N];
    for (int t = 0; t < R * R; ++t) {
      const int64_t y = first.y + t / R * layout.rows.tap_step;
      const int64_t x = first.x + t % R * layout.columns.tap_step;
      if (y < a.kernel.y && x < a.kernel.x) {
        const Size2 tap = a.tap(y, x);
        const float* from = taps + (tap.y * a.whole.x + tap.x) * lanes + lane;
        g[t] = __builtin_convertvector(*reinterpret_cast<const Narrow*>(from), Vector<double>);
      }
    }
    for (int x = 0; x < R; ++x) {
      T::weight(g + x, R, out);
      for (int i = 0; i < N; ++i) half[i * R + x] = out[i];
    }
    for (int i = 0; i < N; ++i) {
      T::weight(half + i * R, 1, out);
      for (int j = 0; j < N; ++j) {
        float* to = points + (i * N + j) * kRun * lanes + lane;
        *reinterpret_cast<Narrow*>(to) = __builtin_convertvector(out[j], Narrow);
      }
    }
  }
}

// `taps`: of channels begin ... begin + channels.
template <class T>
void pack_block(const PackArgs& a,
                const Layout<T>& layout,
                const Panel& panel,
                int64_t begin,
                int64_t channels,
                const float* taps,
                bool past_caches) {
  constexpr int64_t kPoints = T::kWeights * T::kWeights;
  const int64_t depth = layout.parts() * a.channels;
  const int64_t lanes = panel.vectors * int64_t(Simd<float>::kWidth);
  const int64_t channel = a.whole.y * a.whole.x * lanes;
  float points[kPoints * kRun * 2 * Simd<float>::kWidth];
  float* packed = a.packed + panel.lane0 * kPoints * depth;
  for (int64_t c = 0; c < channels; c += kRun) {
    const int64_t run = std::min(kRun, channels - c);
    float* to = packed + (begin + c) * lanes;
    for (const int64_t y : layout.rows.first)
      for (const int64_t x : layout.columns.first) {
        for (int64_t i = 0; i < run; ++i)
          transform_taps(a, layout, {y, x}, taps + (c + i) * channel, lanes, points + i * lanes);
        for (int64_t p = 0; p < kPoints; ++p)
          put(to + p * depth * lanes, points + p * kRun * lanes, run * lanes, past_caches);
        to += a.channels * lanes;
      }
  }
}

template <class T>
void pack(const std::vector<PackArgs>& phases) {
  const PackArgs& a = phases[0];
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  std::vector<Layout<T>> layouts;
  int64_t floats = 0;
  for (const PackArgs& phase : phases) {
    layouts.emplace_back(phase);
    floats += layouts.back().parts() * a.channels * lanes_of(panels) * T::kWeights * T::kWeights;
  }
  const bool past_caches = is_past_caches(a.packed, floats);
  parallel_tasks(int64_t(panels.size()), a.threads, [&](int64_t task) {
    const Panel& panel = panels[size_t(task)];
    each_tap_block(a, panel, [&](int64_t begin, int64_t channels, const float* taps) {
      for (size_t i = 0; i < phases.size(); ++i)
        pack_block(phases[i], layouts[i], panel, begin, channels, taps, past_caches);
    });
    stream_fence();
  });
}

}  // namespace

int64_t winograd_packed_size(const PackArgs& a) {
  return with_tile(a.algorithm, [&](auto tile) {
    using T = decltype(tile);
    const int64_t depth = Layout<T>(a).parts() * a.channels;
    return lanes_of(panels_of(a.filters, a.gated)) * T::kWeights * T::kWeights * depth;
  });
}

void pack_winograd(const std::vector<PackArgs>& phases) {
  with_tile(phases[0].algorithm, [&](auto tile) { pack<decltype(tile)>(phases); });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
