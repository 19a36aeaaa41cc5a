// Exhaustive nearest patches without a matrix of scores.
//
// Algebra: score(p, q) = <patch_p, patch_q> * scale(q) + bias(q). Cosine: scale = 1 / |patch_q| and
// bias = 0. L2: scale = 1 and bias = -|patch_q|^2 / 2. A key patch that may not be used has
// bias = -inf. <patch_p, patch_q> is the sum of the pixel products G[p + d, q + d] over the k x k
// offsets d. So on dense grids a pair of patches costs C multiply-adds and two running sums instead
// of k * k * C multiply-adds.
//
// Tiling: three ways to form the products, chosen by their cost. matching/by_products.h takes many
// channels, matching/by_diagonals.h few, and matching/by_lists.h patches that share no pixels
// (single pixels, strides, scattered queries). With L2 a fourth way leaves most pairs out:
// matching/by_tree.h proves that they cannot be the nearest.
//
// Traffic: queries and keys are packed once and then read from the second- or third-level cache;
// results are 16 bytes a query. Memory: O(C (Hq Wq + Hk Wk)), k * k times that for lists, and less
// than 1 MB a thread. Nothing grows with queries x keys.
//
// Equal bits: sums run in a fixed order, and the lowest key index wins a tie.
#include "matching/nearest_patch.h"

#include "matching/by_diagonals.h"
#include "matching/by_lists.h"
#include "matching/by_products.h"
#include "matching/by_tree.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

enum class Way { kNone, kLists, kDiagonals, kProducts };

struct Choice {
  Way way;
  double cost;  // vector instructions
};

// The cheapest way without a tree, by vector instructions a vector of pairs, counted from the inner
// loops.
template <class T>
Choice cheapest(const Sample<T>& s) {
  constexpr double kWidth = double(Simd<T>::kWidth);
  const double channels = double(s.args.channels), k = double(s.k);
  const double lists = double(s.wanted_count) * double(s.usable_count) * (channels * k * k + 4);
  const auto dense = [&](int64_t columns, double pixel_cost, double patch_cost) {
    double sum = 0;
    for (const Block& block : s.blocks(columns)) {
      const double rows = double(block.y1 - block.y0 + s.k - 1) * double(s.args.key_height);
      const double width = double(block.x1 - block.x0);
      sum += rows * double(s.args.key_width) * ((width + k - 1) * pixel_cost + width * patch_cost);
    }
    return sum;
  };
  const double diagonals = dense(DiagonalMatcher<T>::kColumns, 2.5 * channels, k + 6);
  const double products = dense(ProductMatcher<T>::kColumns, 1.1 * channels, 3 * k + 8);
  if (s.k == 1 || (lists < diagonals && lists < products)) return {Way::kLists, lists / kWidth};
  if (diagonals < products) return {Way::kDiagonals, diagonals / kWidth};
  return {Way::kProducts, products / kWidth};
}

template <class T>
void write(const Sample<T>& s) {
  const NearestPatchArgs<T>& a = s.args;
  const PatchAxis ys{s.query_rows - 1, a.stride}, xs{s.query_cols - 1, a.stride};
  const PatchAxis key_ys{s.key_rows - 1, a.key_stride}, key_xs{s.key_cols - 1, a.key_stride};
  const int64_t first = s.n * ys.count() * xs.count();
  const bool normalise = a.cosine && a.score;
  Buffer<double> norms(normalise ? s.query_rows * s.query_cols : 0);
  if (normalise) {
    patch_square_norms(a.query,
                       s.n,
                       a.channels,
                       a.query_height,
                       a.query_width,
                       s.k,
                       static_cast<const uint8_t*>(nullptr),
                       a.threads,
                       norms.data());
  }
  for (int64_t i = 0; i < ys.count(); ++i) {
    for (int64_t j = 0; j < xs.count(); ++j) {
      const int64_t q = ys.origin(i) * s.query_cols + xs.origin(j);
      const int64_t o = first + i * xs.count() + j;
      const int64_t found = s.matches.index(q);
      a.index[o] = found < 0 ? -1
                             : key_ys.position(found / s.key_cols) * key_xs.count() +
                                   key_xs.position(found % s.key_cols);
      if (!a.score) continue;
      a.score[o] = s.matches.score(q);
      if (normalise && found >= 0)
        a.score[o] = T(a.score[o] / std::max(std::sqrt(norms[q]), kNormFloor));
    }
  }
}

}  // namespace

template <class T>
void nearest_patch(const NearestPatchArgs<T>& args) {
  const PatchAxis ys{args.query_height - args.patch, args.stride};
  const PatchAxis xs{args.query_width - args.patch, args.stride};
  const int64_t queries = ys.count() * xs.count();
  if (queries == 0) return;
  if (args.key_height < args.patch || args.key_width < args.patch) {
    for (int64_t i = 0; i < args.batch * queries; ++i) {
      args.index[i] = -1;
      if (args.score) args.score[i] = kMinusInfinity<T>;
    }
    return;
  }
  for (int64_t n = 0; n < args.batch; ++n) {
    Sample<T> sample(args, n);
    if (sample.wanted_count > 0 && sample.usable_count > 0) {
      const Choice choice = cheapest(sample);
      const bool done = TreeMatcher<T>::suits(sample) && TreeMatcher<T>(sample).run(choice.cost);
      switch (done ? Way::kNone : choice.way) {
        case Way::kNone:
          break;
        case Way::kLists:
          ListMatcher<T>(sample).run();
          break;
        case Way::kDiagonals:
          DiagonalMatcher<T>(sample).run();
          break;
        case Way::kProducts:
          ProductMatcher<T>(sample).run();
          break;
      }
    }
    write(sample);
  }
}

template void nearest_patch<float>(const NearestPatchArgs<float>&);
template void nearest_patch<double>(const NearestPatchArgs<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
