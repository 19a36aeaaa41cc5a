// Weight gradient of any convolution by direct sums: for every tap a matrix product
// (channels, pixels) x (pixels, filters).
//
// A task has a range of channels, a group of filter panels and a segment of the blocks of outputs.
// The load stage brings what a block reads, with its halo, into scratch, and its gradients as
// (panel, pixel, lanes); both stay in L2, the tile of a product in L1, while every tap adds to its
// sums (panel, tap, channel, lanes). Taps of few channels side by side are one long row of
// channels. Traffic: x once a group of filters, the gradient once a range of channels, the sums
// twice a block. With stride 1 a dilated convolution is as many dense ones on interleaved grids.
//
// Four filters or fewer would leave most lanes of a panel empty: there the taps and channels of a
// kernel row lie in the lanes, and the filters are the rows.
#include <algorithm>
#include <cstring>
#include <vector>

#include "convolution/load.h"
#include "convolution/weight_sums.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t W = Simd<float>::kWidth;
constexpr int64_t kFewFilters = 4;
// Pixels of a block: the operands of a register tile stay in 32 KiB.
constexpr int64_t kBlockPixels = 128;
// Channels and lanes of a task; where there is but one tap, what is loaded serves few sums.
constexpr int64_t kChannels = 64, kLanes = 64, kChannelsOfOneTap = 128, kLanesOfOneTap = 128;
// Below so many channels all taps of a kernel row are summed as one.
constexpr int64_t kSideBySide = 32;
static_assert(kSideBySide <= kChannels);

// First output of a block; its outputs lie `grid` apart.
struct Block {
  int64_t n, y, x, rows, columns;
};

bool is_one_tap(const ConvArgs& a) { return a.kernel.y * a.kernel.x == 1; }

// The part of every block that one task does.
struct Plan {
  Size2 grid, dilation;  // distance of a block's outputs; dilation left inside a block
  bool few;
  int64_t channels;   // most of a range
  bool side_by_side;  // the taps of a kernel row are summed as one row of taps x channels; then
                      // all channels are one range
  int64_t runs;       // sums of a kernel row: one a tap, or one of all taps
  int64_t pixel;      // floats from pixel to pixel in scratch
  Size2 most;         // outputs of a block

  explicit Plan(const ConvArgs& a)
      : grid{1, 1},
        dilation(a.dilation),
        few(a.filters <= kFewFilters),
        channels(few ? a.channels
                     : std::min(a.channels, is_one_tap(a) ? kChannelsOfOneTap : kChannels)) {
    if (a.stride.y == 1) std::swap(grid.y, dilation.y);
    if (a.stride.x == 1) std::swap(grid.x, dilation.x);
    side_by_side = dilation.x == 1 && (few || a.channels < kSideBySide);
    runs = side_by_side ? 1 : a.kernel.x;
    // An odd number of cache lines, or pixels would meet in few sets of the L1 cache.
    pixel = round_up(channels, 16);
    if (pixel % 32 == 0) pixel += 16;
    if (side_by_side) pixel = a.channels;
    const int64_t height = ceil_div(a.out_height, grid.y), width = ceil_div(a.out_width, grid.x);
    most.x = ceil_div(width, ceil_div(width, 64 / a.stride.x > 16 ? 64 / a.stride.x : 16));
    most.y = std::min(height, std::max<int64_t>(1, kBlockPixels / most.x));
  }

  // Rows and columns of input that a number of outputs reads.
  Size2 reach(const ConvArgs& a, int64_t rows, int64_t columns) const {
    return {(rows - 1) * a.stride.y + (a.kernel.y - 1) * dilation.y + 1,
            (columns - 1) * a.stride.x + (a.kernel.x - 1) * dilation.x + 1};
  }

  std::vector<Block> blocks(const ConvArgs& a) const {
    std::vector<Block> list;
    for (int64_t n = 0; n < a.batch; ++n)
      for (int64_t gy = 0; gy < grid.y; ++gy)
        for (int64_t y = gy; y < a.out_height; y += most.y * grid.y)
          for (int64_t gx = 0; gx < grid.x; ++gx)
            for (int64_t x = gx; x < a.out_width; x += most.x * grid.x)
              list.push_back({n,
                              y,
                              x,
                              std::min(most.y, ceil_div(a.out_height - y, grid.y)),
                              std::min(most.x, ceil_div(a.out_width - x, grid.x))});
    return list;
  }
};

