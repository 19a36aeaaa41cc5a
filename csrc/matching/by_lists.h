// Nearest patches among two lists: single pixels, strided grids, scattered queries.
//
// Algebra: the wanted query patches and the usable key patches are gathered as vectors of k * k * C
// numbers and multiplied as plain matrices. For single pixels (shift_connection) nothing is wasted:
// C multiply-adds for each pair of a hole cell and a known cell, none for any other pair.
//
// Tiling: up to 8 tiles of queries times about 128 kB of keys a task. The maximum is taken in each
// register tile; no score is stored.
//
// Traffic: both lists are gathered once; a task reads its keys from the second-level cache once for
// each of its tiles of queries. Memory: all queries and 64 MB of keys, k * k * C numbers each.
#pragma once

#include "matching/sample.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
class ListMatcher {
 public:
  explicit ListMatcher(Sample<T>& sample)
      : s_(sample), depth_(sample.args.channels * sample.k * sample.k) {
    queries_.reserve(s_.wanted_count);
    keys_.reserve(s_.usable_count);
    for (int64_t i = 0; i < s_.query_rows * s_.query_cols; ++i)
      if (s_.wanted[i]) queries_.push_back(i);
    for (int64_t i = 0; i < s_.key_rows * s_.key_cols; ++i)
      if (s_.usable[i]) keys_.push_back(i);
  }

