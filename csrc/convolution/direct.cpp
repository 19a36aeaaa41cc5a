// Convolution by direct sums, any kernel and stride: an implicit matrix product.
//
// A task takes a block of outputs: the load stage brings what it reads, with its halo, into scratch
// as a dense image (rows, columns, channels). There the taps of one kernel row lie together, and
// neighbouring outputs a stride apart, so the left operand of the product is read in place. Right
// operand: weights packed (panel, kernel rows, kernel columns, channels, lanes).
// With stride 1 a dilated convolution is as many dense ones on interleaved grids, block by block.
//
// Four filters or fewer would leave most lanes of a panel empty: for those the lanes are terms of
// the sum instead, see Dots.
#include <algorithm>
#include <cstring>

#include "base/gemm.h"
#include "base/parallel.h"
#include "base/transpose.h"
#include "convolution/direct_blocks.h"
#include "convolution/direct_few_filters.h"
#include "convolution/load.h"
#include "convolution/reads.h"
#include "convolution/store.h"
#include "convolution/takes.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Terms that are summed in one chain, see convolution/winograd_products.h.
constexpr int64_t kSumDepth = 128;
// Weights that stay in L2 while all outputs of a block use them.
constexpr int64_t kResidentFloats = 48 << 10;

// Part of the sums of ROWS neighbouring outputs: kernel rows `begin` to `end`.
template <int VECS>
struct DirectProduct {
  const ConvArgs& args;
  const Plan& plan;
  const float* input;   // first tap of the first output
  int64_t row_stride;   // of the scratch image
  const float* weight;  // of kernel row `begin`
  int64_t begin, end;
  float* sums;

