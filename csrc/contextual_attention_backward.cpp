// Gradient of contextual attention, by recomputation: of the forward pass only the maximum and the
// sum of each query's softmax are kept.
//
// Per row of blocks or of queries, in this order, each some rows behind the one before, because it
// reads neighbours: scores; attention A; its 2 x 2 diagonal sums E and their gradient
// dE = dy * values; with both the values' gradient E^T dy; the scores' gradient
// dM = scale * A * (dA - <A, dA>); the adjoint of the fuse sums (the same sums, along rows first);
// over the norm dT; its 3 x 3 diagonal sums dG; then df = dG * keys and dkeys = dG^T f.
//
// 11 C multiply-adds a pair of cells; nothing is multiplied where A is exactly zero. Threads divide
// what a step writes, so no sum depends on their number. Memory: about 31 strips of at most 8 MB
// (more only where 28 columns need more), and copies of the background and its gradient.
#include "contextual_attention.h"
#include "contextual_attention_background.h"
#include "contextual_attention_scores.h"
#include "contextual_attention_softmax.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// The gradient of a window of query columns, and its share of the background's.
template <class T>
class Backward {
 public:
  Backward(const AttentionSample<T>& sample,
           const ContextualAttentionGradient<T>& gradient,
           BackgroundGradient<T>& background,
           int64_t begin,
           int64_t end)
      : s_(sample),
        gradient_(gradient),
        bg_(background),
        threads_(sample.threads),
        ahead_(sample.args.fuse ? 2 : 0),
        begin_(begin),
        end_(end),
        first_(std::max<int64_t>(begin - 1, 0)),
        last_(std::min(end + 1, sample.w)),
        near_(first_, last_, sample.w, ahead_),
        far_(first_, last_, sample.w, 2 * ahead_),
        block_columns_(near_.columns + int64_t(near_.segments.size())),
        fuse_(sample.hb, sample.wb, false),
        adjoint_(sample.hb, sample.wb, true),
        scores_(sample, far_, kStep + 2 * ahead_ + 1, kStep + ahead_ + 2),
        attention_(sample, near_, kStep + 1),
        grad_scores_(sample, near_, 6),
        blocks_(1, block_columns_, sample.hb + 1, sample.w1),
        grad_blocks_(2, block_columns_, sample.hb + 1, sample.w1),
        grad_sums_(4, last_ - first_, sample.hb, sample.w1),
        grad_products_(1, end - begin, sample.hb, sample.w1),
        grad_rows_((end - begin + 1) * background.panels * kPanel<T>),
        grad_columns_(block_columns_ * background.columns) {
    int64_t place = 0;
    for (const Window::Segment& segment : near_.segments) {
      const int64_t count = segment.end - segment.begin + 1;
      for (int64_t i = 0; i + 1 < count; ++i) columns_.push_back({segment.begin + i, place + i});
      for (int64_t tile = 0; tile < tile_count(count); ++tile) {
        const int64_t i = tile_begin(count, tile);
        tiles_.push_back({segment.begin + i, tile_begin(count, tile + 1) - i, place + i});
      }
      if (segment.begin <= begin && begin < segment.end) own_place_ = place + begin - segment.begin;
      place += count;
    }
  }

