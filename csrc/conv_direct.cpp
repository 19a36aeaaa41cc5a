// Convolution by direct sums, any kernel and stride: an implicit matrix product.
//
// A task takes a block of outputs: the load stage brings what it reads, with its halo, into scratch
// as a dense image (N, rows, columns, channels). There the taps of one kernel row lie together, and
// neighbouring outputs a stride apart, so the left operand of the product is read in place. Right
// operand: weights packed (panel, kernel rows, kernel columns, channels, lanes).
#include <algorithm>
#include <cstring>

#include "conv_load.h"
#include "conv_store.h"
#include "gemm.h"
#include "parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t W = Simd<float>::kWidth;

// Terms that are summed in one chain, see conv_winograd.cpp.
constexpr int64_t kSumDepth = 128;

struct Block {
  int64_t n, y, x, rows, columns;
};

template <int VECS>
struct DirectProduct {
  const ConvArgs& args;
  const float* input;  // first tap of the first output
  int64_t row_stride;  // of the scratch image
  const float* weight;
  float* sums;

  template <int ROWS>
  void run() {
    const int64_t c = args.channels, step = args.stride.x * c;
    // Taps side by side form one run.
    const bool dense = args.dilation.x == 1;
    const int64_t runs = dense ? 1 : args.kernel.x, depth = dense ? args.kernel.x * c : c;
    const float* w = weight;
    int64_t summed = 0;
    bool first = true;
    Accumulator<float, ROWS, VECS> sum;
    sum.clear();
    for (int64_t ky = 0; ky < args.kernel.y; ++ky)
      for (int64_t run = 0; run < runs; ++run) {
        const float* from = input + ky * args.dilation.y * row_stride + run * args.dilation.x * c;
        for (int64_t k = 0; k < depth; k += kSumDepth) {
          const int64_t here = std::min(kSumDepth, depth - k);
          if (summed + here > kSumDepth) {
            flush<ROWS>(sum, first);
            first = false;
            summed = 0;
          }
          sum.add_strided(from + k, step, w, VECS * W, here);
          w += here * VECS * W;
          summed += here;
        }
      }
    flush<ROWS>(sum, first);
  }

 private:
  template <int ROWS>
  inline __attribute__((always_inline)) void flush(Accumulator<float, ROWS, VECS>& sum,
                                                   bool first) {
    for (int r = 0; r < ROWS; ++r)
      for (int j = 0; j < VECS; ++j) {
        float* to = sums + (r * VECS + j) * W;
        store(to, first ? sum.v[r][j] : load(to) + sum.v[r][j]);
      }
    sum.clear();
  }
};

// Rows and columns of the input that a number of outputs reads.
int64_t reach(int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation) {
  return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

void load_block(const ConvArgs& a, const Source& source, const Block& block, float* to) {
  const int64_t rows = reach(block.rows, a.kernel.y, a.stride.y, a.dilation.y);
  const int64_t columns = reach(block.columns, a.kernel.x, a.stride.x, a.dilation.x);
  int64_t begin = 0;
  int part = 0;
  for (const int64_t end : source.part_end()) {
    const int64_t size = end - begin;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        const float* from =
            source.at(block.n, block.y * a.stride.y + i, block.x * a.stride.x + j, part) + begin;
        float* out = to + (i * columns + j) * a.channels + begin;
        // A call for the few bytes of an RGB pixel costs more than the loop.
        if (size < 8) {
          for (int64_t c = 0; c < size; ++c) out[c] = from[c];
        } else {
          std::memcpy(out, from, size_t(size) * sizeof(float));
        }
      }
    begin = end;
    ++part;
  }
}