// Channels c0 to c1 of all that a block reads.
void load_inputs(const ConvArgs& a,
                 const Plan& plan,
                 const Source& source,
                 const Block& block,
                 int64_t c0,
                 int64_t c1,
                 float* to) {
  const Size2 reach = plan.reach(a, block.rows, block.columns);
  for (const SourcePart& part : source) {
    const int64_t begin = std::max(c0, part.begin), size = std::min(c1, part.end) - begin;
    for (int64_t i = 0; size > 0 && i < reach.y; ++i)
      for (int64_t j = 0; j < reach.x; ++j) {
        const float* from = part.at(block.n,
                                    block.y * a.stride.y + i * plan.grid.y,
                                    block.x * a.stride.x + j * plan.grid.x) +
                            begin - part.begin;
        float* out = to + (i * reach.x + j) * plan.pixel + begin - c0;
        // A call for the few bytes of an RGB pixel costs more than the loop.
        if (size < 8) {
          for (int64_t c = 0; c < size; ++c) out[c] = from[c];
        } else {
          std::memcpy(out, from, size_t(size) * sizeof(float));
        }
      }
  }
}

// Calls body(number within the block, gradients) for its pixels.
template <class Body>
void each_pixel(const WeightGradientArgs& args,
                const Plan& plan,
                const Block& block,
                const Body& body) {
  const ConvArgs& a = args.conv;
  for (int64_t i = 0; i < block.rows; ++i)
    for (int64_t j = 0; j < block.columns; ++j) {
      const int64_t y = block.y + i * plan.grid.y, x = block.x + j * plan.grid.x;
      const int64_t pixel = (block.n * a.out_height + y) * a.out_width + x;
      body(i * block.columns + j, args.grad + pixel * a.filters);
    }
}

// Calls body(kernel row, run, stretches) with the operands of one tap, or of one kernel row.
template <class Body>
void each_run(const ConvArgs& a,
              const Plan& plan,
              const Block& block,
              const float* inputs,
              const float* grads,
              int64_t grad_step,
              const Body& body) {
  const int64_t row = plan.reach(a, block.rows, block.columns).x * plan.pixel;
  std::vector<Stretch> stretches(static_cast<size_t>(block.rows));
  for (int64_t ky = 0; ky < a.kernel.y; ++ky)
    for (int64_t run = 0; run < plan.runs; ++run) {
      for (int64_t i = 0; i < block.rows; ++i)
        stretches[size_t(i)] = {inputs + (i * a.stride.y + ky * plan.dilation.y) * row +
                                    run * plan.dilation.x * plan.pixel,
                                grads + i * block.columns * grad_step};
      body(ky, run, stretches.data());
    }
}

template <int VECS>
void panel_block(const ConvArgs& a,
                 const Plan& plan,
                 const Block& block,
                 const float* inputs,
                 const float* grads,
                 int64_t channels,
                 float* sums,
                 bool put) {
  const int64_t rows = plan.side_by_side ? a.kernel.x * channels : channels;
  each_run(a,
           plan,
           block,
           inputs,
           grads,
           VECS * W,
           [&](int64_t ky, int64_t run, const Stretch* stretches) {
             float* to = sums + (ky * a.kernel.x + run) * channels * VECS * W;
             const int64_t step = a.stride.x * plan.pixel;
             outer_sums<VECS>(
                 {nullptr, block.rows, block.columns, step, VECS * W, to, VECS * W, put},
                 stretches,
                 rows);
           });
}