  void run() {
    int64_t known = 0, scored = 0, attended = 0, fused = 0;
    if (ahead_ > 0 && !grad_scores_.all()) {
      // The first rows of queries meet the last in the fuse sums, so dM of the last comes first.
      if (scores_.strips.all()) {
        scores_.compute(0, s_.h, 0);
        scored = s_.h;
      } else {
        scores_.compute(0, 2, 0);
        scores_.strips.keep_neighbour(1);
        scores_.compute(s_.h - 3, s_.h, s_.h - 4);
        scores_.strips.keep_neighbour(s_.h - 2);
      }
      attend(s_.h - 1, s_.h);
      block_row_gradient(s_.h - 1, false);
      block_row_gradient(s_.h, false);
      score_gradient(s_.h - 1);
      for (const Column& column : columns_)
        std::fill_n(attention_.hot(s_.h - 1, column.x), s_.hb, uint8_t(0));
    }
    for (int64_t R = 0; R <= s_.h; ++R) {
      if (R == attended && R < s_.h) {
        const int64_t end = std::min(R + kStep, s_.h);
        const int64_t last = scores_.strips.all() ? s_.h : std::min(end + ahead_, s_.h);
        if (last > scored) {
          scores_.compute(scored, last, known);
          if (scored <= 1 && last > 1) scores_.strips.keep_neighbour(1);
          scored = last;
          known = last + 1;
        }
        attend(R, end);
        attended = end;
      }
      block_row_gradient(R, true);
      if (R > 0) score_gradient(R - 1);
      // Rows of dM are known below R. Where all stay, the fuse sums of the first need the last.
      const int64_t delay = ahead_ > 0 && grad_scores_.all() ? s_.h : ahead_;
      const int64_t ready = R == s_.h ? s_.h : std::max<int64_t>(R - delay, 0);
      for (; fused < ready; ++fused) {
        sum_gradient(fused);
        if (fused > 0) product_gradient(fused - 1);
      }
    }
    product_gradient(s_.h - 1);
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int64_t kStep = 2;

  // A query column, and the place of the block at its left.
  struct Column {
    int64_t x, block;
  };

  // Columns of blocks K .. K + count, and the place of the first.
  struct BlockTile {
    int64_t K, count, place;
  };

  // Columns of blocks whose values get their gradient from this window.
  int64_t own_blocks() const { return end_ - begin_ + (end_ == s_.w); }

  // Attention of query rows [first, last).
  void attend(int64_t first, int64_t last) {
    constexpr int64_t kChunk = 8;
    const int64_t count = int64_t(columns_.size());
    parallel_tasks(ceil_div(count, kChunk), threads_, [&](int64_t task) {
      Buffer<T> row(s_.keys_count + 2 * W), best(s_.hb * W);
      for (int64_t i = task * kChunk; i < std::min((task + 1) * kChunk, count); ++i) {
        const int64_t x = columns_[i].x;
        for (int64_t y = first; y < last; ++y) {
          const T* scores = scores_.strips.row(y, far_.place(x));
          if (s_.args.fuse) {
            const T* rows[9];
            scores_.strips.neighbours(y, x, false, rows);
            fuse_.run(rows, row.data());
            scores = row.data();
          }
          const SoftmaxRow<T> softmax(s_, scores, row.data(), best.data());
          const int64_t at = (s_.n * s_.h + y) * s_.w + x;
          softmax.weigh(gradient_.row_max[at], attention_.hot(y, x));
          softmax.write(gradient_.row_sum[at], attention_.hot(y, x), attention_.row(y, x));
        }
      }
    });
  }

  // dy of block row R divided as in the forward pass: vectors of rate * rate * C numbers.
  void pack_gradient(int64_t R) {
    const ContextualAttentionArgs<T>& args = s_.args;
    const int64_t columns = s_.w + 1, ld = bg_.panels * kPanel<T>;
    Buffer<T> blocks(columns * ld);
    block_row(gradient_.grad, s_, args.fg_height, args.fg_width, columns, R, ld, blocks.data());
    const int64_t patches = (R > 0) + (R < s_.h);
    for (int64_t K = 0; K < columns; ++K) {
      const int64_t over = patches * ((K > 0) + (K < s_.w));
      const T factor = T(1) / T(args.count ? over : 4);
      for (int64_t q = 0; q < ld; ++q) blocks[K * ld + q] *= factor;
    }
    const int64_t own = own_blocks();
    for (int64_t panel = 0; panel < bg_.panels; ++panel)
      for (int64_t i = 0; i < own; ++i)
        std::memcpy(grad_rows_.data() + (panel * own + i) * kPanel<T>,
                    blocks.data() + (begin_ + i) * ld + panel * kPanel<T>,
                    sizeof(T) * kPanel<T>);
    for (const BlockTile& tile : tiles_) {
      T* to = grad_columns_.data() + tile.place * bg_.columns;
      for (int64_t q = 0; q < bg_.columns; ++q)
        for (int64_t i = 0; i < tile.count; ++i) *to++ = blocks[(tile.K + i) * ld + q];
    }
  }

  // E and dE of row R of blocks; of the values' gradient what they bring, if asked for.
  void block_row_gradient(int64_t R, bool values) {
    pack_gradient(R);
    parallel_tasks(int64_t(tiles_.size()), threads_, [&](int64_t i) { block_tile(R, tiles_[i]); });
    if (!values) return;
    const TransposedSum<T> sum{blocks_.row(0, own_place_),
                               blocks_.ld,
                               own_blocks(),
                               grad_rows_.data(),
                               bg_.panels,
                               bg_.grad_values.data(),
                               s_.blocks_count};
    parallel_tasks(sum.chunks(), threads_, [&](int64_t chunk) { sum.run(chunk); });
  }

  void block_tile(int64_t R, const BlockTile& tile) {
    const typename AttentionStrips<T>::Blocks blocks(attention_, R, tile.K, tile.count);
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
      // The last panel reaches into the zeros behind a query, which nothing reads.
      Product body{grad_columns_.data() + tile.place * bg_.columns,
                   bg_.values.data() + panel * bg_.columns * kPanel<T>,
                   grad_blocks_.row(R, tile.place) + panel * kPanel<T>,
                   grad_blocks_.ld,
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
      for (int r = 0; r < ROWS; ++r) {
        store(lanes, sum.v[r][0]);
        store(lanes + W, sum.v[r][1]);
        std::memcpy(out + r * ld, lanes, sizeof(T) * width);
      }
    }
  };

  // dM of query row y, from dE of the rows of blocks y and y + 1.
  void score_gradient(int64_t y) {
    parallel_tasks(int64_t(columns_.size()), threads_, [&](int64_t i) {
      const auto [x, block] = columns_[i];
      Buffer<T> line(s_.keys_count + W);
      const uint8_t* hot = attention_.hot(y, x);
      const T* attention = attention_.row(y, x);
      const T* const parts[4] = {grad_blocks_.row(y, block),
                                 grad_blocks_.row(y, block + 1) + 1,
                                 grad_blocks_.row(y + 1, block) + s_.w1,
                                 grad_blocks_.row(y + 1, block + 1) + s_.w1 + 1};
      T* const out = grad_scores_.row(y, near_.place(x));
      T mean = 0;
      for (int64_t v = 0; v < s_.hb; ++v) {
        if (!hot[v]) continue;
        for (int64_t u = 0; u < s_.wb; ++u) {
          const int64_t j = v * s_.w1 + u;
          const T sum = (parts[0][j] + parts[1][j]) + (parts[2][j] + parts[3][j]);
          // Where the weight is zero what was pasted counts for nothing, whatever it is.
          line[v * s_.wb + u] = attention[j] != T(0) ? sum : T(0);
          mean += attention[j] * line[v * s_.wb + u];
        }
      }
      for (int64_t v = 0; v < s_.hb; ++v) {
        T* const to = out + v * s_.wb;
        if (!hot[v]) {
          std::fill_n(to, s_.wb, T(0));
          continue;
        }
        for (int64_t u = 0; u < s_.wb; ++u)
          to[u] = s_.args.scale * attention[v * s_.w1 + u] * (line[v * s_.wb + u] - mean);
      }
    });
  }

  // dT of query row y, and what the norms of the keys get from it.
  void sum_gradient(int64_t y) {
    parallel_tasks(ceil_div(last_ - first_, 4), threads_, [&](int64_t task) {
      Buffer<T> line(s_.keys_count + 2 * W);
      for (int64_t x = first_ + task * 4; x < std::min(first_ + task * 4 + 4, last_); ++x) {
        const T* from = grad_scores_.row(y, near_.place(x));
        if (s_.args.fuse) {
          const T* rows[9];
          grad_scores_.neighbours(y, x, true, rows);
          adjoint_.run(rows, line.data());
          from = line.data();
        }
        T* const to = grad_sums_.row(y, x - first_);
        for (int64_t v = 0; v < s_.hb; ++v) {
          const T* scale = s_.inverse_norm.data() + v * s_.wb;
          // A key no query asks for may have any norm.
          for (int64_t u = 0; u < s_.wb; ++u) {
            const T g = from[v * s_.wb + u];
            to[v * s_.w1 + u] = g != T(0) ? g * scale[u] : T(0);
          }
        }
      }
    });
    parallel_tasks(s_.hb, threads_, [&](int64_t v) {
      T* const sum = bg_.grad_norm.data() + v * s_.wb;
      for (int64_t x = begin_; x < end_; ++x) {
        const T* const g = grad_sums_.row(y, x - first_) + v * s_.w1;
        const T* const score = scores_.strips.row(y, far_.place(x)) + v * s_.wb;
        for (int64_t u = 0; u < s_.wb; ++u) sum[u] += g[u] != T(0) ? g[u] * score[u] : T(0);
      }
    });
  }

  // dG of query row y, and with it the gradients of the picked pixels.
  void product_gradient(int64_t y) {
    const int64_t count = s_.hb * s_.w1;
    parallel_tasks(end_ - begin_, threads_, [&](int64_t i) {
      const int64_t x = begin_ + i;
      std::vector<const T*> from;
      for (int64_t dy = -1; dy <= 1; ++dy)
        for (int64_t dx = -1; dx <= 1; ++dx)
          if (y + dy >= 0 && y + dy < s_.h && x + dx >= 0 && x + dx < s_.w)
            from.push_back(grad_sums_.row(y + dy, x + dx - first_) + dy * s_.w1 + dx);
      T* const to = grad_products_.row(0, i);
      for (int64_t j = 0; j < count; j += W) {
        Vector<T> sum = load(from[0] + j);
        for (size_t k = 1; k < from.size(); ++k) sum += load(from[k] + j);
        store(to + j, sum);
      }
      // Between the rows of keys there is nothing.
      for (int64_t v = 0; v < s_.hb; ++v) to[v * s_.w1 + s_.wb] = 0;
      std::fill_n(to + count, W, T(0));
    });
    write_fg(y);
    const int64_t columns = end_ - begin_;
    Buffer<T> queries(bg_.key_panels * columns * kPanel<T>);
    std::fill_n(queries.data(), bg_.key_panels * columns * kPanel<T>, T(0));
    const ImageView<T>& fg = s_.args.fg;
    const T* row = fg.data + s_.n * fg.stride_n + s_.query_ys[y] * fg.stride_h;
    for (int64_t c = 0; c < s_.channels; ++c)
      for (int64_t i = 0; i < columns; ++i)
        queries[(c / kPanel<T> * columns + i) * kPanel<T> + c % kPanel<T>] =
            row[c * fg.stride_c + s_.query_xs[begin_ + i] * fg.stride_w];
    const TransposedSum<T> sum{grad_products_.row(0, 0),
                               grad_products_.ld,
                               columns,
                               queries.data(),
                               bg_.key_panels,
                               bg_.grad_keys.data(),
                               count};
    parallel_tasks(sum.chunks(), threads_, [&](int64_t chunk) { sum.run(chunk); });
  }

  void write_fg(int64_t y) {
    const int64_t columns = end_ - begin_;
    const int64_t parts = ceil_div(tile_count(columns), 2), count = s_.hb * s_.w1;
    parallel_tasks(parts, threads_, [&](int64_t part) {
      const int64_t begin = columns * part / parts, end = columns * (part + 1) / parts;
      WeightedSum<T> sum(bg_.key_vectors.data(), count, bg_.key_panels, end - begin);
      for (int64_t k = 0; k < count; k += WeightedSum<T>::kPiece) {
        const int64_t width = std::min(WeightedSum<T>::kPiece, count - k);
        for (int64_t tile = 0; tile < sum.tiles(); ++tile) {
          sum.prepare(tile, width);
          for (int64_t x = sum.begin(tile); x < sum.end(tile); ++x)
            std::memcpy(sum.weights(tile, x - sum.begin(tile)),
                        grad_products_.row(0, begin + x) + k,
                        sizeof(T) * round_up(width, W));
          sum.push(tile, k, width);
        }
      }
      sum.flush();
      const OutputView<T>& out = gradient_.grad_fg;
      T* row = out.data + s_.n * out.stride_n + s_.query_ys[y] * out.stride_h;
      for (int64_t c = 0; c < s_.channels; ++c)
        for (int64_t x = begin; x < end; ++x)
          row[c * out.stride_c + s_.query_xs[begin_ + x] * out.stride_w] += sum.sums(x - begin)[c];
    });
  }

  const AttentionSample<T>& s_;
  const ContextualAttentionGradient<T>& gradient_;
  BackgroundGradient<T>& bg_;
  const int threads_;
  const int64_t ahead_;
  // Columns that get their gradient here; those whose dT it needs; whose dM that needs; whose
  // scores that needs.
  const int64_t begin_, end_, first_, last_;
  const Window near_, far_;
  const int64_t block_columns_;
  std::vector<Column> columns_;  // of near_
  std::vector<BlockTile> tiles_;
  int64_t own_place_ = 0;
  const FuseSum<T> fuse_, adjoint_;
  ScoreStrips<T> scores_;
  AttentionStrips<T> attention_;
  WrapStrips<T> grad_scores_;
  BlockStrips<T> blocks_, grad_blocks_, grad_sums_, grad_products_;
  Buffer<T> grad_rows_, grad_columns_;
};

}  // namespace

template <class T>
void contextual_attention_backward(const ContextualAttentionArgs<T>& args,
                                   const ContextualAttentionGradient<T>& gradient) {
  for (int64_t n = 0; n < args.batch; ++n) {
    const AttentionSample<T> sample(args, n);
    const OutputView<T>& out = gradient.grad_fg;
    parallel_tasks(args.fg_height, sample.threads, [&](int64_t y) {
      for (int64_t c = 0; c < args.channels; ++c)
        for (int64_t x = 0; x < args.fg_width; ++x)
          out.data[n * out.stride_n + c * out.stride_c + y * out.stride_h + x * out.stride_w] = 0;
    });
    BackgroundGradient<T> background(sample);
    // Each repeats what 6 columns give, and the scores of 10.
    sample.each_window(int64_t(8) << 20, [&](int64_t begin, int64_t end) {
      Backward<T>(sample, gradient, background, begin, end).run();
    });
    background.write(gradient.grad_bg);
  }
}

template void contextual_attention_backward<float>(const ContextualAttentionArgs<float>&,
                                                   const ContextualAttentionGradient<float>&);
template void contextual_attention_backward<double>(const ContextualAttentionArgs<double>&,
                                                    const ContextualAttentionGradient<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
