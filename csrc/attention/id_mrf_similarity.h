// Cosines and relative similarities of the ID-MRF loss, a few generated positions at a time.
//
// Algebra, with c[p, q] the cosine of target p and generated q, h the bandwidth, and for a fixed q:
//   m = max over p of c[p, q],   d = (1 - m) / 2,   a = 1 / (2 h (d + eps)),
//   s[p, q] = exp(a (c[p, q] - m)) / sum over p.
// So the relative similarity, normalised over targets, is a softmax of a row of cosines.
//
// With exclude_self the first target b that has the maximum is measured by the second greatest
// cosine m2 instead: a2 = 1 / (2 h (d2 + eps)). Its exponent then exceeds all others by
// shift = 2 d (a - a2) more, so s[p, q] = exp(a (c[p, q] - m) - shift) / sum for p != b.
//
// Tiling: register tiles of kRowTile generated positions x one panel of targets. Traffic: the
// targets are packed once a sample and read once for each tile of rows.
#pragma once

#include "attention/id_mrf_loss.h"
#include "base/vector_math.h"
#include "matching/patch_pack.h"

namespace inpaint {
namespace INPAINT_ISA {

// Offsets of the positions of a sample, in elements. They are listed because a division for each
// position would cost more than the rest of a copy.
inline std::vector<int64_t> offsets(
    int64_t height, int64_t width, int64_t start, int64_t stride_h, int64_t stride_w) {
  std::vector<int64_t> at;
  at.reserve(height * width);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) at.push_back(start + y * stride_h + x * stride_w);
  return at;
}

template <class View>
std::vector<int64_t> offsets(const View& view, int64_t n, int64_t height, int64_t width) {
  return offsets(height, width, n * view.stride_n, view.stride_h, view.stride_w);
}

template <class T>
class Similarity {
 public:
  Similarity(const IdMrfArgs<T>& args, int64_t n)
      : channels(args.channels),
        positions(args.height * args.width),
        width(round_up(positions, kPanel<T>)),
        generated(offsets(args.generated, n, args.height, args.width)),
        target(offsets(args.target, n, args.height, args.width)),
        args_(args),
        targets_(width * channels) {
    const PixelColumns<T> columns(target, kPanel<T>);
    parallel_tasks(columns.groups(), args.threads, [&](int64_t group) {
      columns.pack_group(args.target.data, args.target.stride_c, channels, group, targets_.data());
    });
  }

  // Cosines of some generated positions with all targets, rows of `width` numbers.
  void cosines(const int64_t* q, int64_t count, T* scratch, T* out) const {
    std::vector<int64_t> at;
    for (int64_t i = 0; i < count; ++i) at.push_back(generated[q[i]]);
    PixelColumns<T>(std::move(at), count)
        .pack(args_.generated.data, args_.generated.stride_c, channels, scratch);
    ProductTile<T> body{scratch, targets_.data(), out, width, channels, width / Simd<T>::kWidth};
    with_rows(count, body);
  }

  // Numbers of the softmax of one row of cosines.
  struct Row {
    T max, factor, sum;
    int64_t best;
    // With exclude_self the next best and the factor of the best.
    int64_t second = -1;
    T second_factor = 0;
  };

  // Replaces the cosines of a row by its similarities.
  Row normalise(T* row) const {
    constexpr int64_t W = Simd<T>::kWidth;
    std::fill(row + positions, row + width, kMinusInfinity<T>);
    Row result;
    result.max = greatest(row);
    result.best = first(row, result.max);
    result.factor = factor(result.max);
    T shift = 0;
    const bool excludes = args_.exclude_self && positions > 1;
    if (excludes) {
      row[result.best] = kMinusInfinity<T>;
      const T next = greatest(row);
      result.second = first(row, next);
      result.second_factor = factor(next);
      shift = (1 - result.max) * (result.factor - result.second_factor);
    }
    Vector<T> sums = {};
    for (int64_t p = 0; p < width; p += W) {
      const Vector<T> e = exp<T>((load(row + p) - result.max) * result.factor - shift);
      store(row + p, e);
      sums += e;
    }
    result.sum = 0;
    for (int64_t i = 0; i < W; ++i) result.sum += sums[i];
    if (excludes) {
      row[result.best] = 1;
      result.sum += 1;
    }
    const T scale = 1 / result.sum;
    for (int64_t p = 0; p < width; p += W) store(row + p, load(row + p) * scale);
    return result;
  }

  const int64_t channels, positions, width;
  const std::vector<int64_t> generated, target;  // offsets of the positions

 private:
  T factor(T max) const { return 1 / (2 * args_.bandwidth * ((1 - max) / 2 + args_.eps)); }

  T greatest(const T* row) const {
    Vector<T> top = broadcast(kMinusInfinity<T>);
    for (int64_t p = 0; p < width; p += Simd<T>::kWidth) top = max_or_second<T>(load(row + p), top);
    return horizontal_max<T>(top);
  }

  int64_t first(const T* row, T value) const {
    int64_t at = 0;
    while (at + 1 < positions && !(row[at] == value)) ++at;
    return at;
  }

  const IdMrfArgs<T>& args_;
  Buffer<T> targets_;  // [panel][channel][kPanel]
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