template <int VECS>
void panel_block(const ConvArgs& a, const Panel& panel, const Block& block, const float* input) {
  const int64_t columns = reach(block.columns, a.kernel.x, a.stride.x, a.dilation.x);
  const int64_t row_stride = columns * a.channels;
  const float* weights = a.packed + panel.lane0 * a.kernel.y * a.kernel.x * a.channels;
  // Where scale and share of this image begin, seen from pixel numbers.
  const int64_t scale_shift = block.n * (a.out_height * a.out_width - a.scale_stride_n);
  for (int64_t i = 0; i < block.rows; ++i) {
    const int64_t first = stored_pixel(a, block.n, block.y + i, block.x);
    for (int64_t t = 0, count = tile_count(block.columns); t < count; ++t) {
      const int64_t begin = tile_begin(block.columns, t), end = tile_begin(block.columns, t + 1);
      int64_t pixel[kRowTile];
      bool seen = !a.share;
      for (int64_t p = begin; p < end; ++p) {
        pixel[p - begin] = first + p * a.store_step.x;
        seen = seen || a.share[first + p - scale_shift] != 0;
      }
      if (!seen) {
        for (int64_t p = begin; p < end; ++p) clear_pixel(a, first + p);
        continue;
      }
      float sums[kRowTile * VECS * W];
      const float* from = input + i * a.stride.y * row_stride + begin * a.stride.x * a.channels;
      DirectProduct<VECS> product{a, from, row_stride, weights, sums};
      with_rows(end - begin, product);
      StorePanel store_panel{a, panel, sums, pixel, int(end - begin), scale_shift};
      with_activation(a.activation, store_panel);
    }
  }
}

}  // namespace

int64_t direct_packed_size(int64_t filters, int64_t channels, bool gated, Size2 kernel) {
  return lanes_of(panels_of(filters, gated)) * kernel.y * kernel.x * channels;
}

void pack_direct(const PackArgs& a) {
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  const int64_t taps = a.kernel.y * a.kernel.x;
  parallel_tasks(int64_t(panels.size()), a.threads, [&](int64_t task) {
    const Panel& panel = panels[size_t(task)];
    const int64_t lanes = panel.vectors * W;
    float* packed = a.packed + panel.lane0 * taps * a.channels;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t filter = filter_in_lane(panel, a.filters, lane);
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t c = 0; c < a.channels; ++c)
          packed[(t * a.channels + c) * lanes + lane] =
              filter < 0 ? 0.0f
                         : a.weight[filter * a.stride_filter + c * a.stride_channel +
                                    t / a.kernel.x * a.stride_y + t % a.kernel.x * a.stride_x];
    }
  });
}

void conv_direct(const ConvArgs& a) {
  const int64_t height = a.region_end.y - a.region_begin.y;
  const int64_t width = a.region_end.x - a.region_begin.x;
  if (a.batch <= 0 || height <= 0 || width <= 0) return;
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  const Source source(a,
                      {reach(a.out_height, a.kernel.y, a.stride.y, a.dilation.y),
                       reach(a.out_width, a.kernel.x, a.stride.x, a.dilation.x)});
  // Blocks of four register tiles, as high as about 256 KiB of input allow.
  const int64_t wide = ceil_div(width, ceil_div(width, int64_t(4 * kRowTile)));
  const int64_t columns = reach(wide, a.kernel.x, a.stride.x, a.dilation.x);
  const auto size_of = [&](int64_t rows) {
    return reach(rows, a.kernel.y, a.stride.y, a.dilation.y) * columns * a.channels;
  };
  int64_t high = std::min<int64_t>(height, 16);
  while (high > 1 && size_of(high) > (64 << 10)) --high;
  const int64_t across = ceil_div(width, wide), down = ceil_div(height, high);
  const int64_t scratch_size = round_up(size_of(high), 16);
  Buffer<float> scratch(scratch_size * a.threads);
  parallel_tasks(a.batch * down * across, a.threads, [&](int64_t task) {
    Block block{task / (down * across),
                a.region_begin.y + task / across % down * high,
                a.region_begin.x + task % across * wide,
                0,
                0};
    block.rows = std::min(high, a.region_end.y - block.y);
    block.columns = std::min(wide, a.region_end.x - block.x);
    float* input = scratch.data() + thread_index() * scratch_size;
    load_block(a, source, block, input);
    for (const Panel& panel : panels) {
      if (panel.vectors == 2) {
        panel_block<2>(a, panel, block, input);
      } else {
        panel_block<1>(a, panel, block, input);
      }
    }
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
