// Gradient of contextual attention through its products: from products of patches to pixels.
//
// Algebra: dG is the 3 x 3 diagonal sums of dT; df = dG * keys, dkeys = dG^T f.
// Tiling: one query row at a time; tiles of query columns (df), chunks of keys (dkeys).
// Traffic: a strip of dG, written once and read twice; the keys once for each group of tiles.
#pragma once

#include "attention/blocks.h"

namespace inpaint {
namespace INPAINT_ISA {

// From dT, the gradient of the products of patches, to those of the picked pixels and keys.
template <class T>
class ProductGradient {
 public:
  // sums: dT of the columns [first, last) of the window, in rows of w1 numbers.
  ProductGradient(const GradientWindow<T>& window,
                  BlockStrips<T>& sums,
                  BackgroundGradient<T>& background)
      : w_(window),
        s_(window.s),
        sums_(sums),
        bg_(background),
        products_(1, window.end - window.begin, s_.hb, s_.w1) {}

  // dG of query row y, and with it the gradients of the picked pixels.
  void compute(int64_t y) {
    const int64_t count = s_.hb * s_.w1;
    parallel_tasks(w_.end - w_.begin, s_.threads, [&](int64_t i) {
      const int64_t x = w_.begin + i;
      std::vector<const T*> from;
      for (int64_t dy = -1; dy <= 1; ++dy)
        for (int64_t dx = -1; dx <= 1; ++dx)
          if (y + dy >= 0 && y + dy < s_.h && x + dx >= 0 && x + dx < s_.w)
            from.push_back(sums_.row(y + dy, x + dx - w_.first) + dy * s_.w1 + dx);
      T* const to = products_.row(0, i);
      add_up(from.data(), int64_t(from.size()), 0, count, to);
      // The place after the last key of a row holds no key.
      for (int64_t v = 0; v < s_.hb; ++v) to[v * s_.w1 + s_.wb] = 0;
      std::fill_n(to + count, W, T(0));
    });
    write_fg(y);
    const int64_t columns = w_.end - w_.begin;
    Buffer<T> queries(bg_.key_panels * columns * kPanel<T>);
    std::vector<int64_t> at;
    for (int64_t i = 0; i < columns; ++i)
      at.push_back(s_.query_xs[w_.begin + i] * s_.args.fg.stride_w);
    pack_vectors(s_.query_row(y),
                 s_.args.fg.stride_c,
                 s_.channels,
                 at.data(),
                 columns,
                 columns,
                 queries.data());
    const TransposedSum<T> sum{products_.row(0, 0),
                               products_.ld,
                               columns,
                               queries.data(),
                               bg_.key_panels,
                               bg_.grad_keys.data(),
                               count};
    parallel_tasks(sum.chunks(), s_.threads, [&](int64_t chunk) { sum.run(chunk); });
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  void write_fg(int64_t y) {
    const int64_t columns = w_.end - w_.begin;
    const int64_t parts = ceil_div(tile_count(columns), 2), count = s_.hb * s_.w1;
    parallel_tasks(parts, s_.threads, [&](int64_t part) {
      const int64_t begin = columns * part / parts, end = columns * (part + 1) / parts;
      WeightedSum<T> sum(bg_.key_vectors.data(), count, bg_.key_panels, end - begin);
      for (int64_t k = 0; k < count; k += WeightedSum<T>::kPiece) {
        const int64_t width = std::min(WeightedSum<T>::kPiece, count - k);
        for (int64_t tile = 0; tile < sum.tiles(); ++tile) {
          sum.prepare(tile, width);
          for (int64_t x = sum.begin(tile); x < sum.end(tile); ++x)
            std::memcpy(sum.weights(tile, x - sum.begin(tile)),
                        products_.row(0, begin + x) + k,
                        sizeof(T) * round_up(width, W));
          sum.push(tile, k, width);
        }
      }
      sum.flush();
      const OutputView<T>& out = w_.gradient.grad_fg;
      T* row = out.data + s_.n * out.stride_n + s_.query_ys[y] * out.stride_h;
      for (int64_t c = 0; c < s_.channels; ++c)
        for (int64_t x = begin; x < end; ++x)
          row[c * out.stride_c + s_.query_xs[w_.begin + x] * out.stride_w] +=
              sum.sums(x - begin)[c];
    });
  }

  const GradientWindow<T>& w_;
  const AttentionSample<T>& s_;
  BlockStrips<T>& sums_;
  BackgroundGradient<T>& bg_;
  BlockStrips<T> products_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
