// Nearest patches among two lists: single pixels, strided grids, scattered queries.
//
// The wanted query patches and the usable key patches are gathered as vectors of k * k * C numbers
// and multiplied as plain matrices; the maximum is taken per register tile, nothing else is stored.
// For single pixels (shift-connection) this is the floor: C multiply-adds for each pair of a hole
// cell and a known cell, none for any other.
#pragma once

#include "match_sample.h"

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
    const int64_t count = int64_t(queries_.size());
    const int64_t tiles = tile_count(count), panels = ceil_div(keys_.size(), kPanel<T>);
    Buffer<T> left(count * depth_), right(panels * kPanel<T> * depth_);
    Buffer<T> scale(panels * kPanel<T>), bias(panels * kPanel<T>);
    parallel_tasks(tiles + panels, s_.args.threads, [&](int64_t task) {
      if (task < tiles) {
        const int64_t begin = tile_begin(count, task), end = tile_begin(count, task + 1);
        T* to = left.data() + begin * depth_;
        gather(s_.args.query, &queries_[begin], end - begin, s_.query_cols, end - begin, to);
      } else {
        const int64_t begin = (task - tiles) * kPanel<T>;
        const int64_t columns = std::min<int64_t>(kPanel<T>, keys_.size() - begin);
        T* to = right.data() + begin * depth_;
        gather(s_.args.key, &keys_[begin], columns, s_.key_cols, kPanel<T>, to);
        score_terms(to, columns, scale.data() + begin, bias.data() + begin);
      }
    });

    // A task takes up to 8 tiles of queries and about 128 kB of keys: both stay in the second-level
    // cache.
    const int64_t panel_bytes = depth_ * kPanel<T> * int64_t(sizeof(T));
    const int64_t panels_a_task = std::max<int64_t>(1, 131072 / panel_bytes), tiles_a_task = 8;
    const int64_t key_tasks = ceil_div(panels, panels_a_task);
    BestMatches<T> best(count);
    parallel_tasks(ceil_div(tiles, tiles_a_task) * key_tasks, s_.args.threads, [&](int64_t task) {
      const int64_t tile0 = task / key_tasks * tiles_a_task;
      const int64_t panel0 = task % key_tasks * panels_a_task;
      for (int64_t tile = tile0; tile < std::min(tiles, tile0 + tiles_a_task); ++tile) {
        const int64_t begin = tile_begin(count, tile), end = tile_begin(count, tile + 1);
        Tile body;
        body.left = left.data() + begin * depth_;
        body.right = right.data();
        body.scale = scale.data();
        body.bias = bias.data();
        body.depth = depth_;
        body.panel0 = panel0;
        body.panel1 = std::min(panels, panel0 + panels_a_task);
        with_rows(end - begin, body);
        best.merge(begin, body.found, body.index, end - begin);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const int64_t found = best.index(i) < 0 ? -1 : keys_[best.index(i)];
      const T score = best.score(i);
      s_.matches.merge(queries_[i], &score, &found, 1);
    }
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // Packs patches as columns, out[depth][ld]; columns beyond `count` become zero.
  void gather(const ImageView<T>& image,
              const int64_t* origins,
              int64_t count,
              int64_t grid_width,
              int64_t ld,
              T* out) const {
    int64_t offsets[kPanel<T> > kRowTile ? kPanel<T> : kRowTile];
    for (int64_t j = 0; j < count; ++j)
      offsets[j] =
          origins[j] / grid_width * image.stride_h + origins[j] % grid_width * image.stride_w;
    bool run = count == kPanel<T> && ld == kPanel<T>;
    for (int64_t j = 1; j < count; ++j) run = run && offsets[j] == offsets[0] + j;
    for (int64_t dy = 0; dy < s_.k; ++dy) {
      for (int64_t dx = 0; dx < s_.k; ++dx) {
        for (int64_t c = 0; c < s_.args.channels; ++c, out += ld) {
          const T* from = image.data + s_.n * image.stride_n + dy * image.stride_h +
                          dx * image.stride_w + c * image.stride_c;
          if (run) {
            store(out, load(from + offsets[0]));
            store(out + W, load(from + offsets[0] + W));
            continue;
          }
          for (int64_t j = 0; j < count; ++j) out[j] = from[offsets[j]];
          for (int64_t j = count; j < ld; ++j) out[j] = T(0);
        }
      }
    }
  }

  // Scale and bias of one packed panel of keys, norms summed in double.
  void score_terms(const T* panel, int64_t count, T* scale, T* bias) const {
    double square[kPanel<T>] = {};
    for (int64_t d = 0; d < depth_; ++d)
      for (int64_t j = 0; j < kPanel<T>; ++j)
        square[j] += double(panel[d * kPanel<T> + j]) * double(panel[d * kPanel<T> + j]);
    for (int64_t j = 0; j < kPanel<T>; ++j) {
      scale[j] = j < count ? key_scale<T>(s_.args.cosine, square[j]) : T(0);
      bias[j] = j < count ? key_bias<T>(s_.args.cosine, square[j]) : kMinusInfinity<T>;
    }
  }

  struct Tile {
    const T *left, *right, *scale, *bias;
    int64_t depth, panel0, panel1;
    T found[kRowTile];
    int64_t index[kRowTile];

    template <int ROWS>
    void run() {
      for (int r = 0; r < ROWS; ++r) {
        found[r] = kMinusInfinity<T>;
        index[r] = -1;
      }
      for (int64_t panel = panel0; panel < panel1; ++panel) {
        Accumulator<T, ROWS, 2> sum;
        sum.clear();
        sum.add(left, right + panel * kPanel<T> * depth, kPanel<T>, depth);
        const T* s = scale + panel * kPanel<T>;
        const T* b = bias + panel * kPanel<T>;
        alignas(64) T scores[ROWS][2 * W];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
          store(scores[r], sum.v[r][0] * load(s) + load(b));
          store(scores[r] + W, sum.v[r][1] * load(s + W) + load(b + W));
        }
        for (int r = 0; r < ROWS; ++r) {
          const Vector<T> limit = broadcast(found[r]);
          if (!any_greater<T>(load(scores[r]), limit) &&
              !any_greater<T>(load(scores[r] + W), limit))
            continue;
          for (int64_t j = 0; j < 2 * W; ++j) {
            if (scores[r][j] > found[r]) {
              found[r] = scores[r][j];
              index[r] = panel * kPanel<T> + j;
            }
          }
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
