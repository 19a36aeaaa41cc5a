// Gradient of contextual attention through its paste: from dy to the values and to the attention.
//
// Algebra: with E the 2 x 2 diagonal sums of the attention, the paste is y = E * values. So
// dE = dy * values and dvalues = E^T dy, both products over blocks of rate x rate pixels. Where a
// whole panel of E is zero, dE is not formed: nothing reads it.
//
// Tiling: tiles of a row of blocks (dE), chunks of blocks (dvalues). Traffic: a strip of E and one
// of dE a row of blocks; the values are read once for each tile.
#pragma once

#include "attention/background.h"

namespace inpaint {
namespace INPAINT_ISA {

// A window of query columns, and the columns around it that its gradient reads.
template <class T>
struct GradientWindow {
  // A query column, and the place of the block to its left.
  struct Column {
    int64_t x, block;
  };

  // Columns of blocks K .. K + count, and the place of the first.
  struct BlockTile {
    int64_t K, count, place;
  };

  GradientWindow(const AttentionSample<T>& sample,
                 const ContextualAttentionGradient<T>& gradient,
                 int64_t begin,
                 int64_t end)
      : s(sample),
        gradient(gradient),
        ahead(sample.args.fuse ? 2 : 0),
        begin(begin),
        end(end),
        first(std::max<int64_t>(begin - 1, 0)),
        last(std::min(end + 1, sample.w)),
        near(first, last, sample.w, ahead),
        far(first, last, sample.w, 2 * ahead),
        block_columns(near.columns + int64_t(near.segments.size())) {
    int64_t place = 0;
    for (const QueryWindow::Segment& segment : near.segments) {
      const int64_t count = segment.end - segment.begin + 1;
      for (int64_t i = 0; i + 1 < count; ++i) columns.push_back({segment.begin + i, place + i});
      for (int64_t tile = 0; tile < tile_count(count); ++tile) {
        const int64_t i = tile_begin(count, tile);
        tiles.push_back({segment.begin + i, tile_begin(count, tile + 1) - i, place + i});
      }
      if (segment.begin <= begin && begin < segment.end) own_place = place + begin - segment.begin;
      place += count;
    }
  }

  // Number of columns of blocks whose values get their gradient from this window.
  int64_t own_blocks() const { return end - begin + (end == s.w); }

  const AttentionSample<T>& s;
  const ContextualAttentionGradient<T>& gradient;
  const int64_t ahead;
  // Query columns, each range wider than the one before: [begin, end) get their gradient here and
  // read dT of [first, last), which reads dM of `near`, which reads scores of `far`.
  const int64_t begin, end, first, last;
  const QueryWindow near, far;
  const int64_t block_columns;
  std::vector<Column> columns;  // of near
  std::vector<BlockTile> tiles;
  int64_t own_place = 0;
};

// One row of blocks at a time: the 2 x 2 diagonal sums E of the attention, dE = dy * values, and
// the gradient of the values, E^T dy.
template <class T>
class BlockGradient {
 public:
  BlockGradient(const GradientWindow<T>& window,
                AttentionStrips<T>& attention,
                BackgroundGradient<T>& background)
      : grad(2, window.block_columns, window.s.hb + 1, window.s.w1),
        w_(window),
        s_(window.s),
        attention_(attention),
        bg_(background),
        blocks_(1, window.block_columns, s_.hb + 1, s_.w1),
        grad_rows_((window.end - window.begin + 1) * background.panels * kPanel<T>),
        grad_columns_(window.block_columns * background.columns) {}

  // E and dE of row R of blocks; with `values` adds their products to the gradient of the values.
  void compute(int64_t R, bool values) {
    pack_gradient(R);
    parallel_tasks(
        int64_t(w_.tiles.size()), s_.threads, [&](int64_t i) { block_tile(R, w_.tiles[i]); });
    if (!values) return;
    const TransposedSum<T> sum{blocks_.row(0, w_.own_place),
                               blocks_.ld,
                               w_.own_blocks(),
                               grad_rows_.data(),
                               bg_.panels,
                               bg_.grad_values.data(),
                               s_.blocks_count};
    parallel_tasks(sum.chunks(), s_.threads, [&](int64_t chunk) { sum.run(chunk); });
  }

