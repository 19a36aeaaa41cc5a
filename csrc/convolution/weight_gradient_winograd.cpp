// Weight gradient of a convolution in the domain of its Winograd tiles.
//
// The adjoint of y = A^T [(G g G^T) . (B^T d B)] A in g: summed over tiles,
//
//   dg = G^T [sum of (B^T d B) . (A dy A^T)] G,
//
// 36 products (channels, tiles) x (tiles, filters), or 25, with as many multiplications as the
// convolution itself, see convolution/winograd.cpp; the parts of a kernel are as many channels
// more. After a doubling of the image 25 transformed inputs and 36 transformed gradients sum up to
// 9, see Tile4x3Upsampled.
//
// Tiles are transformed once for many products: those of a section of the tiles, (range of
// channels, 36, tiles, parts x channels) and (group of filters, 36, tiles, filters), stay in L3. A
// range and a group make a block of sums, (panel, 36, parts x channels, lanes): matrix products
// over the tiles.
//
// Three ways to share the work:
//   one section is all, many blocks: a task has a block, whose sums stay in L2 until they are
//     transformed;
//   many sections: a task has one product of a block, and its sums wait for the next section; those
//     of so many blocks at a time that L3 holds them too;
//   many sections, few blocks: a task has all blocks for a segment of the tiles, whose partial sums
//     are added last.
//
// Traffic of a block: its operands, 2 bytes for 16 multiply-adds. Tiles are summed in registers up
// to kChain of them, then added to the sums of the block, and of the segments: short chains.
#include <algorithm>
#include <vector>

#include "convolution/weight_gradient_tiles.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t W = Simd<float>::kWidth;
// Rows and lanes of a block: its 36 sums take 576 KiB of a 1 MiB L2. A vector of channels in many
// parts has more rows, and then fewer lanes, of one panel at least.
constexpr int64_t kRows = 64, kLanes = 64;
// Transformed tiles that are a section of their own, in an L3 of 32 MiB.
constexpr int64_t kWholeBytes = int64_t(24) << 20;
// Blocks whose sums wait at a time; and the least bytes of a section, which else is as large as the
// sums that wait for it.
constexpr int64_t kWaiting = 16, kSectionBytes = 384 << 10;
// Blocks too few to be tasks.
constexpr int64_t kFewBlocks = 4;

// Blocks of some ranges of channels and groups of filters.
struct Window {
  int64_t range0, range1, group0, group1;
  int64_t ranges() const { return range1 - range0; }
  int64_t groups() const { return group1 - group0; }
  int64_t blocks() const { return ranges() * groups(); }
  int64_t range(int64_t block) const { return range0 + block % ranges(); }
  int64_t group(int64_t block) const { return group0 + block / ranges(); }
};

template <class T>
class Gradient {
 public:
  explicit Gradient(const WeightGradientArgs& args)
      : args_(args),
        a_(args.conv),
        layout_(a_),
        tiles_(tiles_of<T>(a_)),
        panels_(panels_of(a_.filters, false)),
        source_(a_, layout_.extent(a_)),
        lattices_(lattices_of(source_, layout_)),
        parts_(layout_.parts()),
        channels_(std::max(W, round_up(kRows / parts_, W))),
        ranges_(a_.channels, W, ceil_div(a_.channels, channels_)),
        groups_(int64_t(panels_.size()), 1, ceil_div(lanes_of(panels_), lane_limit())),
        rows_(most_rows()),
        lanes_(most_lanes()),
        size_(kSums * rows_ * lanes_),
        input_step_(padded_channels(rows_)),
        grad_step_(padded_channels(lanes_)),
        zeros_(size_t(lanes_of(panels_)), 0.0f),
        segments_(segments()),
        result_(args, panels_, segments_.parts) {}
  // Members hold addresses of others.
  Gradient(const Gradient&) = delete;
  Gradient& operator=(const Gradient&) = delete;

  void run() {
    const int64_t tiles = int64_t(tiles_.size());
    const Window all = everything();
    if (segments_.parts > 1) {
      parallel_tasks(segments_.parts, a_.threads, [&](int64_t segment) {
        by_sections(all, segments_.begin(segment), segments_.begin(segment + 1), 1, segment);
      });
    } else if (tiles * bytes_of_tile(all) <= kWholeBytes && all.blocks() >= kTasks) {
      by_blocks();
    } else {
      by_windows();
    }
    result_.finish();
  }

 private:
  static constexpr int N = T::kWeights, kSums = N * N;
  static constexpr int kPlanes = T::kInputs * T::kInputs;
  static constexpr int kGradPlanes = T::kProducts * T::kProducts;