  void run() {
    const int64_t count = int64_t(queries_.size()), keys = int64_t(keys_.size());
    Buffer<T> left(count * depth_);
    pack(s_.args.query, queries_, s_.query_cols, 0, left.data());
    const int64_t panel_bytes = depth_ * kPanel<T> * int64_t(sizeof(T));
    const int64_t some = std::max<int64_t>(1, (64 << 20) / panel_bytes) * kPanel<T>;
    for (int64_t first = 0; first < keys; first += some)
      match(left.data(), first, std::min(keys, first + some));
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // Compares all queries with the keys numbered from `first` to `last`.
  void match(const T* left, int64_t first, int64_t last) {
    const int64_t count = int64_t(queries_.size()), keys = last - first;
    const int64_t tiles = tile_count(count), panels = ceil_div(keys, kPanel<T>);
    Buffer<T> right(panels * kPanel<T> * depth_);
    Buffer<T> scale(panels * kPanel<T>), bias(panels * kPanel<T>);
    const std::vector<int64_t> origins(keys_.begin() + first, keys_.begin() + last);
    pack(s_.args.key, origins, s_.key_cols, kPanel<T>, right.data());
    parallel_tasks(panels, s_.args.threads, [&](int64_t panel) {
      const int64_t begin = panel * kPanel<T>;
      const int64_t columns = std::min<int64_t>(kPanel<T>, keys - begin);
      score_terms(
          right.data() + begin * depth_, columns, scale.data() + begin, bias.data() + begin);
    });

    // A task takes up to 8 tiles of queries and about 128 kB of keys: both stay in the second-level
    // cache. Fewer tiles where several threads would else end at different times; tasks that follow
    // one another share their keys.
    const int64_t panel_bytes = depth_ * kPanel<T> * int64_t(sizeof(T));
    const int64_t panels_a_task = std::max<int64_t>(1, 131072 / panel_bytes);
    const int64_t share = s_.args.threads == 1 ? 8 : tiles / (4 * s_.args.threads);
    const int64_t tiles_a_task = std::min<int64_t>(8, std::max<int64_t>(1, share));
    const int64_t tile_tasks = ceil_div(tiles, tiles_a_task);
    BestMatches<T> best(count);
    const int64_t tasks = tile_tasks * ceil_div(panels, panels_a_task);
    parallel_tasks(tasks, s_.args.threads, [&](int64_t task) {
      const int64_t tile0 = task % tile_tasks * tiles_a_task;
      const int64_t panel0 = task / tile_tasks * panels_a_task;
      for (int64_t tile = tile0; tile < std::min(tiles, tile0 + tiles_a_task); ++tile) {
        const int64_t begin = tile_begin(count, tile), end = tile_begin(count, tile + 1);
        Tile body;
        body.left = left + begin * depth_;
        body.right = right.data();
        body.scale = scale.data();
        body.bias = bias.data();
        body.depth = depth_;
        body.panel0 = panel0;
        body.panel1 = std::min(panels, panel0 + panels_a_task);
        // Starting from the best of other tasks makes improvements rare. Starting just below it
        // lets an equal score with a lower index through.
        best.scores(begin, end - begin, body.found);
        for (int64_t r = 0; r < end - begin; ++r) body.found[r] = just_below(body.found[r]);
        with_rows(end - begin, body);
        best.merge(begin, body.found, body.index, end - begin);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const int64_t found = best.index(i) < 0 ? -1 : origins[size_t(best.index(i))];
      const T score = best.score(i);
      s_.matches.merge(queries_[i], &score, &found, 1);
    }
  }

  // Packs patches as PixelColumns: pixel by pixel of the patch, channel by channel of the pixel.
  //
  // Planes are read one after the other for all groups (16 at a time are one task): the same place
  // of 16 planes often falls on one set of the cache. Pixels with their channels together are read
  // group by group.
  void pack(const ImageView<T>& image,
            const std::vector<int64_t>& origins,
            int64_t grid_width,
            int64_t width,
            T* out) const {
    std::vector<int64_t> at;
    at.reserve(origins.size());
    for (int64_t origin : origins)
      at.push_back(origin / grid_width * image.stride_h + origin % grid_width * image.stride_w);
    const PixelColumns<T> columns(std::move(at), width);
    const T* base = image.data + s_.n * image.stride_n;
    const auto copy = [&](int64_t group, int64_t d) {
      const int64_t c = d % s_.args.channels, pixel = d / s_.args.channels;
      const T* plane =
          base + pixel / s_.k * image.stride_h + pixel % s_.k * image.stride_w + c * image.stride_c;
      columns.copy(plane, group, out + columns.begin(group) * depth_ + d * columns.width(group));
    };
    if (image.stride_w == 1) {
      parallel_tasks(ceil_div(depth_, 16), s_.args.threads, [&](int64_t task) {
        for (int64_t d = task * 16; d < std::min(depth_, task * 16 + 16); ++d)
          for (int64_t group = 0; group < columns.groups(); ++group) copy(group, d);
      });
    } else {
      parallel_tasks(columns.groups(), s_.args.threads, [&](int64_t group) {
        for (int64_t d = 0; d < depth_; ++d) copy(group, d);
      });
    }
  }

  // Scale and bias of one packed panel of keys, norms summed in double.
  void score_terms(const T* panel, int64_t count, T* scale, T* bias) const {
    double square[kPanel<T>];
    panel_squares(panel, depth_, square);
    for (int64_t j = 0; j < kPanel<T>; ++j) {
      scale[j] = j < count ? key_scale<T>(s_.args.cosine, square[j]) : T(0);
      bias[j] = j < count ? key_bias<T>(s_.args.cosine, square[j]) : kMinusInfinity<T>;
    }
  }

  struct Tile {
    const T *left, *right, *scale, *bias;
    int64_t depth, panel0, panel1;
    T found[kRowTile];  // in: scores to beat; out: where index >= 0, the best
    int64_t index[kRowTile];

    template <int ROWS>
    void run() {
      for (int r = 0; r < ROWS; ++r) index[r] = -1;
      for (int64_t panel = panel0; panel < panel1; ++panel) {
        Accumulator<T, ROWS, 2> sum;
        sum.clear();
        sum.add(left, right + panel * kPanel<T> * depth, kPanel<T>, depth);
        const T* s = scale + panel * kPanel<T>;
        const T* b = bias + panel * kPanel<T>;
        alignas(64) T scores[ROWS][2 * W];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
          store(scores[r], multiply_add(sum.v[r][0], load(s), load(b)));
          store(scores[r] + W, multiply_add(sum.v[r][1], load(s + W), load(b + W)));
        }
        for (int r = 0; r < ROWS; ++r) {
          const Vector<T> v0 = load(scores[r]), v1 = load(scores[r] + W);
          const Vector<T> top = max_or_second<T>(v0, max_or_second<T>(v1, broadcast(found[r])));
          if (!any_greater<T>(top, broadcast(found[r]))) continue;
          found[r] = horizontal_max<T>(top);
          int64_t j = 0;
          while (scores[r][j] != found[r]) ++j;
          index[r] = panel * kPanel<T> + j;
        }
      }
    }
  };

  Sample<T>& s_;
  const int64_t depth_;
  std::vector<int64_t> queries_, keys_;  // patch origins, flat on the grids at stride 1
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
