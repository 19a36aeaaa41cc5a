// From products to outputs: the transform back, then what follows every convolution (store.h).
//
// Part of winograd.cpp.
#pragma once

#include "convolution/store.h"
#include "convolution/winograd_products.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// The output transform of one vector of lanes: body(i, j, sum) for the outputs of a tile.
template <class T, int VECS, class Body>
inline __attribute__((always_inline)) void transform_back(const float* products, const Body& body) {
  transform_axes<T::kProducts, T::kOutputs>(
      [&](int i, int j)
          INPAINT_INLINED { return load(products + (i * T::kProducts + j) * VECS * W); },
      [](const Vec* m, Vec* out) INPAINT_INLINED { T::output(m, 1, out); },
      body);
}

// Whole vectors of plain filters go from the transform to their places. First layers, whose
// products are few, take an eighth less time for it; gates and ratios gain nothing this way.
template <class T, int VECS>
struct StoreWhole {
  const ConvArgs& args;
  const Panel& panel;
  const float* lane_bias;
  const int64_t* pixel;  // of each output of the tile, -1: leave it out
  const float* products;

  static bool takes(const ConvArgs& a, const Panel& panel) {
    return panel.kind == PanelKind::kPlain && panel.count == VECS * W && !a.mask_ratio &&
           !a.pre_activation;
  }

  template <Activation A>
  void run() {
#pragma GCC unroll 2
    for (int v = 0; v < VECS; ++v) {
      const Vec bias = load(lane_bias + panel.lane0 + v * W);
      float* y = args.y + panel.first + v * W;
      transform_back<T, VECS>(products + v * W, [&](int i, int j, Vec sum) INPAINT_INLINED {
        const int64_t at = pixel[i * T::kOutputs + j];
        if (at < 0) return;
        if (kStreams<1> && args.y_streams) {
          stream(y + at * args.filters, activate<A>(sum + bias));
        } else {
          store(y + at * args.filters, activate<A>(sum + bias));
        }
      });
    }
  }
};

template <class T, int VECS>
void store_tile(const ConvArgs& a,
                Size2 grid,
                const Panel& panel,
                const float* lane_bias,
                const Tile& tile,
                const float* products) {
  constexpr int R = T::kOutputs;
  constexpr int64_t kLine = 16;  // floats of a cache line
  const int64_t channels = a.gated ? a.filters / 2 : a.filters;
  int64_t pixel[R * R];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < R; ++j) {
      const int64_t y = tile.y + i * grid.y, x = tile.x + j * grid.x;
      const bool wanted =
          y >= 0 && y < a.out_height && x >= 0 && x < a.out_width && is_wanted(a, tile.n, y, x);
      pixel[i * R + j] = wanted ? stored_pixel(a, tile.n, y, x) : -1;
      // The lines to be written are on their way during the transform.
      if (wanted && !(kStreams<1> && a.y_streams))
        for (int64_t lane = 0; lane < VECS * W; lane += kLine)
          __builtin_prefetch(a.y + pixel[i * R + j] * channels + panel.first + lane, 1);
    }
  if (StoreWhole<T, VECS>::takes(a, panel)) {
    StoreWhole<T, VECS> store_whole{a, panel, lane_bias, pixel, products};
    return with_activation(a.activation, store_whole);
  }
  float sums[R * R * VECS * W];
#pragma GCC unroll 2
  for (int v = 0; v < VECS; ++v)
    transform_back<T, VECS>(products + v * W, [&](int i, int j, Vec sum) INPAINT_INLINED {
      store(sums + ((i * R + j) * VECS + v) * W, sum);
    });
  StorePanel store_panel{a,
                         panel,
                         lane_bias,
                         sums,
                         pixel,
                         R * R,
                         tile.n * (a.out_height * a.out_width - a.mask_stride_n)};
  with_activation(a.activation, store_panel);
}

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
