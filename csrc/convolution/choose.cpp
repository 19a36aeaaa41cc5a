// Which algorithm sums a convolution.
//
// Measured on one Zen 4 core (AVX-512, peak 118 GFLOP/s), one thread, ms, everything that follows
// the sums included; "tiled" is the Winograd algorithm that costs least:
//
//   layer                                tiled   direct   oneDNN (public formula)
//   3x3, 256 -> 256, 64^2                 13.7     40       43
//   3x3 stride 2, 48 -> 192, 256^2        17       26       33
//   3x3 stride 2, 128 -> 256, 64^2         4.3      5.7      6.0
//   4x4 stride 2, 3 -> 64, 256^2           1.1      2.1      1.6
//   4x4 stride 2, 64 -> 128, 256^2        19.6     42       51
//   4x4 stride 2, 256 -> 512, 32^2         5.0     10.2     12
//   4x4 stride 2, 512 -> 512, 8^2          3.4      2.0      6.4
//   5x5, 128 -> 128, 64^2                 13.9     31       32   (7.1 by 8 x 8 inputs)
//   5x5 stride 2, 512 -> 512, 16^2         5.9     10.8     12
//   5x5 stride 2, 512 -> 512, 8^2          5.1      2.5      8.3
//   7x7, 64 -> 64, 128^2                  19       64       57   (25 by 6 x 6 inputs)
//   7x7, 64 -> 3, 256^2                     -      17       61
//   transposed 4x4, 256 -> 128, 64^2      20       41       44
//   transposed 4x4, 1024 -> 256, 16^2      9.7     20       22
//   transposed 4x4, 1024 -> 512, 4^2       6.6      3.5     27
//
// and the weight's gradient alone, ms:
//
//   3x3, 512 -> 512, 16^2                  6.4     13.0
//   3x3 stride 2, 64 -> 128, 128^2         4.8      7.0
//   4x4 stride 2, 3 -> 64, 256^2           0.9      1.5
//   4x4 stride 2, 64 -> 128, 128^2         5.6     12.0
//   4x4 stride 2, 256 -> 512, 32^2         7.1     11.1
//   5x5, 128 -> 128, 64^2                 16       34
//   5x5 stride 2, 64 -> 128, 128^2         7.1     18
//   7x7, 64 -> 64, 128^2                  25       65
#include "convolution/choose.h"

#include <algorithm>
#include <array>
#include <vector>

#include "convolution/takes.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Channels of all parts from which on the inputs of a block of tiles leave L2.
constexpr int64_t kDeep = 512;
// Channels of a part so few that what is left to do for each product takes more time than the sums.
constexpr int64_t kThinInput = 8;
// Channels so few that a weight's gradient sums taps side by side.
constexpr int64_t kThin = 32;
// The gain that makes the change from direct sums, or to a large tile, worth while.
constexpr double kGain = 1.1;
// Packed weights, in the layer's own, up to which that gain is enough; and the gain beyond. There
// tiles must gain even where nothing is kept: as much memory would save other layers their packing.
constexpr int64_t kMostPacked = 4;
constexpr double kGainBeyond = 1.3;

// Terms of a sum of which the error of large tiles is at most 8 times that of PyTorch's own
// convolution, whichever of its layouts: its error is small for short sums and for dilated kernels,
// and hardly grows where it sums long ones in parts.
// Tiles of 5 x 5 taps err more than those of 4 x 4: with 128 channels up to 11 times as much, and
// so do gradients of inputs beside PyTorch's own in AVX2.
constexpr int64_t kLargeFewest = 1500, kLargeMost4 = 3200, kLargeMost5 = 1600;
constexpr int64_t kLargeTaps = 25, kLargeTapsDilated = 49;

// Weights that are read where they lie, once: of so many at least, for so few pixels of the result,
// or of the input of a transposed convolution, at most.
constexpr int64_t kUnpackedWeights = int64_t(1) << 16;
constexpr int64_t kUnpackedPixels = 8;