void many_filters(const WeightGradientArgs& args, const Plan& plan) {
  const ConvArgs& a = args.conv;
  const std::vector<Block> blocks = plan.blocks(a);
  const std::vector<Panel> panels = panels_of(a.filters, false);
  const Source source(a,
                      {(a.out_height - 1) * a.stride.y + (a.kernel.y - 1) * a.dilation.y + 1,
                       (a.out_width - 1) * a.stride.x + (a.kernel.x - 1) * a.dilation.x + 1});
  const int64_t most_lanes = is_one_tap(a) ? kLanesOfOneTap : kLanes;
  const Cut groups(int64_t(panels.size()), 1, ceil_div(lanes_of(panels), most_lanes));
  const Cut ranges(a.channels, W, ceil_div(a.channels, plan.channels));
  const Cut segments(int64_t(blocks.size()), 1, ceil_div(kTasks, groups.parts * ranges.parts));
  const int64_t taps = a.kernel.y * a.kernel.x;
  WeightGradient result(args, panels, segments.parts);
  const Size2 reach = plan.reach(a, plan.most.y, plan.most.x);
  const int64_t inputs_size = round_up(reach.y * reach.x * plan.pixel, W);
  const int64_t group_panels = ceil_div(groups.size, groups.parts);
  const int64_t grads_size = plan.most.y * plan.most.x * group_panels * 2 * W;
  const int64_t sums_size = taps * round_up(plan.channels, W) * group_panels * 2 * W;
  const int64_t scratch_size = inputs_size + grads_size + sums_size;
  Buffer<float> scratch(scratch_size * a.threads);
  parallel_tasks(segments.parts * groups.parts * ranges.parts, a.threads, [&](int64_t task) {
    const int64_t segment = task / (groups.parts * ranges.parts);
    const int64_t group = task / ranges.parts % groups.parts, range = task % ranges.parts;
    const int64_t c0 = ranges.begin(range), c1 = ranges.begin(range + 1);
    const int64_t first_lane = panels[size_t(groups.begin(group))].lane0;
    float* inputs = scratch.data() + thread_index() * scratch_size;
    float* all_sums = inputs + inputs_size + grads_size;
    const int64_t begin = segments.begin(segment), end = segments.begin(segment + 1);
    for (int64_t b = begin; b < end; ++b) {
      const Block& block = blocks[size_t(b)];
      const int64_t pixels = block.rows * block.columns;
      load_inputs(a, plan, source, block, c0, c1, inputs);
      float* grads = inputs + inputs_size;
      for (int64_t p = groups.begin(group); p < groups.begin(group + 1); ++p) {
        const Panel& panel = panels[size_t(p)];
        const int64_t lanes = panel.vectors * W;
        each_pixel(args, plan, block, [&](int64_t i, const float* from) {
          for (int64_t l = 0; l < lanes; l += W) {
            const float* its = from + panel.first + l;
            const int64_t left = panel.count - l;
            store(grads + i * lanes + l, left < W ? load_first(its, left) : load(its));
          }
        });
        float* sums = all_sums + (panel.lane0 - first_lane) * taps * (c1 - c0);
        if (panel.vectors == 2) {
          panel_block<2>(a, plan, block, inputs, grads, c1 - c0, sums, b == begin);
        } else {
          panel_block<1>(a, plan, block, inputs, grads, c1 - c0, sums, b == begin);
        }
        grads += pixels * lanes;
      }
    }
    std::vector<int64_t> first_row(static_cast<size_t>(taps));
    for (int64_t tap = 0; tap < taps; ++tap) first_row[size_t(tap)] = tap * (c1 - c0);
    for (int64_t p = groups.begin(group); p < groups.begin(group + 1); ++p) {
      const Panel& panel = panels[size_t(p)];
      const float* sums = all_sums + (panel.lane0 - first_lane) * taps * (c1 - c0);
      result.put(panel, sums, first_row, c0, c1, segment);
    }
  });
  result.finish();
}

// Sums of few filters: kernel rows and runs of (filters, lanes), lanes filled up to whole vectors.
template <int VECS>
int64_t vectors_of_row(OuterSum<1> sum, const Stretch* stretches, int64_t filters, int64_t lane) {
  std::vector<Stretch> here(static_cast<size_t>(sum.count));
  for (int64_t s = 0; s < sum.count; ++s)
    here[size_t(s)] = {stretches[s].right, stretches[s].left + lane};
  OuterSum<VECS> row{here.data(),
                     sum.count,
                     sum.depth,
                     sum.left_step,
                     sum.right_step,
                     sum.sums + lane,
                     sum.sums_step,
                     sum.put};
  with_rows_from<int(kFewFilters)>(filters, row);
  return lane + VECS * W;
}

