// Nearest patches by a tree: most keys are never compared, and the result is exact.
//
// Algebra: every patch becomes a point of 16 coordinates no farther from another point than the
// patches are from each other (matching/patch_points.h). The points of the keys form a k-d tree. A
// query starts from a good key, the neighbour of the match of the query beside it, and walks down
// the tree. A subtree is left out if the box around its points is farther away than the best key so
// far, a key if its point is. What is left is compared in full, by differences, and given up as
// soon as a patch row takes it above the best. Only the least squared distance wins, of equals the
// lowest index, so the result does not depend on the start, the tree or the order.
//
// Equal keys, as in a flat sky, could not be told apart by any bound: of several the one with the
// lowest index enters the tree.
//
// Cost: about 8 instructions a key whose leaf is reached, against 2 for every key in
// matching/by_diagonals.h. Where patches resemble each other a few keys in a hundred are reached;
// in noise nearly all. So some queries are tried first and the rest is done here only if that pays.
//
// Tiling: a task is 64 queries that follow one another, whose paths through the tree are alike.
//
// Traffic: keys are read twice, to form points and, few of them, for full distances. Memory: 2 x 16
// coordinates a key.
#pragma once

#include <cstring>
#include <vector>

#include "matching/point_tree.h"
#include "matching/sample.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
class TreeMatcher {
 public:
  // Whether a call may be done here, and is large enough for a tree.
  static bool suits(const Sample<T>& s) {
    const int64_t depth = s.args.channels * s.k * s.k;
    return !s.args.cosine && depth > kCoordinates && depth <= 1024 && s.wanted_count >= 256 &&
           s.usable_count >= 2048 && s.usable_count <= (int64_t(1) << 22);
  }

  explicit TreeMatcher(Sample<T>& sample)
      : s_(sample),
        run_(sample.k * sample.args.channels),
        vectors_(ceil_div(run_, W)),
        lanes_(last_lanes()),
        queries_(
            pixels(sample.args.query, sample.args.query_height, sample.args.query_width, nullptr)),
        keys_(pixels(sample.args.key, sample.args.key_height, sample.args.key_width, sample.valid)),
        basis_(sampled(), samples(), run_ * sample.k),
        key_points_(sample.usable_count * kCoordinates),
        query_points_(sample.wanted_count * kCoordinates) {
    for (int64_t i = 0; i < s_.query_rows * s_.query_cols; ++i)
      if (s_.wanted[i]) wanted_.push_back(i);
    for (int64_t i = 0; i < s_.key_rows * s_.key_cols; ++i)
      if (s_.usable[i]) usable_.push_back(i);
  }

