// Contextual attention without patches and without the matrix of scores.
//
// Algebra: with G the products of pixels, a score is the sum of G over the 3 x 3 diagonal
// neighbours, divided by the norm of the key patch. The paste is a product of 2 x 2 diagonal sums
// of the attention with the pixels themselves. That makes 5 C multiply-adds a pair of cells instead
// of 25 C, and it is exact, borders included.
//
// Tiling: a window of query columns at a time, and in it strips of a few query rows x all keys.
// A strip passes three stages: products and box sums (attention/scores.h, chains of row pairs in
// the second-level cache), fuse sums and softmax (attention/sample.h and softmax.h, a query at a
// time), paste (attention/paste.h and weighted_sum.h, a row of blocks at a time). Threads divide
// each stage; nothing is summed across threads, so their number changes no bit.
//
// Wanted pixels: what none of them needs is left out (attention/needed.h), by blocks of the result,
// queries of the softmax and pixels of the products. A result has the same bits whatever else is
// wanted: its sums have their order whatever they are tiled with.
//
// Traffic and memory: about 14 strips of at most 16 MB (more only where 28 columns need more), and
// copies of the features. Scores and attention never exist as a whole.
#include "attention/contextual_attention.h"

#include "attention/paste.h"
#include "attention/scores.h"
#include "attention/softmax.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <class T>
class Forward {
 public:
  Forward(const AttentionSample<T>& sample,
          const CellMap& wanted,
          const ContextualAttentionResult<T>& result)
      : s_(sample),
        result_(result),
        threads_(sample.threads),
        columns_(sample.rate * sample.rate * sample.channels),
        panels_(ceil_div(columns_, kPanel<T>)),
        values_(panels_ * sample.blocks_count * kPanel<T>),
        // A value that is not finite spoils the sums of its whole tile, so then the tiles are those
        // of a whole computation.
        wanted_(pack_values() ? wanted : CellMap(wanted.rows, wanted.columns, true)),
        fuse_(sample.hb, sample.wb, false) {
    // With the fuse step each window computes the scores of 4 columns of its neighbours again.
    s_.each_window(int64_t(16) << 20, [&](int64_t begin, int64_t end) { run(begin, end); });
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  // Returns whether all values are finite.
  bool pack_values() {
    const ContextualAttentionArgs<T>& args = s_.args;
    std::vector<uint8_t> finite(s_.hb + 1, 1);
    parallel_tasks(s_.hb + 1, threads_, [&](int64_t V) {
      const int64_t ld = panels_ * kPanel<T>;
      Buffer<T> blocks(s_.w1 * ld);
      block_row(args.bg, s_, args.bg_height, args.bg_width, s_.w1, V, ld, blocks.data());
      for (int64_t panel = 0; panel < panels_; ++panel) {
        T* to = values_.data() + (panel * s_.blocks_count + V * s_.w1) * kPanel<T>;
        for (int64_t U = 0; U < s_.w1; ++U, to += kPanel<T>)
          std::memcpy(to, blocks.data() + U * ld + panel * kPanel<T>, sizeof(T) * kPanel<T>);
      }
      Vector<T> zeros = {};
      for (int64_t j = 0; j < s_.w1 * ld; j += W) {
        const Vector<T> value = load(blocks.data() + j);
        zeros += value - value;
      }
      finite[V] = nonzero_lanes<T>(zeros) == 0;
    });
    return std::all_of(finite.begin(), finite.end(), [](uint8_t is) { return is != 0; });
  }

  void run(int64_t begin, int64_t end) {
    const CellMap queries = needed_queries(wanted_, begin, end);
    if (queries.count() == 0) return;
    const CellMap scored = scored_for(queries);
    const QueryWindow own(begin, end, queries.any_in_column());
    const QueryWindow window(begin, end, scored.any_in_column());
    const int64_t step = rows_at_once(window);
    const int64_t ahead = s_.args.fuse ? 2 : 0;
    ScoreStrips<T> scores(s_, window, scored, step + 2 * ahead, step + ahead + 1);
    AttentionStrips<T> attention(s_, own, step + 1);
    if (ahead > 0 && !scores.strips.all()) {
      scores.compute(s_.h - 2, s_.h, s_.h - 3);
      scores.strips.keep_neighbour(s_.h - 2);
    }
    int64_t known = 0, done = 0;
    for (int64_t y = 0; y < s_.h; y += step) {
      const int64_t next = std::min(y + step, s_.h);
      const int64_t last = scores.strips.all() ? s_.h : std::min(next + ahead, s_.h);
      if (last > done) {
        scores.compute(done, last, known);
        if (done <= 1 && last > 1) scores.strips.keep_neighbour(1);
        done = last;
        known = last + 1;
      }
      attend(queries, scores, attention, y, next);
      paste(own, attention, y, next == s_.h ? next + 1 : next);
    }
  }

  // Queries whose scores are computed. With symmetric products all of them cost half.
  CellMap scored_for(const CellMap& queries) const {
    CellMap scored = needed_scores(queries, s_.args.fuse);
    const bool all = s_.mirrors() && 2 * scored.count() > s_.h * s_.w;
    return all ? CellMap(s_.h, s_.w, true) : scored;
  }

  int64_t rows_at_once(const QueryWindow& window) const {
    const int64_t strip = window.columns * s_.keys_count * int64_t(sizeof(T));
    // Short strips: with two rows at once more of what is read again lies in the second-level
    // cache, but two rows are too little work for many threads.
    const int64_t most = strip < (int64_t(1) << 18) && threads_ <= 2 ? 2 : 4;
    return std::clamp<int64_t>((int64_t(4) << 20) / strip / 2 * 2, 2, most);
  }

  // Attention of needed queries in the rows [first, last) from their scores.
  void attend(const CellMap& queries,
              ScoreStrips<T>& scores,
              AttentionStrips<T>& attention,
              int64_t first,
              int64_t last) {
    struct Query {
      int64_t y, x;
    };
    std::vector<Query> list;
    for (int64_t x = 0; x < s_.w; ++x)
      for (int64_t y = first; y < last; ++y)
        if (queries.at(y, x)) list.push_back({y, x});
    const int64_t chunk = 8 * (last - first), count = int64_t(list.size());
    parallel_tasks(ceil_div(count, chunk), threads_, [&](int64_t task) {
      Buffer<T> row(s_.keys_count + 2 * W), best(s_.hb * W);
      for (int64_t i = task * chunk; i < std::min((task + 1) * chunk, count); ++i) {
        const auto [y, x] = list[i];
        softmax(scores.query(fuse_, y, x, row.data()), y, x, row.data(), best.data(), attention);
      }
    });
  }

  void softmax(
      const T* scores, int64_t y, int64_t x, T* row, T* best, AttentionStrips<T>& attention) {
    const int64_t at = (s_.n * s_.h + y) * s_.w + x;
    const SoftmaxRow<T> softmax(s_, scores, row, best);
    result_.index[at] = softmax.first_best();
    result_.row_max[at] = softmax.max();
    result_.row_sum[at] = softmax.weigh(softmax.max(), attention.hot(y, x));
    softmax.write(result_.row_sum[at], attention.hot(y, x), attention.row(y, x));
  }

  // Wanted blocks of the result in the rows [first, last).
  void paste(const QueryWindow& window,
             AttentionStrips<T>& attention,
             int64_t first,
             int64_t last) {
    std::vector<ResultBlock> blocks;
    for (int64_t R = first; R < last; ++R)
      for (int64_t K = window.begin; K <= window.end; ++K)
        if (wanted_.at(R, K)) blocks.push_back({R, K});
    // Rows wanted in part share tiles. Parts do not depend on the number of threads, so neither
    // does any tile.
    const int64_t rows = wanted_.all() ? last - first : 1, width = int64_t(blocks.size()) / rows;
    const int64_t parts = ceil_div(tile_count(width), 5);
    parallel_tasks(rows * parts, threads_, [&](int64_t task) {
      const int64_t row = task / parts * width, part = task % parts;
      const int64_t begin = width * part / parts, end = width * (part + 1) / parts;
      paste_part(window, attention, blocks.data() + row + begin, end - begin);
    });
  }

  void paste_part(const QueryWindow& window,
                  AttentionStrips<T>& attention,
                  const ResultBlock* blocks,
                  int64_t count) {
    const ContextualAttentionArgs<T>& args = s_.args;
    WeightedSum<T> sum(values_.data(), s_.blocks_count, panels_, count);
    sum.leave_out(outside(blocks[0].K), outside(blocks[count - 1].K));
    std::vector<typename AttentionStrips<T>::Blocks> tiles;
    for (int64_t tile = 0; tile < sum.tiles(); ++tile)
      tiles.emplace_back(attention, blocks + sum.begin(tile), sum.end(tile) - sum.begin(tile));
    Panels made{panels_, 0}, held{0, 0};
    for (int64_t i = 0; i < count; ++i) made = made.joined(panels(blocks[i].R, args.fg_height));
    for (int64_t V = 0; V <= s_.hb;) {
      const Panels those = panels(V, args.bg_height);
      const Panels both{std::max(made.first, those.first), std::min(made.last, those.last)};
      if (both.first != held.first || both.last != held.last) {
        sum.flush(held.first, held.last);
        held = both;
      }
      int64_t end = V > 0 && V < s_.hb ? s_.hb : V + 1;
      for (const auto& tile : tiles) end = std::min(end, tile.stretch(V));
      const int64_t width = (end - V) * s_.w1, pieces = ceil_div(width, WeightedSum<T>::kPiece);
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t k0 = width * piece / pieces, k1 = width * (piece + 1) / pieces;
        for (int64_t tile = 0; tile < sum.tiles(); ++tile) {
          if (!tiles[tile].any(V)) continue;
          if (!sum.fits(tile, k1 - k0)) sum.flush(held.first, held.last);
          for (int64_t r = 0; r < sum.end(tile) - sum.begin(tile); ++r)
            tiles[tile].write(r, V, k0, k1 - k0, sum.weights(tile, r));
          sum.push(tile, V * s_.w1 + k0, k1 - k0);
        }
      }
      V = end;
    }
    sum.flush(held.first, held.last);
    // Neighbours of a row are written together.
    for (int64_t i = 0, next = 0; i < count; i = next) {
      for (next = i + 1; next < count; ++next)
        if (blocks[next].R != blocks[i].R || blocks[next].K != blocks[next - 1].K + 1) break;
      write(window, sum, i, blocks[i].R, blocks[i].K, blocks[i].K + next - i);
    }
  }