// Where a weight is packed for one call alone, as for the gradients of a training. Gradient of the
// input, 512 filters and channels, packed and as direct sums, and unpacked, ms:
//
//   pixels                  4            16           36           64
//   5x5 stride 2       6.2   1.4    7.2   3.2    8.9   6.3   12.5  10.4
//   4x4 stride 2       4.1   0.7    5.1   2.3    6.5   3.7    9.0   6.5
//   3x3                2.9   0.3    2.5   0.9    3.3   1.8    4.7   3.4
//
// and with more pixels, as direct sums and in tiles:
//
//   256 -> 512, 4x4 / 2, 16 x 16       11.5   9.0
//   256 -> 512, 5x5 / 2, 16 x 16       17.7  12.3
//   1024 -> 256, 4x4 / 2, 16 x 16      22.7  17.2
//   512 -> 512, 3x3, 16 x 16           12.8   7.2
constexpr int64_t kUnpackedPixelsAnew = 64;

constexpr std::array kTiles{Algorithm::kWinograd4x3,
                            Algorithm::kWinograd5x2,
                            Algorithm::kWinograd4x2,
                            Algorithm::kWinograd3x4,
                            Algorithm::kWinograd5x4,
                            Algorithm::kWinograd4x5};
// For weights: those of 5 outputs gained nothing over those of 4.
constexpr std::array kGradientTiles{
    Algorithm::kWinograd4x3, Algorithm::kWinograd4x2, Algorithm::kWinograd3x4};

// How a convolution falls into tiles of one kind.
struct Tiling {
  int64_t tiles, parts;
  int points;        // products of a tile
  int64_t products;  // the same of all parts, without those that are zero
  bool large;
};

Tiling tiling_of(Algorithm algorithm, const ChoiceArgs& a) {
  return with_tile(algorithm, [&](auto tile) {
    using T = decltype(tile);
    const Layout<T> layout(a.kernel, a.stride, a.dilation);
    const auto rows = tile_starts(0, a.size.y, layout.grid.y, T::kOutputs);
    const auto columns = tile_starts(0, a.size.x, layout.grid.x, T::kOutputs);
    return Tiling{a.batch * int64_t(rows.size() * columns.size()),
                  layout.parts(),
                  T::kProducts * T::kProducts,
                  layout.products(),
                  is_large(algorithm)};
  });
}

double pairs_of(const ChoiceArgs& a) { return double(a.channels) * double(a.filters); }

// Lanes that the filters fill or leave empty.
double lanes_of(const ChoiceArgs& a) { return double(lanes_of(panels_of(a.filters, false))); }

// Multiply-adds of each channel with each filter.
double direct_products(const ChoiceArgs& a) {
  const double outputs = double(a.batch) * double(a.size.y) * double(a.size.x);
  return double(a.kernel.y * a.kernel.x) * outputs;
}

// Floats of the packed form. Gated layers are treated like all others.
int64_t packed_floats(const ChoiceArgs& a, Algorithm algorithm) {
  PackArgs args{};
  args.algorithm = algorithm;
  args.filters = a.filters;
  args.channels = a.channels;
  args.kernel = a.kernel;
  args.stride = a.stride;
  return algorithm == Algorithm::kDirect ? direct_packed_size(args) : winograd_packed_size(args);
}

Work tiled_work(const ChoiceArgs& a, const Tiling& t) {
  Work work{};
  const int64_t depth = t.parts * a.channels;
  const bool staged = staging_pays(t.tiles, depth, lanes_of(panels_of(a.filters, false)), t.large);
  const double tiles = double(t.tiles), points = tiles * double(t.points);
  const Term product = staged ? kTiledStaged : depth < kDeep ? kTiled : kTiledDeep;
  work[product] = double(a.channels) * lanes_of(a) * tiles * double(t.products);
  if (staged) {
    work[kTransformStaged] = points * double(depth + a.filters);
  } else {
    work[kTransformIn] = points * double(depth);
    work[kTransformOut] = points * double(a.filters);
    if (a.channels < kThinInput) work[kTransformThin] = points * double(t.parts);
  }
  return work;
}

// Returns whether tiles come into question: one tap along an axis leaves them nothing to save, and
// direct sums with pixels in their lanes are ahead of them.
bool may_be_tiled(const ChoiceArgs& a) {
  return a.tiled && a.kernel.y > 1 && a.kernel.x > 1 && is_tiled(a.stride, a.dilation) &&
         !pixels_in_lanes(a.filters, false, a.channels, a.stride);
}