  template <int ROWS>
  void run() {
    const int64_t c = args.channels, step = args.stride.x * c;
    // Taps side by side form one run.
    const bool dense = plan.dilation.x == 1;
    const int64_t runs = dense ? 1 : args.kernel.x, depth = dense ? args.kernel.x * c : c;
    const float* w = weight;
    int64_t summed = 0;
    bool first = begin == 0;
    Accumulator<float, ROWS, VECS> sum;
    sum.clear();
    for (int64_t ky = begin; ky < end; ++ky)
      for (int64_t run = 0; run < runs; ++run) {
        const float* from = input + ky * plan.dilation.y * row_stride + run * plan.dilation.x * c;
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

void load_block(
    const ConvArgs& a, const Plan& plan, const Source& source, const Block& block, float* to) {
  const Size2 reach = plan.reach(a, {block.rows, block.columns});
  for (const SourcePart& part : source) {
    const int64_t size = part.end - part.begin;
    for (int64_t i = 0; i < reach.y; ++i)
      for (int64_t j = 0; j < reach.x; ++j) {
        const float* from = part.at(block.n,
                                    block.y * a.stride.y + i * plan.grid.y,
                                    block.x * a.stride.x + j * plan.grid.x);
        const int64_t apart = part.channel_stride(from);
        float* out = to + (i * reach.x + j) * a.channels + part.begin;
        if (apart != 1) {
          for (int64_t c = 0; c < size; ++c) out[c] = from[c * apart];
        } else if (size < 8) {
          // A call for the few bytes of an RGB pixel costs more than the loop.
          for (int64_t c = 0; c < size; ++c) out[c] = from[c];
        } else {
          std::memcpy(out, from, size_t(size) * sizeof(float));
        }
      }
  }
}

// Numbers of `count` stored pixels of a block's row, -1: not wanted. Returns whether any that is
// wanted sees something valid.
bool pixels_of(const ConvArgs& a,
               const Plan& plan,
               const Block& block,
               int64_t row,
               int64_t column,
               int64_t count,
               int64_t* pixel) {
  const int64_t y = block.y + row * plan.grid.y, x = block.x + column * plan.grid.x;
  const int64_t first = stored_pixel(a, block.n, y, x);
  const float* update_mask =
      a.update_mask ? a.update_mask + block.n * a.mask_stride_n + y * a.out_width + x : nullptr;
  bool seen = false;
  for (int64_t p = 0; p < count; ++p) {
    pixel[p] = -1;
    if (!is_wanted(a, block.n, y, x + p * plan.grid.x)) continue;
    pixel[p] = first + p * plan.grid.x * a.store_step.x;
    seen = seen || !update_mask || update_mask[p * plan.grid.x] != 0;
  }
  return seen;
}

// Calls body(row, first column, count, pixel numbers) for runs of up to `most` outputs of a block;
// those that see nothing valid become zero.
template <class Body>
void each_run(
    const ConvArgs& a, const Plan& plan, const Block& block, int64_t most, const Body& body) {
  const int64_t runs = ceil_div(block.columns, most);
  for (int64_t row = 0; row < block.rows; ++row)
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t begin = block.columns * run / runs, end = block.columns * (run + 1) / runs;
      int64_t pixel[kRowTile];
      if (pixels_of(a, plan, block, row, begin, end - begin, pixel)) {
        body(row, begin, end - begin, pixel);
      } else {
        for (int64_t p = 0; p < end - begin; ++p)
          if (pixel[p] >= 0) clear_pixel(a, block.n, pixel[p]);
      }
    }
}

template <int VECS>
void panel_block(const ConvArgs& a,
                 const Plan& plan,
                 const Panel& panel,
                 const float* lane_bias,
                 const Block& block,
                 const float* input,
                 float* sums) {
  const int64_t row_stride = plan.reach(a, {block.rows, block.columns}).x * a.channels;
  const int64_t kernel_row = a.kernel.x * a.channels * VECS * W;
  const float* weights = a.packed + panel.lane0 * a.kernel.y * a.kernel.x * a.channels;
  // Where mask_ratio and update_mask of this image begin, seen from pixel numbers.
  const int64_t mask_shift = block.n * (a.out_height * a.out_width - a.mask_stride_n);
  const int64_t resident = std::max<int64_t>(1, kResidentFloats / kernel_row);
  const bool whole = resident >= a.kernel.y;
  for (int64_t ky = 0; ky < a.kernel.y; ky += resident) {
    const int64_t end = std::min(a.kernel.y, ky + resident);
    each_run(a, plan, block, kRowTile, [&](int64_t row, int64_t x, int64_t count, int64_t* pixel) {
      float* here = whole ? sums : sums + (row * block.columns + x) * VECS * W;
      const float* from = input + row * a.stride.y * row_stride + x * a.stride.x * a.channels;
      DirectProduct<VECS> product{
          a, plan, from, row_stride, weights + ky * kernel_row, ky, end, here};
      with_rows(count, product);
      if (end < a.kernel.y) return;
      StorePanel store_panel{a, panel, lane_bias, here, pixel, int(count), mask_shift, block.n};
      with_activation(a.activation, store_panel);
    });
  }
}

template <int FILTERS>
void dots_block(const ConvArgs& a,
                const Plan& plan,
                const float* lane_bias,
                const Block& block,
                const float* input,
                float* sums) {
  const int64_t row_stride = plan.reach(a, {block.rows, block.columns}).x * a.channels;
  const int64_t mask_shift = block.n * (a.out_height * a.out_width - a.mask_stride_n);
  constexpr int kMost = std::min(Dots<FILTERS>::kPixels, kRowTile);
  static_assert(kMost * FILTERS <= StoreFew::kMost);
  float biases[StoreFew::kMost];
  for (int i = 0; i < StoreFew::kMost; ++i) biases[i] = lane_bias[i % FILTERS];
  each_run(a, plan, block, kMost, [&](int64_t row, int64_t x, int64_t count, int64_t* pixel) {
    const float* from = input + row * a.stride.y * row_stride + x * a.stride.x * a.channels;
    Dots<FILTERS> dots{a, plan, from, row_stride, a.packed, sums};
    run_dots<FILTERS, kMost>(count, dots);
    StoreFew store_few{a, biases, sums, pixel, int(count), mask_shift, block.n};
    with_activation(a.activation, store_few);
  });
}

void compute_block(const ConvArgs& a,
                   const Plan& plan,
                   const Panel& panel,
                   const float* lane_bias,
                   const Block& block,
                   const float* input,
                   float* sums) {
  if (few_filters(a.filters, a.gated)) {
    switch (a.filters) {
      case 1:
        return dots_block<1>(a, plan, lane_bias, block, input, sums);
      case 2:
        return dots_block<2>(a, plan, lane_bias, block, input, sums);
      case 3:
        return dots_block<3>(a, plan, lane_bias, block, input, sums);
      default:
        return dots_block<4>(a, plan, lane_bias, block, input, sums);
    }
  }
  if (panel.vectors == 2) {
    panel_block<2>(a, plan, panel, lane_bias, block, input, sums);
  } else {
    panel_block<1>(a, plan, panel, lane_bias, block, input, sums);
  }
}

// Sizes and number of the blocks of one image; the interleaved grids one after the other.
struct Blocks {
  const ConvArgs& args;
  const Plan& plan;
  Size2 most;   // outputs of a block
  Size2 count;  // blocks along each axis, all grids together

  Blocks(const ConvArgs& a, const Plan& p) : args(a), plan(p) {
    const int64_t height = ceil_div(a.out_height, plan.grid.y);
    const int64_t width = ceil_div(a.out_width, plan.grid.x);
    // Four register tiles wide, as high as about 256 KiB of input allow.
    most.x = ceil_div(width, ceil_div(width, int64_t(4 * kRowTile)));
    most.y = std::min<int64_t>(height, 16);
    while (most.y > 1 && input_size() > (64 << 10)) --most.y;
    count = {ceil_div(height, most.y) * plan.grid.y, ceil_div(width, most.x) * plan.grid.x};
  }

  int64_t input_size() const {
    const Size2 reach = plan.reach(args, most);
    return reach.y * reach.x * args.channels;
  }

  // May be empty, where a grid is shorter than the first.
  Block at(int64_t number) const {
    const int64_t by = number / count.x % count.y, bx = number % count.x;
    Block block;
    block.n = number / (count.x * count.y);
    block.y = by % plan.grid.y + by / plan.grid.y * most.y * plan.grid.y;
    block.x = bx % plan.grid.x + bx / plan.grid.x * most.x * plan.grid.x;
    block.rows = std::min(most.y, ceil_div(args.out_height - block.y, plan.grid.y));
    block.columns = std::min(most.x, ceil_div(args.out_width - block.x, plan.grid.x));
    return block;
  }

  // The blocks of all images, each no larger than what is wanted of it; none is empty.
  std::vector<Block> all() const {
    std::vector<Block> blocks;
    for (int64_t number = 0; number < args.batch * count.y * count.x; ++number) {
      const Block block = args.wanted ? wanted_of(at(number)) : at(number);
      if (block.rows > 0 && block.columns > 0) blocks.push_back(block);
    }
    return blocks;
  }

 private:
  Block wanted_of(const Block& block) const {
    int64_t top = block.rows, bottom = 0, left = block.columns, right = 0;
    for (int64_t row = 0; row < block.rows; ++row)
      for (int64_t column = 0; column < block.columns; ++column) {
        const int64_t y = block.y + row * plan.grid.y, x = block.x + column * plan.grid.x;
        if (!is_wanted(args, block.n, y, x)) continue;
        top = std::min(top, row);
        bottom = row + 1;
        left = std::min(left, column);
        right = std::max(right, column + 1);
      }
    return {block.n,
            block.y + top * plan.grid.y,
            block.x + left * plan.grid.x,
            bottom - top,
            right - left};
  }
};

}  // namespace

int64_t direct_packed_size(const PackArgs& a) {
  if (few_filters(a.filters, a.gated))
    return a.kernel.y * round_up(a.kernel.x * a.channels, W) * a.filters;
  return lanes_of(panels_of(a.filters, a.gated)) * a.kernel.y * a.kernel.x * a.channels;
}

void pack_direct(const PackArgs& a) {
  if (few_filters(a.filters, a.gated)) return pack_dots(a);
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

bool direct_takes(const ConvArgs& a) { return is_direct(a.filters, a.gated, a.stride, a.dilation); }

Share direct_reads(const ConvArgs& a) {
  Reads reads(a,
              extent_of(a),
              reads_of_output(a.kernel.y, a.dilation.y),
              reads_of_output(a.kernel.x, a.dilation.x));
  Share share{0, a.batch * a.out_height * a.out_width};
  for (int64_t n = 0; n < a.batch; ++n) {
    for (int64_t y = 0; y < a.out_height; ++y)
      for (int64_t x = 0; x < a.out_width; ++x) {
        if (!is_wanted(a, n, y, x)) continue;
        ++share.wanted;
        reads.add(y * a.stride.y, x * a.stride.x);
      }
    reads.mark(n);
  }
  return share;
}

void conv_direct(const ConvArgs& a) {
  if (a.batch <= 0 || a.out_height <= 0 || a.out_width <= 0) return;
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  const std::vector<float> biases = lane_biases(a, panels);
  const Plan plan(a);
  const Source source(a, extent_of(a));
  const Blocks blocks(a, plan);
  const std::vector<Block> list = blocks.all();
  if (list.empty()) return;
  // Few blocks of many filters: let threads share out the panels as well.
  const int64_t all = int64_t(list.size());
  const int64_t groups =
      std::min<int64_t>(int64_t(panels.size()),
                        a.threads > 1 && all < 4 * a.threads ? ceil_div(4 * a.threads, all) : 1);
  const int64_t input_size = round_up(blocks.input_size(), W);
  const int64_t sums_size =
      round_up(std::max<int64_t>(blocks.most.y * blocks.most.x, kRowTile), W) * 2 * W;
  Buffer<float> scratch((input_size + sums_size) * a.threads);
  parallel_tasks(all * groups, a.threads, [&](int64_t task) {
    const Block& block = list[size_t(task / groups)];
    float* input = scratch.data() + thread_index() * (input_size + sums_size);
    load_block(a, plan, source, block, input);
    const int64_t group = task % groups, total = int64_t(panels.size());
    for (int64_t p = total * group / groups; p < total * (group + 1) / groups; ++p)
      compute_block(a, plan, panels[size_t(p)], biases.data(), block, input, input + input_size);
    if (a.y_streams) stream_fence();
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
