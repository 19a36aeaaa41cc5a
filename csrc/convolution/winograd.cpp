// Convolution by Winograd tiles of 6 x 6 inputs, or 5 x 5, or 8 x 8.
//
// A kernel is cut along each axis into parts of 2 to 5 taps: with stride 1 neighbouring taps,
// with stride s taps s apart, so that a part reads every s-th pixel, as a convolution of stride 1
// does. The sum over parts and channels is formed before the transform back, as if each part had
// channels of its own: multiplications an output, of direct and of tiled sums
//
//   3x3               9    2.25 (3 taps)      4x4 stride 2     16    5.76 (2 taps)
//   5x5, any stride  25    9    (3 taps)      3x3 stride 2      9    5.76 (2 taps)
//   7x7, any stride  49   16    (4 taps)      2x2               4    1.44 (2 taps)
//
// less what the last tap of a part would take that has one tap fewer than others, see Axis: 0.84 of
// it for 3x3 with stride 2, 5x5 and 7x7.
//
// Tiles of 5 x 5 inputs take 6.25 and 1.56 in place of 5.76 and 1.44, but their 4 outputs fill
// images of 16 or 32 pixels, where those of 5 stand over.
//
// Those of 8 x 8 inputs, the large ones, take 4 for 5x5 (5 taps) and 10.24 for 7x7 (4 taps), and
// err 2 to 3 times as much.
//
// A task takes a block of tiles: the transformed inputs of the block, (36, 25 or 64, tiles, parts x
// channels), stay in L2 while panel after panel of filters is multiplied, transformed back and
// stored. Left operand of the products: tiles, read in place; right operand: weights, transformed
// ahead and packed (panel, 36, 25 or 64, parts x channels, lanes), read once a block. Of deep
// layers, whose weights no cache holds, that would be most of the time: there one product after
// the other takes more tiles, see Convolution::staged; the bits are the same. After a doubling of
// the image the 36 products share 25 inputs and 9 weights, see Tile4x3Upsampled.
#include <algorithm>
#include <optional>
#include <vector>

#include "base/parallel.h"
#include "convolution/reads.h"
#include "convolution/takes.h"
#include "convolution/winograd_products.h"
#include "convolution/winograd_store.h"
#include "convolution/winograd_thin.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Calls body(y, x) for the wanted outputs of a tile; whether body ever said yes.
template <class T, class Body>
bool any_output(const ConvArgs& a, Size2 grid, const Tile& tile, const Body& body) {
  for (int64_t i = 0, y = tile.y; i < T::kOutputs && y < a.out_height; ++i, y += grid.y)
    for (int64_t j = 0, x = tile.x; j < T::kOutputs && x < a.out_width; ++j, x += grid.x)
      if (y >= 0 && x >= 0 && is_wanted(a, tile.n, y, x) && body(y, x)) return true;
  return false;
}

// Tiles with wanted outputs, in the order in which neighbours share inputs. They lie where those of
// the whole output do, so that each output has the same bits whatever else is wanted. Tiles that
// see nothing valid are not computed: their outputs become zero here.
template <class T>
std::vector<Tile> tiles_of(const ConvArgs& a, Size2 grid) {
  const auto rows = tile_starts(-a.lead.y, a.out_height, grid.y, T::kOutputs);
  const auto columns = tile_starts(-a.lead.x, a.out_width, grid.x, T::kOutputs);
  std::vector<Tile> tiles;
  tiles.reserve(static_cast<size_t>(a.batch) * rows.size() * columns.size());
  for (int64_t n = 0; n < a.batch; ++n) {
    const float* update_mask = a.update_mask ? a.update_mask + n * a.mask_stride_n : nullptr;
    for (int64_t row : rows)
      for (int64_t column : columns) {
        const Tile tile{n, row, column};
        const auto seen = [&](int64_t y, int64_t x) {
          return !update_mask || update_mask[y * a.out_width + x] != 0;
        };
        if (any_output<T>(a, grid, tile, seen)) {
          tiles.push_back(tile);
          continue;
        }
        any_output<T>(a, grid, tile, [&](int64_t y, int64_t x) {
          clear_pixel(a, n, stored_pixel(a, n, y, x));
          return false;
        });
      }
  }
  return tiles;
}

// The inputs of a tile, part after part.
template <class T>
void transform_parts(const ConvArgs& a,
                     const Layout<T>& layout,
                     const std::vector<Lattice<T>>& lattices,
                     const Tile& tile,
                     float* to,
                     int64_t stride,
                     int64_t plane) {
  const float* from[Lattice<T>::kPixels];
  each_part(a, layout, tile, [&](int64_t part, int64_t y, int64_t x) {
    for (const Lattice<T>& lattice : lattices) {
      lattice.find(tile.n, y, x, from);
      const SourcePart& image = lattice.image();
      const int64_t size = image.end - image.begin, first = part * a.channels + image.begin;
      for (int64_t c = 0; c < size; c += W)
        transform_vector<T>(from, c, size - c, to + first + c, stride - first - c, plane);
    }
  });
}

