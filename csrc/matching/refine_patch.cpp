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
// neighbours overlap. Memory: two packed images and one byte a key patch.
#include "matching/refine_patch.h"

#include <limits>

#include "base/parallel.h"
#include "matching/patch_norms.h"

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
        usable_(key_rows_ * key_cols_) {}

  void run() {
    const uint8_t* valid = a_.valid.data ? a_.valid.data + n_ * a_.valid.stride_n : nullptr;
    pack(a_.query, a_.query_height, a_.query_width, nullptr, query_.data());
    pack(a_.key, a_.key_height, a_.key_width, valid, key_.data());
    find_usable(valid);
    parallel_tasks(query_rows_, a_.threads, [&](int64_t y) { match_row(y); });
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int kGuesses = 5;

  struct Box {  // centre of a window of key patches
    int64_t y, x;
  };

  void pack(const ImageView<T>& image,
            int64_t height,
            int64_t width,
            const uint8_t* valid,
            T* out) const {
    const int64_t channels = a_.channels, row = width * channels;
    for (int64_t i = 0; i < W; ++i) out[height * row + i] = T(0);
    parallel_tasks(ceil_div(height, 16), a_.threads, [&](int64_t task) {
      const int64_t end = task * 16 + 16 < height ? task * 16 + 16 : height;
      for (int64_t y = task * 16; y < end; ++y) {
        const T* from = image.data + n_ * image.stride_n + y * image.stride_h;
        for (int64_t x = 0; x < width; ++x) {
          const bool use = !valid || valid[y * width + x];
          T* to = out + y * row + x * channels;
          for (int64_t c = 0; c < channels; ++c)
            to[c] = use ? from[x * image.stride_w + c * image.stride_c] : T(0);
        }
      }
    });
  }

  void find_usable(const uint8_t* valid) {
    if (!valid) {
      std::memset(usable_.data(), 1, size_t(key_rows_ * key_cols_));
      return;
    }
    const auto bad = [&](int64_t i) { return valid[i] == 0; };
    whole_patches(a_.key_height, a_.key_width, k_, 0, a_.threads, bad, usable_.data());
  }

  void match_row(int64_t y) {
    const int64_t size = query_rows_ * query_cols_;
    const uint8_t* where =
        a_.where.data ? a_.where.data + n_ * a_.where.stride_n + y * query_cols_ : nullptr;
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
      const int64_t y0 = boxes[b].y - r < 0 ? 0 : boxes[b].y - r;
      const int64_t y1 = boxes[b].y + r >= key_rows_ ? key_rows_ - 1 : boxes[b].y + r;
      const int64_t x0 = boxes[b].x - r < 0 ? 0 : boxes[b].x - r;
      const int64_t x1 = boxes[b].x + r >= key_cols_ ? key_cols_ - 1 : boxes[b].x + r;
      for (int64_t y = y0; y <= y1; ++y) {
        for (int64_t x = x0; x <= x1; ++x) {
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
      total = 0;
      for (int64_t i = 0; i < W; ++i) total += sum[i];
      if (!(total <= limit)) return total;
    }
    return total;
  }

  const RefinePatchArgs<T>& a_;
  const int64_t n_, k_, query_rows_, query_cols_, key_rows_, key_cols_, vectors_;
  Buffer<T> query_, key_;
  Buffer<uint8_t> usable_;
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
  if (rows * columns < 32768) a.threads = 1;
  for (int64_t n = 0; n < args.batch; ++n) Refiner<T>(a, n).run();
}

template void refine_patch<float>(const RefinePatchArgs<float>&);
template void refine_patch<double>(const RefinePatchArgs<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
