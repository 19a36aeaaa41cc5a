// A k-d tree of points of kCoordinates coordinates.
//
// Tiling: nodes are split at the middle of their longest side until a leaf has at most 32 points,
// [coordinate][point], 2 kB of floats. Upper nodes are split one after the other, whole subtrees at
// once. Traffic: each level of the tree reads all points once.
#pragma once

#include <algorithm>
#include <vector>

#include "matching/patch_points.h"

namespace inpaint {
namespace INPAINT_ISA {

// The k-d tree of a list of points.
template <class T>
class PointTree {
 public:
  static constexpr int64_t kLeaf = 32;

  struct Node {
    T low[kCoordinates], high[kCoordinates];
    int64_t begin, end;  // of `order`
    int64_t left;        // child, the other one follows; negative: a leaf
  };

  // order: the points to take, reordered so that a node's points follow one another.
  PointTree(const T* points, std::vector<int64_t> order, int threads)
      : points_(points),
        order_(std::move(order)),
        leaves_(round_up(int64_t(order_.size()), kLeaf) * kCoordinates) {
    const int64_t count = int64_t(order_.size());
    nodes_.reserve(size_t(4 * ceil_div(count, kLeaf) + 1));
    // The upper nodes one after the other, then whole subtrees at once.
    nodes_.push_back(Node{{}, {}, 0, count, -1});
    size_t next = 0;
    const size_t enough = threads == 1 ? 1 : size_t(16 * threads);
    for (; next < nodes_.size() && nodes_.size() - next < enough; ++next) split(nodes_, next);
    std::vector<std::vector<Node>> parts(nodes_.size() - next);
    parallel_tasks(int64_t(parts.size()), threads, [&](int64_t i) {
      std::vector<Node>& part = parts[size_t(i)];
      part.push_back(nodes_[next + size_t(i)]);
      for (size_t node = 0; node < part.size(); ++node) split(part, node);
    });
    for (size_t i = 0; i < parts.size(); ++i) {
      // The root of a part has its place already; the others go behind.
      const int64_t shift = int64_t(nodes_.size()) - 1;
      for (size_t j = 0; j < parts[i].size(); ++j) {
        Node node = parts[i][j];
        if (node.left >= 0) node.left += shift;
        if (j == 0) {
          nodes_[next + i] = node;
        } else {
          nodes_.push_back(node);
        }
      }
    }
    parallel_tasks(int64_t(nodes_.size()), threads, [&](int64_t i) {
      if (nodes_[size_t(i)].left < 0) fill_leaf(nodes_[size_t(i)]);
    });
  }

  const std::vector<Node>& nodes() const { return nodes_; }
  // Points of a leaf, [coordinate][kLeaf], the last ones repeated.
  const T* leaf(const Node& node) const { return leaves_.data() + node.begin * kCoordinates; }
  int64_t point(int64_t place) const { return order_[size_t(place)]; }

 private:
  const T* coordinates(int64_t point) const { return points_ + point * kCoordinates; }

  void split(std::vector<Node>& nodes, size_t number) {
    Node& node = nodes[number];
    for (int64_t d = 0; d < kCoordinates; ++d)
      node.low[d] = node.high[d] = coordinates(order_[size_t(node.begin)])[d];
    for (int64_t i = node.begin + 1; i < node.end; ++i) {
      const T* p = coordinates(order_[size_t(i)]);
      for (int64_t d = 0; d < kCoordinates; ++d) {
        node.low[d] = p[d] < node.low[d] ? p[d] : node.low[d];
        node.high[d] = p[d] > node.high[d] ? p[d] : node.high[d];
      }
    }
    const int64_t count = node.end - node.begin;
    if (count <= kLeaf) return;
    int64_t axis = 0;
    for (int64_t d = 1; d < kCoordinates; ++d)
      if (node.high[d] - node.low[d] > node.high[axis] - node.low[axis]) axis = d;
    // Whole leaves on the left, so that only the last leaf is not full.
    const int64_t middle = node.begin + ceil_div(ceil_div(count, kLeaf), 2) * kLeaf;
    const auto first = order_.begin();
    std::nth_element(
        first + node.begin, first + middle, first + node.end, [&](int64_t a, int64_t b) {
          return coordinates(a)[axis] < coordinates(b)[axis];
        });
    const int64_t begin = node.begin, end = node.end;
    node.left = int64_t(nodes.size());
    nodes.push_back(Node{{}, {}, begin, middle, -1});  // invalidates `node`
    nodes.push_back(Node{{}, {}, middle, end, -1});
  }

  void fill_leaf(const Node& node) {
    T* to = leaves_.data() + node.begin * kCoordinates;
    for (int64_t i = 0; i < kLeaf; ++i) {
      const T* from = coordinates(order_[size_t(std::min(node.begin + i, node.end - 1))]);
      for (int64_t d = 0; d < kCoordinates; ++d) to[d * kLeaf + i] = from[d];
    }
  }

  const T* points_;
  std::vector<int64_t> order_;
  std::vector<Node> nodes_;
  Buffer<T> leaves_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