// Tiles of a task: its transformed inputs, `planes` of them, fill about half of a 1 MiB L2; whole
// register tiles.
int64_t block_tiles(int64_t tiles, int64_t planes, int64_t channel_stride, int threads) {
  const int64_t fitting = (640 << 10) / (planes * channel_stride * int64_t(sizeof(float)));
  // Of few channels little is left to reuse: their products should stay in L1.
  const int64_t most = channel_stride <= 4 * W ? 2 : 6;
  const int64_t registers = std::min<int64_t>(std::max<int64_t>(fitting / kRowTile, 1), most);
  const int64_t share = ceil_div(ceil_div(tiles, threads), kRowTile);
  return std::max<int64_t>(std::min(registers, share), 1) * kRowTile;
}

// Floats that the staged order holds of a block of tiles.
constexpr int64_t kStagedFloats = int64_t(2) << 20;

template <class T>
class Convolution {
 public:
  explicit Convolution(const ConvArgs& a)
      : layout_(a),
        a_(anchored<T>(a, layout_.grid)),
        tiles_(tiles_of<T>(a_, layout_.grid)),
        panels_(panels_of(a.filters, a.gated)),
        biases_(lane_biases(a, panels_)),
        source_(a_, layout_.extent(a_)),
        depth_(layout_.parts() * a.channels),
        stride_(padded_channels(depth_)),
        lattices_(lattices_of(source_, layout_)) {
    if (a.channels < W && layout_.parts() > 1) thin_.emplace(a_, layout_, lattices_);
    for (int last = 0; last < 4; ++last) runs_[last] = layout_.runs(last & 2, last & 1, a.channels);
  }

  // Members hold addresses of others.
  Convolution(const Convolution&) = delete;
  Convolution& operator=(const Convolution&) = delete;

  void run() const {
    if (tiles_.empty()) return;
    if (staging_pays(int64_t(tiles_.size()), depth_, lanes_of(panels_), T::kProducts == 8)) {
      staged();
    } else {
      fused();
    }
  }

 private:
  static constexpr int64_t kPlanes = T::kInputs * T::kInputs;
  static constexpr int64_t kPoints = T::kProducts * T::kProducts;

  // A block's inputs stay in L2 while everything is done with them.
  void fused() const {
    const int64_t count = int64_t(tiles_.size());
    const int64_t block = block_tiles(count, kPlanes, stride_, a_.threads);
    const int64_t plane = block * stride_, inputs_size = kPlanes * plane;
    const int64_t products_size = block * kPoints * 2 * W;
    const int64_t scratch_size = inputs_size + products_size;
    Buffer<float> scratch(scratch_size * a_.threads);
    Buffer<const float*> reads(reads_size() * a_.threads);
    // Few blocks of many filters: let threads share out the panels as well. Each transforms the
    // inputs anew, which costs little beside the products of a panel, but for the thinnest inputs.
    const int64_t blocks = ceil_div(count, block), total = int64_t(panels_.size());
    const int64_t groups = std::min<int64_t>(
        total,
        a_.threads > 1 && !thin_ && blocks < 4 * a_.threads ? ceil_div(4 * a_.threads, blocks) : 1);
    parallel_tasks(blocks * groups, a_.threads, [&](int64_t task) {
      const int64_t begin = task % blocks * block, here = std::min(block, count - begin);
      const int64_t group = task / blocks;
      float* inputs = scratch.data() + thread_index() * scratch_size;
      float* products = inputs + inputs_size;
      const float** its_reads = reads.data() + thread_index() * reads_size();
      const Tile* tile = tiles_.data() + begin;
      for (int64_t t = 0; t < here; ++t) transform(tile[t], inputs + t * stride_, plane, its_reads);
      for (int64_t p = total * group / groups; p < total * (group + 1) / groups; ++p) {
        for (int point = 0; point < kPoints; ++point)
          multiply(panels_[size_t(p)], point, inputs, here, plane, products);
        for (int64_t t = 0; t < here; ++t) finish(panels_[size_t(p)], tile[t], products, t);
      }
      if (a_.y_streams) stream_fence();
    });
  }