void few_filters(const WeightGradientArgs& args, const Plan& plan) {
  const ConvArgs& a = args.conv;
  const std::vector<Block> blocks = plan.blocks(a);
  const Source source(a,
                      {(a.out_height - 1) * a.stride.y + (a.kernel.y - 1) * a.dilation.y + 1,
                       (a.out_width - 1) * a.stride.x + (a.kernel.x - 1) * a.dilation.x + 1});
  const Cut segments(int64_t(blocks.size()), 1, kTasks);
  const int64_t used = plan.side_by_side ? a.kernel.x * a.channels : a.channels;
  const int64_t lanes = round_up(used, W);
  const int64_t partial_size = a.kernel.y * plan.runs * a.filters * lanes;
  Buffer<float> partial(segments.parts * partial_size);
  const Size2 reach = plan.reach(a, plan.most.y, plan.most.x);
  // The last vector may read beyond its run: its spare lanes hold anything and go nowhere.
  const int64_t inputs_size = round_up(reach.y * reach.x * plan.pixel, W) + W;
  const int64_t scratch_size = inputs_size + plan.most.y * plan.most.x * a.filters;
  Buffer<float> scratch(scratch_size * a.threads);
  parallel_tasks(segments.parts, a.threads, [&](int64_t segment) {
    float* inputs = scratch.data() + thread_index() * scratch_size;
    float* grads = inputs + inputs_size;
    const int64_t begin = segments.begin(segment), end = segments.begin(segment + 1);
    for (int64_t b = begin; b < end; ++b) {
      const Block& block = blocks[size_t(b)];
      load_inputs(a, plan, source, block, 0, a.channels, inputs);
      each_pixel(args, plan, block, [&](int64_t i, const float* from) {
        for (int64_t f = 0; f < a.filters; ++f) grads[i * a.filters + f] = from[f];
      });
      each_run(a,
               plan,
               block,
               inputs,
               grads,
               a.filters,
               [&](int64_t ky, int64_t run, const Stretch* stretches) {
                 float* to = partial.data() + segment * partial_size +
                             (ky * plan.runs + run) * a.filters * lanes;
                 const OuterSum<1> sum{nullptr,
                                       block.rows,
                                       block.columns,
                                       a.filters,
                                       a.stride.x * plan.pixel,
                                       to,
                                       lanes,
                                       b == begin};
                 constexpr int kMost = kManyRegisters ? 6 : 2;
                 int64_t lane = 0;
                 while (lanes - lane >= kMost * W)
                   lane = vectors_of_row<kMost>(sum, stretches, a.filters, lane);
                 while (lanes - lane >= 2 * W)
                   lane = vectors_of_row<2>(sum, stretches, a.filters, lane);
                 if (lane < lanes) vectors_of_row<1>(sum, stretches, a.filters, lane);
               });
    }
  });
  const int64_t taps = a.kernel.y * a.kernel.x;
  for (int64_t f = 0; f < a.filters; ++f)
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t c = 0; c < a.channels; ++c) {
        const int64_t ky = tap / a.kernel.x, kx = tap % a.kernel.x;
        const int64_t run = plan.side_by_side ? 0 : kx;
        const int64_t lane = plan.side_by_side ? kx * a.channels + c : c;
        const float* from =
            partial.data() + ((ky * plan.runs + run) * a.filters + f) * lanes + lane;
        float sum = from[0];
        for (int64_t s = 1; s < segments.parts; ++s) sum += from[s * partial_size];
        args.grad_weight[(f * a.channels + c) * taps + tap] = sum;
      }
}

}  // namespace

void weight_gradient_direct(const WeightGradientArgs& args) {
  const Plan plan(args.conv);
  if (plan.few) {
    few_filters(args, plan);
  } else {
    many_filters(args, plan);
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
