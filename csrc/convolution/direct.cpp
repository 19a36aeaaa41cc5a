// Convolution by direct sums, any kernel and stride: an implicit matrix product.
//
// A task takes a block of outputs: the load stage brings what it reads, with its halo, into scratch
// as a dense image (rows, columns, channels). There the taps of one kernel row lie together, and
// neighbouring outputs a stride apart, so the left operand of the product is read in place. Right
// operand: weights packed (panel, kernel rows, kernel columns, channels, lanes).
// With stride 1 a dilated convolution is as many dense ones on interleaved grids, block by block.
//
// Four filters or fewer would leave most lanes of a panel empty: for those the lanes are pixels, of
// few channels, see direct_planes.h, or terms of the sum, see Dots.
#include <algorithm>

#include "base/parallel.h"
#include "convolution/direct_blocks.h"
#include "convolution/direct_few_filters.h"
#include "convolution/direct_load.h"
#include "convolution/direct_planes.h"
#include "convolution/direct_product.h"
#include "convolution/pack_taps.h"
#include "convolution/reads.h"
#include "convolution/store.h"
#include "convolution/takes.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Weights that stay in L2 while all outputs of a block use them.
constexpr int64_t kResidentFloats = 48 << 10;
// Register tiles of a row of a block.
constexpr int64_t kRowTiles = 4;
static_assert(kRowTiles * kRowTile <= kMostRun);
// Input of a block that stays in L2 beside them. A layer with more weights than the second number
// reads them from memory for every block: its blocks may be of so much input, to be few.
constexpr int64_t kInputFloats = 64 << 10, kManyWeights = 256 << 10;
// Weights and input that stay in an L1 of 32 KiB together.
constexpr int64_t kL1Floats = 7 << 10;

// Runs the tiles of `count` outputs, the larger ones first.
template <int VECS>
void with_tiles(int64_t count, DirectProduct<VECS>& product) {
  const int64_t tiles = tile_count(count), rows = count / tiles, larger = count % tiles;
  product.tiles = larger;
  if (larger > 0) with_rows(rows + 1, product);
  product.tiles = tiles - larger;
  with_rows(rows, product);
}

template <int VECS>
void panel_block(const ConvArgs& a,
                 const Plan& plan,
                 const Panel& panel,
                 const float* lane_bias,
                 const Block& block,
                 const Input& input,
                 float* sums) {
  const int64_t kernel_row = a.kernel.x * a.channels * VECS * W;
  const float* weights = a.packed + panel.lane0 * a.kernel.y * a.kernel.x * a.channels;
  // Where mask_ratio and update_mask of this image begin, seen from pixel numbers.
  const int64_t mask_shift = block.n * (a.out_height * a.out_width - a.mask_stride_n);
  const int64_t resident = std::max<int64_t>(1, kResidentFloats / kernel_row);
  const bool whole = resident >= a.kernel.y;
  // Taps side by side form one run.
  const bool dense = plan.dilation.x == 1;
  const int64_t runs = dense ? 1 : a.kernel.x, depth = dense ? a.kernel.x * a.channels : a.channels;
  const int64_t row_step = plan.dilation.y * input.row_stride;
  // A whole row at once, unless some of its outputs may be left out.
  const bool all = !a.wanted && !a.update_mask;
  const int64_t most = all ? kRowTiles * kRowTile : kRowTile;
  const bool simple = all && panel.kind == PanelKind::kPlain && panel.count == VECS * W &&
                      !a.pre_activation && finishes_in_registers(a.activation);
  for (int64_t ky = 0; ky < a.kernel.y; ky += resident) {
    const int64_t end = std::min(a.kernel.y, ky + resident);
    const bool last = end == a.kernel.y;
    each_run(a, plan, block, most, [&](int64_t row, int64_t x, int64_t count, int64_t* pixel) {
      float* here = whole ? sums : sums + (row * block.columns + x) * VECS * W;
      DirectProduct<VECS> product{input.at(a, row, x) + ky * row_step,
                                  a.stride.x * input.pixel_stride,
                                  end - ky,
                                  row_step,
                                  runs,
                                  plan.dilation.x * input.pixel_stride,
                                  depth,
                                  weights + ky * kernel_row,
                                  ky == 0,
                                  here,
                                  Finish{},
                                  0};
      if (simple && last)
        product.finish = {a.y + pixel[0] * a.filters + panel.first,
                          plan.grid.x * a.store_step.x * a.filters,
                          lane_bias + panel.lane0,
                          a.activation,
                          a.y_streams};
      with_tiles(count, product);
      if (simple || !last) return;
      StorePanel store_panel{a, panel, lane_bias, here, pixel, int(count), mask_shift};
      with_activation(a.activation, store_panel);
    });
  }
}

template <int FILTERS>
void dots_block(const ConvArgs& a,
                const Plan& plan,
                const float* lane_bias,
                const Block& block,
                const Input& input,
                float* sums) {
  const int64_t mask_shift = block.n * (a.out_height * a.out_width - a.mask_stride_n);
  constexpr int kMost = std::min(Dots<FILTERS>::kPixels, kRowTile);
  static_assert(kMost * FILTERS <= StoreFew::kMost);
  float biases[StoreFew::kMost];
  for (int i = 0; i < StoreFew::kMost; ++i) biases[i] = lane_bias[i % FILTERS];
  each_run(a, plan, block, kMost, [&](int64_t row, int64_t x, int64_t count, int64_t* pixel) {
    Dots<FILTERS> dots{a, plan, input.at(a, row, x), input, a.packed, sums};
    run_dots<FILTERS, kMost>(count, dots);
    StoreFew store_few{a, biases, sums, pixel, int(count), mask_shift};
    with_activation(a.activation, store_few);
  });
}