  // One of the products of many tiles and all panels after the other: the weights of deep
  // layers, which no cache holds, are read once for all those tiles.
  void staged() const {
    const int64_t lanes = lanes_of(panels_), total = int64_t(panels_.size());
    const int64_t held = kPlanes * stride_ + kPoints * lanes;
    const int64_t most = std::max<int64_t>(kStagedFloats / held, kRowTile);
    const int64_t blocks = ceil_div(int64_t(tiles_.size()), most);
    const int64_t block = ceil_div(int64_t(tiles_.size()), blocks), plane = block * stride_;
    Buffer<float> inputs(kPlanes * plane), products(kPoints * lanes * block);
    Buffer<const float*> reads(reads_size() * a_.threads);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = b * block, here = std::min(block, int64_t(tiles_.size()) - begin);
      const Tile* tile = tiles_.data() + begin;
      parallel_tasks(here, a_.threads, [&](int64_t t) {
        const float** its_reads = reads.data() + thread_index() * reads_size();
        transform(tile[t], inputs.data() + t * stride_, plane, its_reads);
      });
      const auto products_of = [&](const Panel& panel) {
        return products.data() + panel.lane0 * kPoints * block;
      };
      parallel_tasks(kPoints, a_.threads, [&](int64_t point) {
        for (const Panel& panel : panels_)
          multiply(panel, int(point), inputs.data(), here, plane, products_of(panel));
      });
      parallel_tasks(here, a_.threads, [&](int64_t t) {
        for (int64_t p = 0; p < total; ++p) {
          const Panel& panel = panels_[size_t(p)];
          finish(panel, tile[t], products_of(panel), t);
        }
        if (a_.y_streams) stream_fence();
      });
    }
  }

  int64_t reads_size() const { return thin_ ? thin_->reads() : 0; }

  void transform(const Tile& tile, float* to, int64_t plane, const float** reads) const {
    if (thin_) {
      thin_->transform(tile, reads, to, stride_, plane);
    } else {
      transform_parts(a_, layout_, lattices_, tile, to, stride_, plane);
    }
  }

  void multiply(const Panel& panel,
                int point,
                const float* inputs,
                int64_t tiles,
                int64_t plane,
                float* products) const {
    const float* weights = a_.packed + panel.lane0 * T::kWeights * T::kWeights * depth_;
    const int i = point / T::kProducts, j = point % T::kProducts;
    const auto& runs = runs_[2 * (i + 1 == T::kProducts) + (j + 1 == T::kProducts)];
    if (panel.vectors == 2) {
      multiply_point<T, 2>(i, j, inputs, tiles, plane, stride_, weights, depth_, runs, products);
    } else {
      multiply_point<T, 1>(i, j, inputs, tiles, plane, stride_, weights, depth_, runs, products);
    }
  }

  // Tile `number` of those whose products these are.
  void finish(const Panel& panel, const Tile& tile, const float* products, int64_t number) const {
    const float* its = products + number * kPoints * panel.vectors * W;
    if (panel.vectors == 2) {
      store_tile<T, 2>(a_, layout_.grid, panel, biases_.data(), tile, its);
    } else {
      store_tile<T, 1>(a_, layout_.grid, panel, biases_.data(), tile, its);
    }
  }

  const Layout<T> layout_;
  const ConvArgs a_;
  const std::vector<Tile> tiles_;
  const std::vector<Panel> panels_;
  const std::vector<float> biases_;
  const Source source_;
  const int64_t depth_, stride_;
  const std::vector<Lattice<T>> lattices_;
  std::optional<ThinInputs<T>> thin_;  // where channels are few
  // Of products outside of and in the last column and the last row, see Layout::runs.
  std::vector<DepthRun> runs_[4];
};

}  // namespace

bool winograd_takes(const ConvArgs& a) {
  if (a.algorithm != Algorithm::kWinograd4x3Upsampled) return is_tiled(a.stride, a.dilation);
  return std::all_of(a.parts.begin(), a.parts.end(), [&](const Part& part) {
    return is_upsampled_3x3(a.kernel, a.stride, a.dilation, a.padding, part.upsample);
  });
}

Share winograd_reads(const ConvArgs& args) {
  return with_tile(args.algorithm, [&](auto tile) {
    using T = decltype(tile);
    const Layout<T> layout(args);
    const ConvArgs a = anchored<T>(args, layout.grid);
    const auto rows = tile_starts(-a.lead.y, a.out_height, layout.grid.y, T::kOutputs);
    const auto columns = tile_starts(-a.lead.x, a.out_width, layout.grid.x, T::kOutputs);
    Reads reads(a,
                layout.extent(a),
                reads_of_tile<T>(layout.rows, a.dilation.y),
                reads_of_tile<T>(layout.columns, a.dilation.x));
    Share share;
    for (int64_t n = 0; n < a.batch; ++n) {
      for (const int64_t row : rows)
        for (const int64_t column : columns) {
          ++share.all;
          const auto yes = [](int64_t, int64_t) { return true; };
          if (!any_output<T>(a, layout.grid, {n, row, column}, yes)) continue;
          ++share.wanted;
          reads.add((row + a.lead.y) * a.stride.y, (column + a.lead.x) * a.stride.x);
        }
      reads.mark(n);
    }
    return share;
  });
}

void conv_winograd(const ConvArgs& a) {
  with_tile(a.algorithm, [&](auto tile) { Convolution<decltype(tile)>(a).run(); });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