  void by_windows() {
    // As many ranges as groups, if there are: each transformed tile then serves most blocks.
    const int64_t groups = std::min(groups_.parts, std::max<int64_t>(4, kWaiting / ranges_.parts));
    const int64_t ranges = std::max<int64_t>(1, kWaiting / groups);
    const Cut across(groups_.parts, 1, ceil_div(groups_.parts, groups));
    const Cut down(ranges_.parts, 1, ceil_div(ranges_.parts, ranges));
    for (int64_t i = 0; i < down.parts; ++i)
      for (int64_t j = 0; j < across.parts; ++j)
        by_sections({down.begin(i), down.begin(i + 1), across.begin(j), across.begin(j + 1)},
                    0,
                    int64_t(tiles_.size()),
                    a_.threads,
                    0);
  }

  int64_t rows_of(int64_t range) const {
    return parts_ * (ranges_.begin(range + 1) - ranges_.begin(range));
  }
  // The first lane of a group.
  int64_t lane_of(int64_t group) const {
    return group < groups_.parts ? panels_[size_t(groups_.begin(group))].lane0 : lanes_of(panels_);
  }
  int64_t lane_limit() const {
    return std::min(kLanes, std::max(2 * W, kRows * kLanes / (parts_ * channels_) / W * W));
  }
  int64_t most_rows() const {
    int64_t most = 0;
    for (int64_t range = 0; range < ranges_.parts; ++range) most = std::max(most, rows_of(range));
    return most;
  }
  int64_t most_lanes() const {
    int64_t most = 0;
    for (int64_t group = 0; group < groups_.parts; ++group)
      most = std::max(most, lane_of(group + 1) - lane_of(group));
    return most;
  }
  Window everything() const { return {0, ranges_.parts, 0, groups_.parts}; }

  int64_t bytes_of_tile(const Window& window) const {
    const int64_t inputs = window.ranges() * kPlanes * input_step_;
    return (inputs + window.groups() * kGradPlanes * grad_step_) * int64_t(sizeof(float));
  }

  int64_t tiles_of_section(const Window& window) const {
    const int64_t sums = size_ * window.blocks() * int64_t(sizeof(float));
    return std::max<int64_t>(1, std::max(sums, kSectionBytes) / bytes_of_tile(window));
  }

  // Few blocks give few tasks: there a task has all blocks for a segment of the tiles.
  Cut segments() const {
    const Window all = everything();
    const int64_t tiles = int64_t(tiles_.size());
    const Cut cut(tiles, tiles_of_section(all), kTasks);
    return all.blocks() < kFewBlocks && cut.parts >= kTasks / 2 ? cut : Cut(tiles, tiles, 1);
  }

  // Transformed tiles of a section for the blocks of a window. Planes that were a multiple of 4096
  // bytes apart would meet in one set of the L1 cache.
  struct Section {
    Section(const Gradient& of, const Window& its, int64_t most)
        : window(its),
          input_plane(most * of.input_step_ + 16),
          grad_plane(most * of.grad_step_ + 16),
          inputs(its.ranges() * kPlanes * input_plane),
          grads(its.groups() * kGradPlanes * grad_plane) {}

    float* input(int64_t range) {
      return inputs.data() + (range - window.range0) * kPlanes * input_plane;
    }
    float* grad(int64_t group) {
      return grads.data() + (group - window.group0) * kGradPlanes * grad_plane;
    }

    Window window;
    int64_t input_plane, grad_plane, tiles = 0;
    Buffer<float> inputs, grads;
  };

  void transform(int64_t begin, int64_t end, int threads, Section& to) const {
    to.tiles = end - begin;
    parallel_tasks(to.tiles, threads, [&](int64_t i) {
      const Tile& tile = tiles_[size_t(begin + i)];
      transform_inputs(tile, to, i * input_step_);
      for (int64_t group = to.window.group0; group < to.window.group1; ++group) {
        const Panel& first = panels_[size_t(groups_.begin(group))];
        const Panel& last = panels_[size_t(groups_.begin(group + 1) - 1)];
        transform_gradient<T>(args_,
                              tile,
                              first.first,
                              last.first + last.count - first.first,
                              zeros_.data(),
                              to.grad(group) + i * grad_step_,
                              to.grad_plane);
      }
    });
  }

  // B^T d B of the channels of all ranges, part after part.
  void transform_inputs(const Tile& tile, Section& to, int64_t row) const {
    each_part(a_, layout_, tile, [&](int64_t part, int64_t y, int64_t x) {
      const float* from[Lattice<T>::kPixels];
      for (const Lattice<T>& lattice : lattices_) {
        const SourcePart& image = lattice.image();
        lattice.find(tile.n, y, x, from);
        for (int64_t range = to.window.range0; range < to.window.range1; ++range) {
          const int64_t c0 = ranges_.begin(range), c1 = ranges_.begin(range + 1);
          const int64_t end = std::min(image.end, c1), shift = part * (c1 - c0) - c0;
          float* its = to.input(range) + row + shift;
          for (int64_t c = std::max(image.begin, c0); c < end; c += W)
            transform_vector<T>(
                from, c - image.begin, end - c, its + c, input_step_ - shift - c, to.input_plane);
        }
      }
    });
  }

