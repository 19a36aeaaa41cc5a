// Nearest patches near guesses: the local search of a coarse-to-fine matcher.
//
// Algebra: a query patch p takes the guesses of p, p - (0, r), p + (0, r), p - (r, 0), p + (r, 0),
// with r = reach, each moved back by the same step. Candidates are all key patches within `radius`
// of one of them. Squared distances are summed from differences, not through norms, so they are
// exact for near-copies. A candidate is dropped at the first patch row that takes it above the best
// so far.
//
// Tiling: a task is a row of query patches. Both images are packed with the channels of a pixel
// together, so a patch row is one run of patch * channels numbers. The query patch is copied once
// into rows of whole vectors. Key rows are read unaligned; a select cuts off the lanes beyond the
// row, which may hold NaN.
//
// Traffic: patch^2 * C numbers a candidate, mostly from the first-level cache, since the windows of
// neighbours overlap. Of the key image only tiles with candidates are packed, so that few guesses
// cost the same in an image of any size. Memory: two packed images and one byte a key patch, of
// which the rest is never touched.
#include "matching/refine_patch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <class T>
class Refiner {
 public:
  Refiner(const RefinePatchArgs<T>& args, int64_t n)
      : a_(args),
        n_(n),
        k_(args.patch),
        query_rows_(args.query_height - k_ + 1),
        query_cols_(args.query_width - k_ + 1),
        key_rows_(args.key_height - k_ + 1),
        key_cols_(args.key_width - k_ + 1),
        vectors_(ceil_div(k_ * args.channels, W)),
        query_(args.query_height * args.query_width * args.channels + W),
        key_(args.key_height * args.key_width * args.channels + W),
        usable_(key_rows_ * key_cols_),
        pixel_tiles_(size_t(tiles_across(args.key_height) * tiles_across(args.key_width)), false),
        patch_tiles_(size_t(tiles_across(key_rows_) * tiles_across(key_cols_)), false) {}