  struct Panels {
    int64_t first, last;

    // All between both; an empty range adds nothing.
    Panels joined(const Panels& other) const {
      if (other.first >= other.last) return *this;
      return {std::min(first, other.first), std::max(last, other.last)};
    }
  };

  // Panels with pixels of row V of blocks that lie inside an image.
  Panels panels(int64_t V, int64_t height) const {
    const int64_t top = V * s_.rate - s_.before, row = s_.rate * s_.channels;
    const int64_t first = std::max<int64_t>(-top, 0), last = std::min(height - top, s_.rate);
    if (last <= first) return {0, 0};
    return {first * row / kPanel<T>, ceil_div(last * row, kPanel<T>)};
  }

  // 1 for each panel without a pixel of column K of blocks inside the result.
  std::vector<uint8_t> outside(int64_t K) const {
    std::vector<uint8_t> all(panels_, 1);
    for (int64_t q = 0; q < columns_; ++q) {
      const int64_t x = K * s_.rate - s_.before + q / s_.channels % s_.rate;
      if (x >= 0 && x < s_.args.fg_width) all[q / kPanel<T>] = 0;
    }
    return all;
  }

  // Blocks begin .. end - 1 of row R, which are rows `first`, first + 1, ... of the sums.
  void write(const QueryWindow& window,
             const WeightedSum<T>& sum,
             int64_t first,
             int64_t R,
             int64_t begin,
             int64_t end) {
    const ContextualAttentionArgs<T>& args = s_.args;
    const OutputView<T>& y = result_.y;
    const int64_t patches = (R > 0) + (R < s_.h);
    const int64_t left = std::max<int64_t>(begin * s_.rate - s_.before, 0);
    const int64_t right = std::min(end * s_.rate - s_.before, args.fg_width);
    // As in block_row().
    const int64_t ld = round_up(std::max<int64_t>(right - left, 1), 16) + 16;
    Buffer<T> lines(16 * ld);
    for (int64_t a = 0; a < s_.rate; ++a) {
      const int64_t py = R * s_.rate - s_.before + a;
      if (py < 0 || py >= args.fg_height) continue;
      for (int64_t c0 = 0; c0 < s_.channels; c0 += 16) {
        const int64_t count = std::min<int64_t>(16, s_.channels - c0);
        for (int64_t px = left; px < right; ++px) {
          const int64_t K = (px + s_.before) / s_.rate, b = (px + s_.before) % s_.rate;
          const T factor = T(1) / T(args.count ? patches * ((K > 0) + (K < s_.w)) : 4);
          const T* from = sum.sums(first + K - begin) + (a * s_.rate + b) * s_.channels + c0;
          // A sum that is too small to hold has a sign that depends on its tile: plus zero.
          for (int64_t c = 0; c < count; ++c) lines[c * ld + px - left] = from[c] * factor + T(0);
        }
        T* const row = y.data + s_.n * y.stride_n + py * y.stride_h + c0 * y.stride_c;
        // The window to the left has written its part of the first column of blocks.
        const int64_t shared = begin == window.begin && begin > 0
                                   ? std::min((begin + 1) * s_.rate - s_.before, right)
                                   : left;
        for (int64_t c = 0; c < count; ++c) {
          T* const to = row + c * y.stride_c;
          const T* const line = lines.data() + c * ld - left;
          for (int64_t px = left; px < shared; ++px) to[px * y.stride_w] += line[px];
          for (int64_t px = shared; px < right; ++px) to[px * y.stride_w] = line[px];
        }
      }
    }
  }

  const AttentionSample<T>& s_;
  const ContextualAttentionResult<T>& result_;
  const int threads_;
  const int64_t columns_, panels_;
  Buffer<T> values_;
  const CellMap wanted_;  // blocks of the result
  const FuseSum<T> fuse_;
};

}  // namespace

template <class T>
void contextual_attention(const ContextualAttentionArgs<T>& args,
                          const ContextualAttentionResult<T>& result) {
  for (int64_t n = 0; n < args.batch; ++n) {
    const CellMap wanted = wanted_blocks(args, n);
    if (wanted.count() > 0) Forward<T>(AttentionSample<T>(args, n), wanted, result);
  }
}

template void contextual_attention<float>(const ContextualAttentionArgs<float>&,
                                          const ContextualAttentionResult<float>&);
template void contextual_attention<double>(const ContextualAttentionArgs<double>&,
                                           const ContextualAttentionResult<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