  // Where the sums of a panel begin among those of its block.
  int64_t place(const Panel& panel, int64_t group, int64_t range) const {
    return kSums * rows_of(range) * (panel.lane0 - lane_of(group));
  }

  // Adds sum `u` of a block to those that wait, or puts it there.
  void sum(Section& section, int64_t block, int u, float* sums, bool put) const {
    const int64_t range = section.window.range(block), group = section.window.group(block);
    const int64_t rows = rows_of(range);
    // Of last products only parts that have their last tap.
    const bool last_row = u / N + 1 == T::kProducts, last_column = u % N + 1 == T::kProducts;
    const auto runs = layout_.runs(last_row, last_column, rows / parts_);
    int64_t in_runs = 0;
    for (const DepthRun& run : runs) in_runs += run.end - run.begin;
    const Operands in{section.input(range),
                      input_step_,
                      section.input_plane,
                      section.grad(group),
                      grad_step_,
                      section.grad_plane,
                      section.tiles};
    for (int64_t p = groups_.begin(group); p < groups_.begin(group + 1); ++p) {
      const Panel& panel = panels_[size_t(p)];
      const int64_t lane = panel.lane0 - lane_of(group), size = rows * panel.vectors * W;
      float* to = sums + place(panel, group, range) + u * size;
      if (put && in_runs < rows) std::fill_n(to, size, 0.0f);
      if (panel.vectors == 2) {
        multiply<T, 2>(in, u, runs, lane, to, put);
      } else {
        multiply<T, 1>(in, u, runs, lane, to, put);
      }
    }
  }

  // Takes the sums of a block to the weight.
  void finish(const Window& window, int64_t block, int64_t segment, float* sums) {
    const int64_t range = window.range(block), group = window.group(block);
    const int64_t c0 = ranges_.begin(range), c1 = ranges_.begin(range + 1);
    const std::vector<int64_t> first_row = rows_of_taps(a_, layout_, c1 - c0);
    for (int64_t p = groups_.begin(group); p < groups_.begin(group + 1); ++p) {
      const Panel& panel = panels_[size_t(p)];
      float* taps = sums + place(panel, group, range);
      transform_sums<T>(taps, rows_of(range) * panel.vectors * W);
      result_.put(panel, taps, first_row, c0, c1, segment);
    }
  }

  void by_blocks() {
    const Window window = everything();
    Section section(*this, window, int64_t(tiles_.size()));
    transform(0, int64_t(tiles_.size()), a_.threads, section);
    Buffer<float> sums(size_ * a_.threads);
    parallel_tasks(window.blocks(), a_.threads, [&](int64_t block) {
      float* its = sums.data() + thread_index() * size_;
      for (int u = 0; u < kSums; ++u) sum(section, block, u, its, true);
      finish(window, block, 0, its);
    });
  }

  void by_sections(const Window& window, int64_t begin, int64_t end, int threads, int64_t segment) {
    const Cut sections(end - begin, 1, ceil_div(end - begin, tiles_of_section(window)));
    Section section(*this, window, ceil_div(end - begin, sections.parts));
    Buffer<float> sums(size_ * window.blocks());
    for (int64_t s = 0; s < sections.parts; ++s) {
      transform(begin + sections.begin(s), begin + sections.begin(s + 1), threads, section);
      parallel_tasks(window.blocks() * kSums, threads, [&](int64_t task) {
        const int64_t block = task / kSums;
        sum(section, block, int(task % kSums), sums.data() + block * size_, s == 0);
      });
    }
    parallel_tasks(window.blocks(), threads, [&](int64_t block) {
      finish(window, block, segment, sums.data() + block * size_);
    });
  }

  const WeightGradientArgs& args_;
  const ConvArgs& a_;
  const Layout<T> layout_;
  const std::vector<Tile> tiles_;
  const std::vector<Panel> panels_;
  const Source source_;
  const std::vector<Lattice<T>> lattices_;
  const int64_t parts_;
  const int64_t channels_;  // most of a range
  const Cut ranges_, groups_;
  const int64_t rows_, lanes_, size_;  // of the largest range, group and block
  const int64_t input_step_, grad_step_;
  const std::vector<float> zeros_;
  const Cut segments_;
  WeightGradient result_;
};

}  // namespace

void weight_gradient_winograd(const WeightGradientArgs& args) {
  with_small_tile(args.conv.algorithm, [&](auto tile) { Gradient<decltype(tile)>(args).run(); });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