  void run() {
    parallel_tasks(tiles_across(a_.query_height), a_.threads, [&](int64_t i) {
      const int64_t end = std::min(a_.query_height, (i + 1) * kTile);
      pack(a_.query, Rectangle{i * kTile, end, 0, a_.query_width}, a_.query_width, query_.data());
    });
    for (int64_t i = 0; i < W; ++i) {
      query_[a_.query_height * a_.query_width * a_.channels + i] = T(0);
      key_[a_.key_height * a_.key_width * a_.channels + i] = T(0);
    }
    mark_candidates();
    each_marked(pixel_tiles_, a_.key_height, a_.key_width, [&](const Rectangle& tile) {
      pack(a_.key, tile, a_.key_width, key_.data());
    });
    each_marked(
        patch_tiles_, key_rows_, key_cols_, [&](const Rectangle& tile) { find_usable(tile); });
    parallel_tasks(query_rows_, a_.threads, [&](int64_t y) { match_row(y); });
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int kGuesses = 5;

  struct Box {  // centre of a window of key patches
    int64_t y, x;
  };

  static constexpr int64_t kTile = 32;

  struct Rectangle {
    int64_t y0, y1, x0, x1;
  };

  static int64_t tiles_across(int64_t size) { return ceil_div(size, kTile); }

  void pack(const ImageView<T>& image, const Rectangle& part, int64_t width, T* out) const {
    const int64_t channels = a_.channels;
    for (int64_t y = part.y0; y < part.y1; ++y) {
      const T* from = image.data + n_ * image.stride_n + y * image.stride_h;
      T* to = out + (y * width + part.x0) * channels;
      for (int64_t x = part.x0; x < part.x1; ++x, to += channels)
        for (int64_t c = 0; c < channels; ++c)
          to[c] = from[x * image.stride_w + c * image.stride_c];
    }
  }

  // Marks the tiles of key patches with a candidate, and those of their pixels.
  void mark_candidates() {
    const int64_t r = a_.radius;
    Box boxes[kGuesses];
    for (int64_t y = 0; y < query_rows_; ++y) {
      const uint8_t* where = where_row(y);
      for (int64_t x = 0; x < query_cols_; ++x) {
        if (where && !where[x]) continue;
        const int count = find_boxes(y, x, boxes);
        for (int b = 0; b < count; ++b) {
          const Rectangle window = around(boxes[b], r);
          if (window.y0 >= window.y1 || window.x0 >= window.x1) continue;
          mark(patch_tiles_, window, 0, tiles_across(key_cols_));
          mark(pixel_tiles_, window, k_ - 1, tiles_across(a_.key_width));
        }
      }
    }
  }

  static void mark(std::vector<char>& tiles, const Rectangle& r, int64_t more, int64_t across) {
    for (int64_t y = r.y0 / kTile; y <= (r.y1 - 1 + more) / kTile; ++y)
      for (int64_t x = r.x0 / kTile; x <= (r.x1 - 1 + more) / kTile; ++x)
        tiles[size_t(y * across + x)] = true;
  }

  // Key patches at most r rows and columns away.
  Rectangle around(const Box& box, int64_t r) const {
    return Rectangle{std::max<int64_t>(box.y - r, 0),
                     std::min(box.y + r + 1, key_rows_),
                     std::max<int64_t>(box.x - r, 0),
                     std::min(box.x + r + 1, key_cols_)};
  }

  template <class Body>
  void each_marked(const std::vector<char>& tiles,
                   int64_t height,
                   int64_t width,
                   const Body& body) const {
    const int64_t across = tiles_across(width);
    parallel_tasks(tiles_across(height), a_.threads, [&](int64_t row) {
      for (int64_t column = 0; column < across; ++column) {
        if (!tiles[size_t(row * across + column)]) continue;
        const int64_t y = row * kTile, x = column * kTile;
        body(Rectangle{y, std::min(height, y + kTile), x, std::min(width, x + kTile)});
      }
    });
  }

  // Patches of a tile whose pixels are all valid.
  void find_usable(const Rectangle& tile) {
    const int64_t columns = tile.x1 - tile.x0, width = columns + k_ - 1;
    if (!a_.valid.data) {
      for (int64_t y = tile.y0; y < tile.y1; ++y)
        std::memset(usable_.data() + y * key_cols_ + tile.x0, 1, size_t(columns));
      return;
    }
    // Invalid pixels a column, of the rows of a patch; the window slides down.
    const uint8_t* valid = a_.valid.data + n_ * a_.valid.stride_n;
    std::vector<int64_t> bad(size_t(width), 0);
    const auto add = [&](int64_t y, int64_t sign) {
      const uint8_t* row = valid + y * a_.key_width + tile.x0;
      for (int64_t x = 0; x < width; ++x) bad[size_t(x)] += row[x] ? 0 : sign;
    };
    for (int64_t y = tile.y0; y < tile.y0 + k_ - 1; ++y) add(y, 1);
    for (int64_t y = tile.y0; y < tile.y1; ++y) {
      add(y + k_ - 1, 1);
      int64_t sum = 0;
      for (int64_t x = 0; x < k_ - 1; ++x) sum += bad[size_t(x)];
      for (int64_t x = 0; x < columns; ++x) {
        sum += bad[size_t(x + k_ - 1)];
        usable_[y * key_cols_ + tile.x0 + x] = sum == 0;
        sum -= bad[size_t(x)];
      }
      add(y, -1);
    }
  }

  const uint8_t* where_row(int64_t y) const {
    return a_.where.data ? a_.where.data + n_ * a_.where.stride_n + y * query_cols_ : nullptr;
  }

  void match_row(int64_t y) {
    const int64_t size = query_rows_ * query_cols_;
    const uint8_t* where = where_row(y);
    Buffer<T> patch(k_ * vectors_ * W);
    const Vector<T> lanes = last_lanes();
    for (int64_t x = 0; x < query_cols_; ++x) {
      const int64_t o = n_ * size + y * query_cols_ + x;
      a_.index[o] = -1;
      a_.distance[o] = std::numeric_limits<T>::infinity();
      if (where && !where[x]) continue;
      Box boxes[kGuesses];
      const int count = find_boxes(y, x, boxes);
      if (count == 0) continue;
      copy_patch(y, x, patch.data());
      search(boxes, count, patch.data(), lanes, a_.index + o, a_.distance + o);
    }
  }

  // 1 in those lanes of a row's last vector that belong to the row, 0 in the others.
  Vector<T> last_lanes() const {
    T lanes[W];
    for (int64_t i = 0; i < W; ++i)
      lanes[i] = (vectors_ - 1) * W + i < k_ * a_.channels ? T(1) : T(0);
    return load(lanes);
  }

  int find_boxes(int64_t y, int64_t x, Box* boxes) const {
    static constexpr int64_t kSteps[kGuesses][2] = {{0, 0}, {0, -1}, {0, 1}, {-1, 0}, {1, 0}};
    int count = 0;
    for (const auto& step : kSteps) {
      const int64_t dy = step[0] * a_.reach, dx = step[1] * a_.reach;
      const int64_t gy = y + dy, gx = x + dx;
      if (gy < 0 || gy >= query_rows_ || gx < 0 || gx >= query_cols_) continue;
      const int64_t guess = a_.guess[(n_ * query_rows_ + gy) * query_cols_ + gx];
      if (guess < 0 || guess >= key_rows_ * key_cols_) continue;
      const Box box{guess / key_cols_ - dy, guess % key_cols_ - dx};
      bool known = false;
      for (int i = 0; i < count; ++i) known |= boxes[i].y == box.y && boxes[i].x == box.x;
      if (!known) boxes[count++] = box;
    }
    return count;
  }

  void copy_patch(int64_t y, int64_t x, T* out) const {
    const int64_t row = k_ * a_.channels;
    for (int64_t d = 0; d < k_; ++d, out += vectors_ * W) {
      std::memcpy(out,
                  query_.data() + ((y + d) * a_.query_width + x) * a_.channels,
                  sizeof(T) * size_t(row));
      for (int64_t i = row; i < vectors_ * W; ++i) out[i] = T(0);
    }
  }

  void search(const Box* boxes,
              int count,
              const T* patch,
              Vector<T> lanes,
              int64_t* index,
              T* distance) const {
    const int64_t r = a_.radius;
    for (int b = 0; b < count; ++b) {
      const Rectangle window = around(boxes[b], r);
      for (int64_t y = window.y0; y < window.y1; ++y) {
        for (int64_t x = window.x0; x < window.x1; ++x) {
          const int64_t i = y * key_cols_ + x;
          if (!usable_[i] || seen(boxes, b, y, x)) continue;
          const T d = patch_distance(patch, y, x, lanes, *distance);
          if (d < *distance || (d == *distance && i < *index)) {
            *distance = d;
            *index = i;
          }
        }
      }
    }
  }

  // True if the window of an earlier guess holds (y, x).
  bool seen(const Box* boxes, int before, int64_t y, int64_t x) const {
    for (int b = 0; b < before; ++b) {
      const int64_t dy = y - boxes[b].y, dx = x - boxes[b].x;
      if (dy <= a_.radius && -dy <= a_.radius && dx <= a_.radius && -dx <= a_.radius) return true;
    }
    return false;
  }

  // Squared distance; where it exceeds `limit`, any number above the limit or NaN.
  T patch_distance(const T* patch, int64_t y, int64_t x, Vector<T> lanes, T limit) const {
    Vector<T> sum{};
    const int64_t stride = a_.key_width * a_.channels;
    const T* row = key_.data() + (y * a_.key_width + x) * a_.channels;
    T total = 0;
    for (int64_t d = 0; d < k_; ++d, row += stride, patch += vectors_ * W) {
      for (int64_t v = 0; v < vectors_ - 1; ++v) {
        const Vector<T> difference = load(row + v * W) - load(patch + v * W);
        sum = multiply_add(difference, difference, sum);
      }
      const Vector<T> last = load(row + (vectors_ - 1) * W) - load(patch + (vectors_ - 1) * W);
      const Vector<T> cut = lanes > Vector<T>{} ? last : Vector<T>{};
      sum = multiply_add(cut, cut, sum);
      total = horizontal_sum<T>(sum);
      if (!(total <= limit)) return total;
    }
    return total;
  }

  const RefinePatchArgs<T>& a_;
  const int64_t n_, k_, query_rows_, query_cols_, key_rows_, key_cols_, vectors_;
  Buffer<T> query_, key_;
  Buffer<uint8_t> usable_;
  std::vector<char> pixel_tiles_, patch_tiles_;  // marked: with a candidate
};

}  // namespace

template <class T>
void refine_patch(const RefinePatchArgs<T>& args) {
  const int64_t rows = args.query_height - args.patch + 1,
                columns = args.query_width - args.patch + 1;
  if (rows <= 0 || columns <= 0) return;
  if (args.key_height < args.patch || args.key_width < args.patch || args.channels == 0) {
    for (int64_t i = 0; i < args.batch * rows * columns; ++i) {
      args.index[i] = -1;
      args.distance[i] = std::numeric_limits<T>::infinity();
    }
    return;
  }
  RefinePatchArgs<T> a = args;
  // Below this waking a second thread costs more than it saves.
  if (rows * columns < 4096) a.threads = 1;
  for (int64_t n = 0; n < args.batch; ++n) Refiner<T>(a, n).run();
}

template void refine_patch<float>(const RefinePatchArgs<float>&);
template void refine_patch<double>(const RefinePatchArgs<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