// Returns whether a weight is worth no packing: few pixels share it.
bool is_unpacked(const ChoiceArgs& a) {
  const int64_t weights = a.filters * a.channels * a.kernel.y * a.kernel.x;
  const int64_t most = a.anew ? kUnpackedPixelsAnew : kUnpackedPixels;
  return a.in_place && a.groups == 1 && a.batch * a.size.y * a.size.x <= most &&
         weights >= kUnpackedWeights;
}

// Returns whether an algorithm errs little enough for a convolution.
bool is_exact_enough(const ChoiceArgs& a, Algorithm algorithm) {
  if (!is_large(algorithm)) return true;
  const int64_t taps = a.kernel.y * a.kernel.x;
  const bool dilated = a.dilation.y > 1 || a.dilation.x > 1;
  if (algorithm == Algorithm::kWinograd4x5 && a.anew && !kManyRegisters) return false;
  const int64_t most = algorithm == Algorithm::kWinograd4x5 ? kLargeMost5 : kLargeMost4;
  return a.large && taps >= (dilated ? kLargeTapsDilated : kLargeTaps) &&
         taps * a.channels >= kLargeFewest && taps * a.channels <= most;
}

// The cheapest of direct sums and `tiles`, cost(algorithm, whether packed anew), whose weights take
// packed(algorithm) floats: of the tiles whose packed weights are at most kMostPacked times
// `weights` the one that gains most, if that is enough; then of those beyond it the cheapest, if it
// gains more.
template <class Tiles, class Cost, class Packed>
Algorithm cheapest(const ChoiceArgs& a,
                   const Tiles& tiles,
                   int64_t weights,
                   const Cost& cost,
                   const Packed& packed) {
  const double direct = cost(Algorithm::kDirect, a.anew);
  const double direct_anew = cost(Algorithm::kDirect, true);
  const bool upsampled = is_upsampled_3x3(a.kernel, a.stride, a.dilation, a.padding, a.upsample);
  Algorithm best = Algorithm::kDirect, beyond = Algorithm::kDirect;
  double least = direct, least_beyond = direct;
  for (Algorithm algorithm : tiles) {
    if (!is_exact_enough(a, algorithm)) continue;
    if (upsampled && algorithm == Algorithm::kWinograd4x3)
      algorithm = Algorithm::kWinograd4x3Upsampled;
    const double its = cost(algorithm, a.anew);
    if (packed(algorithm) > kMostPacked * weights) {
      if (its < least_beyond && cost(algorithm, true) < direct_anew) {
        beyond = algorithm;
        least_beyond = its;
      }
    } else if (its * (best == Algorithm::kDirect || is_large(algorithm) ? kGain : 1) < least) {
      best = algorithm;
      least = its;
    }
  }
  return least_beyond * kGainBeyond < least ? beyond : best;
}

}  // namespace

Work convolution_work(const ChoiceArgs& a, Algorithm algorithm) {
  Work work{};
  if (algorithm == Algorithm::kDirect) {
    // For few filters the lanes are something else.
    const double filters = few_filters(a.filters, false) ? double(a.filters) : lanes_of(a);
    work[kDirect] = double(a.channels) * filters * direct_products(a);
  } else {
    work = tiled_work(a, tiling_of(algorithm, a));
  }
  work[kPacked] = double(packed_floats(a, algorithm));
  if (a.anew) work[kPacking] = work[kPacked];
  return work;
}

namespace {

int64_t weights_of(const ChoiceArgs& a) { return a.filters * a.channels * a.kernel.y * a.kernel.x; }

// Returns whether our kernels sum a convolution that has no weight to be read in place. The
// difference of gated layers concerns only those of at most kFewFilters filters with both a stride
// and a dilation, which are rare.
bool is_ours(const ChoiceArgs& a) {
  return a.groups == 1 && is_direct(a.filters, false, a.stride, a.dilation);
}

// Returns whether direct sums are the only way: few filters fill too few lanes of a tile's
// products.
bool is_direct_only(const ChoiceArgs& a) {
  const bool square = a.kernel.y == 3 && a.kernel.x == 3;
  return !may_be_tiled(a) || (a.filters <= kFewFilters && !square);
}

// The convolutions that a transposed one falls into, the largest first.
std::vector<ChoiceArgs> phases_of(const ChoiceArgs& a) {
  ChoiceArgs phase = a;
  phase.stride = phase.dilation = {1, 1};
  phase.padding = {0, 0};
  phase.upsample = 1;
  phase.in_place = false;
  std::vector<ChoiceArgs> phases;
  for (int64_t y = 0; y < a.stride.y; ++y)
    for (int64_t x = 0; x < a.stride.x; ++x) {
      phase.kernel = {ceil_div(a.kernel.y - y, a.stride.y), ceil_div(a.kernel.x - x, a.stride.x)};
      phases.push_back(phase);
    }
  return phases;
}

}  // namespace