  BlockStrips<T> grad;  // dE of the last two rows of blocks

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // dy of row R of blocks, as vectors of rate * rate * C numbers, divided as in the forward pass.
  void pack_gradient(int64_t R) {
    const ContextualAttentionArgs<T>& args = s_.args;
    const int64_t columns = s_.w + 1, ld = bg_.panels * kPanel<T>;
    Buffer<T> blocks(columns * ld);
    block_row(w_.gradient.grad, s_, args.fg_height, args.fg_width, columns, R, ld, blocks.data());
    const int64_t patches = (R > 0) + (R < s_.h);
    for (int64_t K = 0; K < columns; ++K) {
      const int64_t over = patches * ((K > 0) + (K < s_.w));
      const T factor = T(1) / T(args.count ? over : 4);
      for (int64_t q = 0; q < ld; ++q) blocks[K * ld + q] *= factor;
    }
    const int64_t own = w_.own_blocks();
    for (int64_t panel = 0; panel < bg_.panels; ++panel)
      for (int64_t i = 0; i < own; ++i)
        std::memcpy(grad_rows_.data() + (panel * own + i) * kPanel<T>,
                    blocks.data() + (w_.begin + i) * ld + panel * kPanel<T>,
                    sizeof(T) * kPanel<T>);
    for (const typename GradientWindow<T>::BlockTile& tile : w_.tiles) {
      T* to = grad_columns_.data() + tile.place * bg_.columns;
      for (int64_t q = 0; q < bg_.columns; ++q)
        for (int64_t i = 0; i < tile.count; ++i) *to++ = blocks[(tile.K + i) * ld + q];
    }
  }

  void block_tile(int64_t R, const typename GradientWindow<T>::BlockTile& tile) {
    std::vector<ResultBlock> places;
    for (int64_t i = 0; i < tile.count; ++i) places.push_back({R, tile.K + i});
    const typename AttentionStrips<T>::Blocks blocks(attention_, places.data(), tile.count);
    std::vector<uint8_t> wanted(bg_.block_panels, 0);
    Buffer<T> line(s_.w1 + W);
    for (int64_t V = 0; V <= s_.hb; ++V) {
      for (int64_t r = 0; r < tile.count; ++r) {
        T* to = blocks_.row(0, tile.place + r) + V * s_.w1;
        if (!blocks.any(V)) {
          std::fill_n(to, s_.w1, T(0));
          continue;
        }
        blocks.write(r, V, 0, s_.w1, line.data());
        std::memcpy(to, line.data(), sizeof(T) * s_.w1);
        for (int64_t j = 0; j < s_.w1; ++j) wanted[(V * s_.w1 + j) / kPanel<T>] |= line[j] != T(0);
      }
    }
    for (int64_t panel = 0; panel < bg_.block_panels; ++panel) {
      if (!wanted[panel]) continue;
      // The last panel reaches into the zeros after a query, which nothing reads.
      Product body{grad_columns_.data() + tile.place * bg_.columns,
                   bg_.values.data() + panel * bg_.columns * kPanel<T>,
                   grad.row(R, tile.place) + panel * kPanel<T>,
                   grad.ld,
                   bg_.columns,
                   std::min(kPanel<T>, s_.blocks_count - panel * kPanel<T>)};
      with_rows(tile.count, body);
    }
  }

  // One panel of dE.
  struct Product {
    const T *left, *right;
    T* out;
    int64_t ld, depth, width;

    template <int ROWS>
    void run() {
      Accumulator<T, ROWS, 2> sum;
      sum.clear();
      sum.add(left, right, kPanel<T>, depth);
      T lanes[kPanel<T>];
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        store(lanes, sum.v[r][0]);
        store(lanes + W, sum.v[r][1]);
        std::memcpy(out + r * ld, lanes, sizeof(T) * width);
      }
    }
  };

  const GradientWindow<T>& w_;
  const AttentionSample<T>& s_;
  AttentionStrips<T>& attention_;
  BackgroundGradient<T>& bg_;
  BlockStrips<T> blocks_;
  Buffer<T> grad_rows_, grad_columns_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