void compute_block(const ConvArgs& a,
                   const Plan& plan,
                   const Panel& panel,
                   const float* lane_bias,
                   const Block& block,
                   const Input& input,
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

int64_t input_size(const ConvArgs& a, const Plan& plan, Size2 outputs) {
  const Size2 reach = plan.reach(a, outputs);
  return reach.y * reach.x * a.channels;
}

// Outputs of a block, at most: some whole register tiles wide, as high as about 256 KiB of input
// allow, or 1 MiB where all weights, which every block reads, are more than that; where the weights
// of a panel stay in L1, as high as it has room for beside them.
Size2 block_size(const ConvArgs& a, const Plan& plan) {
  const int64_t height = ceil_div(a.out_height, plan.grid.y);
  const int64_t width = ceil_div(a.out_width, plan.grid.x);
  const int64_t even = ceil_div(width, ceil_div(width, kRowTiles * kRowTile));
  Size2 most = {std::min<int64_t>(height, 16), std::min(width, round_up(even, kRowTile))};
  const int64_t terms = a.kernel.y * a.kernel.x * a.channels;
  const int64_t room = kL1Floats - terms * 2 * W;
  const int64_t large = terms * a.filters > kManyWeights ? kManyWeights : kInputFloats;
  const int64_t limit = room < kL1Floats / 4 ? large : room;
  while (most.y > 1 && input_size(a, plan, most) > limit) --most.y;
  return most;
}

}  // namespace

int64_t direct_packed_size(const PackArgs& a) {
  if (pixels_in_lanes(a.filters, a.gated, a.channels, a.stride))
    return a.kernel.y * a.kernel.x * a.channels * a.filters;
  if (few_filters(a.filters, a.gated))
    return a.kernel.y * round_up(a.kernel.x * a.channels, W) * a.filters;
  return lanes_of(panels_of(a.filters, a.gated)) * a.kernel.y * a.kernel.x * a.channels;
}

void pack_direct(const std::vector<PackArgs>& phases) {
  const PackArgs& a = phases[0];
  if (pixels_in_lanes(a.filters, a.gated, a.channels, a.stride)) {
    for (const PackArgs& phase : phases) pack_planes(phase);
    return;
  }
  if (few_filters(a.filters, a.gated)) {
    for (const PackArgs& phase : phases) pack_dots(phase);
    return;
  }
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  const int64_t whole = a.whole.y * a.whole.x;
  const bool past_caches = is_past_caches(a.packed, whole * a.channels * lanes_of(panels));
  parallel_tasks(int64_t(panels.size()), a.threads, [&](int64_t task) {
    const Panel& panel = panels[size_t(task)];
    const int64_t lanes = panel.vectors * W;
    each_tap_block(a, panel, [&](int64_t first, int64_t channels, const float* block) {
      for (const PackArgs& phase : phases) {
        const int64_t taps = phase.kernel.y * phase.kernel.x;
        float* packed = phase.packed + (panel.lane0 * taps * a.channels + first * lanes);
        for (int64_t t = 0; t < taps; ++t) {
          const Size2 tap = phase.tap(t / phase.kernel.x, t % phase.kernel.x);
          const float* from = block + (tap.y * a.whole.x + tap.x) * lanes;
          for (int64_t c = 0; c < channels; ++c)
            put(packed + c * lanes, from + c * whole * lanes, lanes, past_caches);
          packed += a.channels * lanes;
        }
      }
    });
    if (past_caches) stream_fence();
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
  if (pixels_in_lanes(a.filters, a.gated, a.channels, a.stride)) return conv_planes(a);
  const std::vector<Panel> panels = panels_of(a.filters, a.gated);
  const std::vector<float> biases = lane_biases(a, panels);
  const Plan plan(a);
  const Source source(a, extent_of(a));
  const Blocks blocks(a, plan, block_size(a, plan));
  const std::vector<Block> list = blocks.all();
  if (list.empty()) return;
  // Few blocks of many filters: let threads share out the panels as well.
  const int64_t all = int64_t(list.size());
  const int64_t groups =
      std::min<int64_t>(int64_t(panels.size()),
                        a.threads > 1 && all < 4 * a.threads ? ceil_div(4 * a.threads, all) : 1);
  const int64_t input_floats = round_up(input_size(a, plan, blocks.most), W);
  const int64_t sums_size =
      round_up(std::max<int64_t>(blocks.most.y * blocks.most.x, kRowTile), W) * 2 * W;
  Buffer<float> scratch((input_floats + sums_size) * a.threads);
  parallel_tasks(all * groups, a.threads, [&](int64_t task) {
    const Block& block = list[size_t(task / groups)];
    float* mine = scratch.data() + thread_index() * (input_floats + sums_size);
    const Input input = load_block(a, plan, source, block, mine);
    const int64_t group = task % groups, total = int64_t(panels.size());
    for (int64_t p = total * group / groups; p < total * (group + 1) / groups; ++p)
      compute_block(a, plan, panels[size_t(p)], biases.data(), block, input, mine + input_floats);
    if (a.y_streams) stream_fence();
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