std::optional<Algorithm> choose_algorithm(const ChoiceArgs& a) {
  if (is_unpacked(a)) return Algorithm::kUnpacked;
  if (!is_ours(a)) return std::nullopt;
  if (is_direct_only(a)) return Algorithm::kDirect;
  const auto cost = [&](Algorithm algorithm, bool anew) {
    ChoiceArgs args = a;
    args.anew = anew;
    return cost_of(convolution_work(args, algorithm), a.costs);
  };
  const auto packed = [&](Algorithm algorithm) { return packed_floats(a, algorithm); };
  return cheapest(a, kTiles, weights_of(a), cost, packed);
}

Work transposed_work(const ChoiceArgs& a, Algorithm algorithm) {
  Work work{};
  for (const ChoiceArgs& phase : phases_of(a)) {
    const Work its = convolution_work(phase, algorithm);
    for (int term = 0; term < kTerms; ++term) work[size_t(term)] += its[size_t(term)];
  }
  return work;
}

std::optional<Algorithm> choose_transposed_algorithm(const ChoiceArgs& a) {
  if (is_unpacked(a)) return Algorithm::kUnpacked;
  if (a.stride.y > a.kernel.y || a.stride.x > a.kernel.x) return std::nullopt;
  const std::vector<ChoiceArgs> phases = phases_of(a);
  if (!is_ours(phases[0])) return std::nullopt;
  if (is_direct_only(phases[0])) return Algorithm::kDirect;
  const auto cost = [&](Algorithm algorithm, bool anew) {
    ChoiceArgs args = a;
    args.anew = anew;
    return cost_of(transposed_work(args, algorithm), a.costs);
  };
  const auto packed = [&](Algorithm algorithm) {
    int64_t floats = 0;
    for (const ChoiceArgs& phase : phases) floats += packed_floats(phase, algorithm);
    return floats;
  };
  return cheapest(phases[0], kTiles, weights_of(a), cost, packed);
}

std::optional<Algorithm> choose_weight_gradient_algorithm(const ChoiceArgs& a) {
  // Few filters would leave most lanes of a transformed gradient empty.
  if (!may_be_tiled(a) || a.filters <= kFewFilters) return Algorithm::kDirect;
  constexpr int64_t W = Simd<float>::kWidth;
  const double pairs = pairs_of(a);
  // Few pixels in a row, as those of one grid of a wide dilation, are short sums.
  const int64_t columns = ceil_div(a.size.x, a.stride.x == 1 ? a.dilation.x : 1);
  const double longer = columns < 4 ? 1 + 2.0 / double(columns) : 1;
  Work direct{};
  direct[a.channels < kThin ? kOuterThin : kOuter] = longer * pairs * direct_products(a);
  direct[kOuterWrite] = pairs * double(a.kernel.y * a.kernel.x);
  const auto cost = [&](Algorithm algorithm, bool) {
    if (algorithm == Algorithm::kDirect) return cost_of(direct, a.costs);
    const Tiling t = tiling_of(algorithm, a);
    Work work{};
    work[kOuterTiled] = double(t.products) * pairs * double(t.tiles);
    work[kOuterSum] = double(t.parts * t.points) * pairs;
    const int64_t inputs = t.parts * round_up(a.channels, W);
    work[kTransformOuter] = double(t.tiles * t.points) * double(inputs + a.filters);
    return cost_of(work, a.costs);
  };
  // Nothing is packed.
  const auto packed = [](Algorithm) { return int64_t(0); };
  return cheapest(a, kGradientTiles, weights_of(a), cost, packed);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