  // Finds all matches, unless the tree does not pay; returns whether it did. `other` is the cost of
  // the cheapest other way in instructions.
  bool run(double other) {
    const int64_t wanted = int64_t(wanted_.size());
    const double largest =
        std::max(form_points(keys_, usable_, s_.key_cols, key_points_.data()),
                 form_points(queries_, wanted_, s_.query_cols, query_points_.data()));
    // Also false for NaN. A sum of squares of such numbers stays finite.
    if (!(largest < 1e30)) return false;
    slack_ = T(std::sqrt(largest) * double(std::numeric_limits<T>::epsilon()) * 16);
    const PointTree<T> tree(key_points_.data(), distinct_keys(), s_.args.threads);
    tree_ = &tree;
    if (!pays(other)) return false;
    constexpr int64_t kQueries = 64;
    parallel_tasks(ceil_div(wanted, kQueries), s_.args.threads, [&](int64_t task) {
      Search search;
      int64_t left = -1;
      for (int64_t i = task * kQueries; i < std::min(wanted, (task + 1) * kQueries); ++i) {
        const bool beside = i > task * kQueries && wanted_[i] == wanted_[i - 1] + 1 &&
                            wanted_[i] % s_.query_cols != 0;
        const bool usable =
            beside && left >= 0 && (left + 1) % s_.key_cols != 0 && s_.usable[left + 1];
        find(i, usable ? left + 1 : -1, search);
        left = search.index;
        const T score = search.index < 0 ? kMinusInfinity<T> : score_of(wanted_[i], left);
        s_.matches.merge(wanted_[i], &score, &left, 1);
      }
    });
    return true;
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  using Tree = PointTree<T>;

  struct Search {
    T best, limit;  // squared distance; squared distance of points beyond which nothing counts
    int64_t index;
    int64_t points = 0, compared = 0, boxes = 0;  // visited
    struct Waiting {
      int64_t node;
      T distance;
    };
    std::vector<Waiting> waiting;
  };

  PixelRuns<T> pixels(const ImageView<T>& image,
                      int64_t height,
                      int64_t width,
                      const uint8_t* valid) const {
    return PixelRuns<T>(image, s_.n, s_.args.channels, height, width, valid, s_.args.threads);
  }

  Vector<T> last_lanes() const {
    T lanes[W];
    for (int64_t i = 0; i < W; ++i) lanes[i] = (vectors_ - 1) * W + i < run_ ? T(1) : T(0);
    return load(lanes);
  }

  int64_t samples() const { return std::min<int64_t>(s_.usable_count, 384); }

  // Usable patches, evenly spread, (samples, depth).
  std::vector<double> sampled() const {
    const int64_t depth = run_ * s_.k, count = samples();
    std::vector<double> rows;
    rows.reserve(size_t(count * depth));
    int64_t seen = 0, taken = 0;
    for (int64_t i = 0; i < s_.key_rows * s_.key_cols && taken < count; ++i) {
      if (!s_.usable[i] || seen++ < taken * s_.usable_count / count) continue;
      ++taken;
      const T* patch = keys_.at(i / s_.key_cols, i % s_.key_cols);
      for (int64_t d = 0; d < s_.k; ++d, patch += keys_.stride())
        for (int64_t j = 0; j < run_; ++j) rows.push_back(double(patch[j]));
    }
    return rows;
  }

  // Returns the largest squared norm, or NaN.
  double form_points(const PixelRuns<T>& image,
                     const std::vector<int64_t>& origins,
                     int64_t columns,
                     T* out) const {
    constexpr int64_t kPatches = 256;
    const int64_t count = int64_t(origins.size());
    std::vector<double> largest(size_t(ceil_div(count, kPatches)), 0.0);
    parallel_tasks(int64_t(largest.size()), s_.args.threads, [&](int64_t task) {
      double most = 0;
      PatchBasis::Block block(basis_);
      const int64_t end = std::min(count, (task + 1) * kPatches);
      for (int64_t i = task * kPatches; i < end; i += PatchBasis::kBlock) {
        const int64_t patches = std::min(PatchBasis::kBlock, end - i);
        for (int64_t j = 0; j < patches; ++j)
          block.set(j,
                    image.at(origins[i + j] / columns, origins[i + j] % columns),
                    run_,
                    image.stride());
        block.points(patches, out + i * kCoordinates);
        for (int64_t j = 0; j < patches; ++j)
          if (!(block.norm(j) <= most)) most = block.norm(j);
      }
      largest[size_t(task)] = most;
    });
    double most = 0;
    for (double norm : largest)
      if (!(norm <= most)) most = norm;
    return most;
  }

  bool same_patch(int64_t a, int64_t b) const {
    const T* p = keys_.at(a / s_.key_cols, a % s_.key_cols);
    const T* q = keys_.at(b / s_.key_cols, b % s_.key_cols);
    for (int64_t d = 0; d < s_.k; ++d, p += keys_.stride(), q += keys_.stride())
      if (std::memcmp(p, q, sizeof(T) * size_t(run_)) != 0) return false;
    return true;
  }

  // Keys, as numbers in `usable_`, without those that equal an earlier one. Patches that differ may
  // have the same point, all of them beside one huge number: then copies of a key may stay.
  std::vector<int64_t> distinct_keys() const {
    constexpr int64_t kLooks = 64;
    const int64_t count = int64_t(usable_.size());
    size_t slots = 1;
    while (slots < size_t(2 * count)) slots *= 2;
    std::vector<int64_t> table(slots, -1), out;
    out.reserve(size_t(count));
    for (int64_t i = 0; i < count; ++i) {
      const T* p = key_points_.data() + i * kCoordinates;
      uint64_t hash = 0;
      for (int64_t d = 0; d < kCoordinates; ++d) {
        uint64_t bits = 0;
        std::memcpy(&bits, p + d, sizeof(T));
        hash = (hash ^ bits) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
      }
      size_t slot = size_t(hash) & (slots - 1);
      bool known = false;
      int64_t looks = 0;
      for (; table[slot] >= 0 && !known && looks < kLooks;
           slot = (slot + 1) & (slots - 1), ++looks) {
        const T* other = key_points_.data() + table[slot] * kCoordinates;
        known = std::memcmp(p, other, sizeof(T) * kCoordinates) == 0 &&
                same_patch(usable_[size_t(i)], usable_[size_t(table[slot])]);
      }
      if (known) continue;
      if (looks < kLooks) table[slot] = i;
      out.push_back(i);
    }
    return out;
  }

  // Tries queries, evenly spread and without a start, and compares what they visit with `other`.
  bool pays(double other) const {
    constexpr int64_t kTrials = 48;
    const int64_t count = int64_t(wanted_.size());
    Search search;
    double cost = 0;
    for (int64_t trial = 0; trial < kTrials; ++trial) find(trial * count / kTrials, -1, search);
    cost = double(search.points) * 2.5 * kCoordinates / double(W) + double(search.boxes) * 30 +
           double(search.compared) * 40;
    return cost / double(kTrials) * double(count) < other;
  }

  void find(int64_t number, int64_t start, Search& search) const {
    const T* q = query_points_.data() + number * kCoordinates;
    const int64_t query = wanted_[size_t(number)];
    const T* patch = queries_.at(query / s_.query_cols, query % s_.query_cols);
    search.best = std::numeric_limits<T>::infinity();
    search.index = -1;
    search.limit = search.best;
    if (start >= 0) compare(patch, start, search);
    const std::vector<typename Tree::Node>& nodes = tree_->nodes();
    search.waiting.clear();
    search.waiting.push_back({0, T(0)});
    while (!search.waiting.empty()) {
      const auto [number_of_node, away] = search.waiting.back();
      search.waiting.pop_back();
      if (away > search.limit) continue;
      const typename Tree::Node* node = &nodes[size_t(number_of_node)];
      while (node->left >= 0) {
        const typename Tree::Node* child = &nodes[size_t(node->left)];
        const T to_left = box_distance(q, child[0]), to_right = box_distance(q, child[1]);
        search.boxes += 2;
        const bool right_first = to_right < to_left;
        const T farther = right_first ? to_left : to_right,
                nearer = right_first ? to_right : to_left;
        if (farther <= search.limit)
          search.waiting.push_back({node->left + (right_first ? 0 : 1), farther});
        node = nearer <= search.limit ? child + (right_first ? 1 : 0) : nullptr;
        if (!node) break;
      }
      if (node) visit(q, patch, *node, search);
    }
  }

  static T box_distance(const T* q, const typename Tree::Node& node) {
    Vector<T> sum{};
    for (int64_t d = 0; d < kCoordinates; d += W) {
      const Vector<T> x = load(q + d), below = load(node.low + d) - x,
                      above = x - load(node.high + d);
      const Vector<T> out = max_or_second<T>(max_or_second<T>(below, above), Vector<T>{});
      sum = multiply_add(out, out, sum);
    }
    return horizontal_sum<T>(sum);
  }

  void visit(const T* q, const T* patch, const typename Tree::Node& node, Search& search) const {
    constexpr int64_t V = Tree::kLeaf / W;
    const T* leaf = tree_->leaf(node);
    Vector<T> sum[V] = {};
    for (int64_t d = 0; d < kCoordinates; ++d) {
      const Vector<T> x = broadcast(q[d]);
#pragma GCC unroll 8
      for (int64_t v = 0; v < V; ++v) {
        const Vector<T> difference = load(leaf + d * Tree::kLeaf + v * W) - x;
        sum[v] = multiply_add(difference, difference, sum[v]);
      }
    }
    const int64_t count = node.end - node.begin;
    search.points += Tree::kLeaf;
    alignas(64) T distance[Tree::kLeaf];
    for (int64_t v = 0; v < V; ++v) store(distance + v * W, sum[v]);
    for (int64_t v = 0; v < V; ++v) {
      const Vector<T> near = sum[v] <= broadcast(search.limit) ? broadcast(T(1)) : Vector<T>{};
      for (uint32_t lanes = nonzero_lanes<T>(near); lanes != 0; lanes &= lanes - 1) {
        const int64_t i = v * W + __builtin_ctz(lanes);
        if (i >= count || distance[i] > search.limit) continue;
        compare(patch, usable_[size_t(tree_->point(node.begin + i))], search);
      }
    }
  }

  // The full distance, unless it becomes clear that it is greater than the best.
  void compare(const T* patch, int64_t index, Search& search) const {
    ++search.compared;
    const T* key = keys_.at(index / s_.key_cols, index % s_.key_cols);
    const int64_t last = (vectors_ - 1) * W;
    Vector<T> sum{};
    T total = 0;
    for (int64_t d = 0; d < s_.k; ++d, key += keys_.stride(), patch += queries_.stride()) {
      for (int64_t j = 0; j < last; j += W) {
        const Vector<T> difference = load(key + j) - load(patch + j);
        sum = multiply_add(difference, difference, sum);
      }
      const Vector<T> difference = load(key + last) - load(patch + last);
      const Vector<T> cut = lanes_ > Vector<T>{} ? difference : Vector<T>{};
      sum = multiply_add(cut, cut, sum);
      total = horizontal_sum<T>(sum);
      if (total > search.best) return;
    }
    if (total == search.best && index >= search.index) return;
    search.best = total;
    search.index = index;
    // Beyond the rounding of points (slack) and of sums of at most 1024 squares.
    const T reach = (std::sqrt(total) + slack_) * (1 + 1024 * std::numeric_limits<T>::epsilon());
    search.limit = reach * reach;
  }

  T score_of(int64_t query, int64_t index) const {
    const T* patch = queries_.at(query / s_.query_cols, query % s_.query_cols);
    const T* key = keys_.at(index / s_.key_cols, index % s_.key_cols);
    double score = 0;
    for (int64_t d = 0; d < s_.k; ++d, key += keys_.stride(), patch += queries_.stride())
      for (int64_t j = 0; j < run_; ++j)
        score += double(key[j]) * (double(patch[j]) - 0.5 * double(key[j]));
    return T(score);
  }

  Sample<T>& s_;
  const int64_t run_, vectors_;  // numbers of a patch row, and vectors
  const Vector<T> lanes_;        // 1 where the last vector belongs to the row
  const PixelRuns<T> queries_, keys_;
  const PatchBasis basis_;
  std::vector<int64_t> wanted_, usable_;  // patch origins, flat on the grids at stride 1
  Buffer<T> key_points_, query_points_;
  T slack_ = 0;
  const Tree* tree_ = nullptr;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
