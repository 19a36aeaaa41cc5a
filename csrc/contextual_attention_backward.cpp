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
// what a step writes, so no sum depends on their number. Memory: about 30 strips of w x keys.
#include "contextual_attention.h"
#include "contextual_attention_paste.h"
#include "contextual_attention_scores.h"
#include "contextual_attention_softmax.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// A ring of strips of queries x (rows of w1 numbers), with zeros around each query.
template <class T>
class BlockStrips {
 public:
  BlockStrips(int64_t ring, int64_t columns, int64_t rows, int64_t w1)
      : ring_(ring),
        columns_(columns),
        front_(round_up(w1 + 1, Simd<T>::kWidth)),
        ld(round_up(front_ + rows * w1 + w1 + 1 + Simd<T>::kWidth, Simd<T>::kWidth)),
        data_(ring * columns * ld) {
    std::fill_n(data_.data(), ring * columns * ld, T(0));
  }

  T* row(int64_t y, int64_t x) { return data_.data() + ((y % ring_) * columns_ + x) * ld + front_; }

 private:
  const int64_t ring_, columns_, front_;

 public:
  const int64_t ld;

 private:
  Buffer<T> data_;
};

template <class T>
class Backward {
 public:
  Backward(const AttentionSample<T>& sample, const ContextualAttentionGradient<T>& gradient)
      : s_(sample),
        gradient_(gradient),
        threads_(sample.threads),
        columns_(sample.rate * sample.rate * sample.channels),
        panels_(ceil_div(columns_, kPanel<T>)),
        key_panels_(ceil_div(sample.channels, kPanel<T>)),
        block_panels_(ceil_div(sample.blocks_count, kPanel<T>)),
        window_(0, sample.w, sample.w, 0),
        ahead_(sample.args.fuse ? 2 : 0),
        fuse_(sample.hb, sample.wb, false),
        adjoint_(sample.hb, sample.wb, true),
        values_(block_panels_ * columns_ * kPanel<T>),
        key_vectors_(key_panels_ * sample.hb * sample.w1 * kPanel<T>),
        grad_values_(panels_ * sample.blocks_count * kPanel<T>),
        grad_keys_(key_panels_ * sample.hb * sample.w1 * kPanel<T>),
        grad_norm_(sample.keys_count + W),
        scores_(sample, window_, kStep + 2 * ahead_ + 1, kStep + ahead_ + 2),
        attention_(sample, window_, kStep + 1),
        grad_scores_(sample, window_, 6),
        blocks_(1, sample.w + 1, sample.hb + 1, sample.w1),
        grad_blocks_(2, sample.w + 1, sample.hb + 1, sample.w1),
        grad_sums_(4, sample.w, sample.hb, sample.w1),
        grad_products_(1, sample.w, sample.hb, sample.w1),
        grad_rows_((sample.w + 1) * panels_ * kPanel<T>),
        grad_columns_((sample.w + 1) * columns_) {
    std::fill_n(grad_values_.data(), panels_ * s_.blocks_count * kPanel<T>, T(0));
    std::fill_n(grad_keys_.data(), key_panels_ * s_.hb * s_.w1 * kPanel<T>, T(0));
    std::fill_n(grad_norm_.data(), s_.keys_count + W, T(0));
    pack();
    run();
    write_bg();
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int64_t kStep = 2;

  void pack() {
    const ContextualAttentionArgs<T>& args = s_.args;
    std::fill_n(
        values_.data() + (block_panels_ - 1) * columns_ * kPanel<T>, columns_ * kPanel<T>, T(0));
    const int64_t ld = panels_ * kPanel<T>;
    parallel_tasks(s_.hb + 1, threads_, [&](int64_t V) {
      Buffer<T> blocks(s_.w1 * ld);
      block_row(args.bg, s_, args.bg_height, args.bg_width, s_.w1, V, ld, blocks.data());
      for (int64_t U = 0; U < s_.w1; ++U) {
        const int64_t block = V * s_.w1 + U;
        T* to = values_.data() + block / kPanel<T> * columns_ * kPanel<T> + block % kPanel<T>;
        for (int64_t q = 0; q < columns_; ++q) to[q * kPanel<T>] = blocks[U * ld + q];
      }
    });
    const T* sample = args.bg.data + s_.n * args.bg.stride_n;
    parallel_tasks(s_.hb, threads_, [&](int64_t v) {
      const T* row = sample + s_.key_ys[v] * args.bg.stride_h;
      for (int64_t panel = 0; panel < key_panels_; ++panel) {
        T* to = key_vectors_.data() + (panel * s_.hb + v) * s_.w1 * kPanel<T>;
        std::fill_n(to, s_.w1 * kPanel<T>, T(0));
        const int64_t c0 = panel * kPanel<T>, c1 = std::min(c0 + kPanel<T>, s_.channels);
        for (int64_t c = c0; c < c1; ++c)
          for (int64_t u = 0; u < s_.wb; ++u)
            to[u * kPanel<T> + c - c0] =
                row[c * args.bg.stride_c + s_.key_xs[u] * args.bg.stride_w];
      }
    });
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
      for (int64_t x = 0; x < s_.w; ++x)
        std::fill_n(attention_.hot(s_.h - 1, x), s_.hb, uint8_t(0));
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

  // Attention of query rows [first, last).
  void attend(int64_t first, int64_t last) {
    constexpr int64_t kChunk = 8;
    parallel_tasks(ceil_div(s_.w, kChunk), threads_, [&](int64_t task) {
      Buffer<T> row(s_.keys_count + 2 * W), best(s_.hb * W);
      for (int64_t x = task * kChunk; x < std::min((task + 1) * kChunk, s_.w); ++x) {
        for (int64_t y = first; y < last; ++y) {
          const T* scores = scores_.strips.row(y, x);
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
    const int64_t columns = s_.w + 1, ld = panels_ * kPanel<T>;
    Buffer<T> blocks(columns * ld);
    block_row(gradient_.grad, s_, args.fg_height, args.fg_width, columns, R, ld, blocks.data());
    const int64_t patches = (R > 0) + (R < s_.h);
    for (int64_t K = 0; K < columns; ++K) {
      const int64_t over = patches * ((K > 0) + (K < s_.w));
      const T factor = T(1) / T(args.count ? over : 4);
      for (int64_t q = 0; q < ld; ++q) blocks[K * ld + q] *= factor;
    }
    for (int64_t panel = 0; panel < panels_; ++panel)
      for (int64_t K = 0; K < columns; ++K)
        std::memcpy(grad_rows_.data() + (panel * columns + K) * kPanel<T>,
                    blocks.data() + K * ld + panel * kPanel<T>,
                    sizeof(T) * kPanel<T>);
    T* to = grad_columns_.data();
    for (int64_t tile = 0; tile < tile_count(columns); ++tile)
      for (int64_t q = 0; q < columns_; ++q)
        for (int64_t K = tile_begin(columns, tile); K < tile_begin(columns, tile + 1); ++K)
          *to++ = blocks[K * ld + q];
  }

  // E and dE of row R of blocks; of the values' gradient what they bring, if asked for.
  void block_row_gradient(int64_t R, bool values) {
    const int64_t columns = s_.w + 1;
    pack_gradient(R);
    parallel_tasks(tile_count(columns), threads_, [&](int64_t tile) {
      const int64_t begin = tile_begin(columns, tile), end = tile_begin(columns, tile + 1);
      const typename AttentionStrips<T>::Blocks blocks(attention_, R, begin, end - begin);
      std::vector<uint8_t> wanted(block_panels_, 0);
      for (int64_t V = 0; V <= s_.hb; ++V) {
        for (int64_t r = 0; r < end - begin; ++r) {
          T* to = blocks_.row(0, begin + r) + V * s_.w1;
          if (blocks.any(V)) {
            Buffer<T> line(s_.w1 + W);
            blocks.write(r, V, 0, s_.w1, line.data());
            std::memcpy(to, line.data(), sizeof(T) * s_.w1);
          } else {
            std::fill_n(to, s_.w1, T(0));
          }
        }
        if (!blocks.any(V)) continue;
        for (int64_t r = 0; r < end - begin; ++r) {
          const T* from = blocks_.row(0, begin + r);
          for (int64_t j = V * s_.w1; j < (V + 1) * s_.w1; ++j)
            wanted[j / kPanel<T>] |= from[j] != T(0);
        }
      }
      for (int64_t panel = 0; panel < block_panels_; ++panel) {
        if (!wanted[panel]) continue;
        // The last panel reaches into the zeros behind a query, which nothing reads.
        Product body{grad_columns_.data() + begin * columns_,
                     values_.data() + panel * columns_ * kPanel<T>,
                     grad_blocks_.row(R, begin) + panel * kPanel<T>,
                     grad_blocks_.ld,
                     columns_,
                     std::min(kPanel<T>, s_.blocks_count - panel * kPanel<T>)};
        with_rows(end - begin, body);
      }
    });
    if (!values) return;
    const TransposedSum<T> sum{blocks_.row(0, 0),
                               blocks_.ld,
                               columns,
                               grad_rows_.data(),
                               panels_,
                               grad_values_.data(),
                               s_.blocks_count};
    parallel_tasks(sum.chunks(), threads_, [&](int64_t chunk) { sum.run(chunk); });
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
    parallel_tasks(s_.w, threads_, [&](int64_t x) {
      Buffer<T> line(s_.keys_count + W);
      const uint8_t* hot = attention_.hot(y, x);
      const T* attention = attention_.row(y, x);
      const T* const parts[4] = {grad_blocks_.row(y, x),
                                 grad_blocks_.row(y, x + 1) + 1,
                                 grad_blocks_.row(y + 1, x) + s_.w1,
                                 grad_blocks_.row(y + 1, x + 1) + s_.w1 + 1};
      T* const out = grad_scores_.row(y, x);
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
    parallel_tasks(ceil_div(s_.w, 4), threads_, [&](int64_t task) {
      Buffer<T> line(s_.keys_count + 2 * W);
      for (int64_t x = task * 4; x < std::min(task * 4 + 4, s_.w); ++x) {
        const T* from = grad_scores_.row(y, x);
        if (s_.args.fuse) {
          const T* rows[9];
          grad_scores_.neighbours(y, x, true, rows);
          adjoint_.run(rows, line.data());
          from = line.data();
        }
        T* const to = grad_sums_.row(y, x);
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
      T* const sum = grad_norm_.data() + v * s_.wb;
      for (int64_t x = 0; x < s_.w; ++x) {
        const T* const g = grad_sums_.row(y, x) + v * s_.w1;
        const T* const score = scores_.strips.row(y, x) + v * s_.wb;
        for (int64_t u = 0; u < s_.wb; ++u) sum[u] += g[u] != T(0) ? g[u] * score[u] : T(0);
      }
    });
  }

  // dG of query row y, and with it the gradients of the picked pixels.
  void product_gradient(int64_t y) {
    const int64_t count = s_.hb * s_.w1;
    parallel_tasks(s_.w, threads_, [&](int64_t x) {
      std::vector<const T*> from;
      for (int64_t dy = -1; dy <= 1; ++dy)
        for (int64_t dx = -1; dx <= 1; ++dx)
          if (y + dy >= 0 && y + dy < s_.h && x + dx >= 0 && x + dx < s_.w)
            from.push_back(grad_sums_.row(y + dy, x + dx) + dy * s_.w1 + dx);
      T* const to = grad_products_.row(0, x);
      for (int64_t j = 0; j < count; j += W) {
        Vector<T> sum = load(from[0] + j);
        for (size_t i = 1; i < from.size(); ++i) sum += load(from[i] + j);
        store(to + j, sum);
      }
      // Between the rows of keys there is nothing.
      for (int64_t v = 0; v < s_.hb; ++v) to[v * s_.w1 + s_.wb] = 0;
      std::fill_n(to + count, W, T(0));
    });
    write_fg(y);
    Buffer<T> queries(key_panels_ * s_.w * kPanel<T>);
    std::fill_n(queries.data(), key_panels_ * s_.w * kPanel<T>, T(0));
    const ImageView<T>& fg = s_.args.fg;
    const T* row = fg.data + s_.n * fg.stride_n + s_.query_ys[y] * fg.stride_h;
    for (int64_t c = 0; c < s_.channels; ++c)
      for (int64_t x = 0; x < s_.w; ++x)
        queries[(c / kPanel<T> * s_.w + x) * kPanel<T> + c % kPanel<T>] =
            row[c * fg.stride_c + s_.query_xs[x] * fg.stride_w];
    const TransposedSum<T> sum{grad_products_.row(0, 0),
                               grad_products_.ld,
                               s_.w,
                               queries.data(),
                               key_panels_,
                               grad_keys_.data(),
                               count};
    parallel_tasks(sum.chunks(), threads_, [&](int64_t chunk) { sum.run(chunk); });
  }

  void write_fg(int64_t y) {
    const int64_t parts = ceil_div(tile_count(s_.w), 2), count = s_.hb * s_.w1;
    parallel_tasks(parts, threads_, [&](int64_t part) {
      const int64_t begin = s_.w * part / parts, end = s_.w * (part + 1) / parts;
      WeightedSum<T> sum(key_vectors_.data(), count, key_panels_, end - begin);
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
          row[c * out.stride_c + s_.query_xs[x] * out.stride_w] += sum.sums(x - begin)[c];
    });
  }

  void write_bg() {
    const ContextualAttentionArgs<T>& args = s_.args;
    const OutputView<T>& out = gradient_.grad_bg;
    T* const sample = out.data + s_.n * out.stride_n;
    // Values: each pixel belongs to one block.
    parallel_tasks(args.bg_height, threads_, [&](int64_t y) {
      const int64_t V = (y + s_.before) / s_.rate, a = (y + s_.before) % s_.rate;
      for (int64_t x = 0; x < args.bg_width; ++x) {
        const int64_t U = (x + s_.before) / s_.rate, b = (x + s_.before) % s_.rate;
        T* to = sample + y * out.stride_h + x * out.stride_w;
        for (int64_t c = 0; c < s_.channels; ++c) {
          const int64_t q = (a * s_.rate + b) * s_.channels + c;
          to[c * out.stride_c] =
              grad_values_[(q / kPanel<T> * s_.blocks_count + V * s_.w1 + U) * kPanel<T> +
                           q % kPanel<T>];
        }
      }
    });
    // dL/d(|b|^2) at each pixel is the sum over the patches that hold it.
    const T floor_norm = T(1e-4);
    for (int64_t q = 0; q < s_.keys_count; ++q) {
      const T inverse = s_.inverse_norm[q];
      const bool constant = !args.sum_norm && inverse * floor_norm >= T(1);
      // The norm's derivative divided by the norm: dn = -sum of dT S, and d|b| = b / n.
      grad_norm_[q] = constant || grad_norm_[q] == T(0) ? T(0) : -grad_norm_[q] * inverse;
    }
    const ImageView<T>& bg = args.bg;
    parallel_tasks(s_.hb, threads_, [&](int64_t v) {
      for (int64_t u = 0; u < s_.wb; ++u) {
        T norm = 0;
        for (int64_t y = std::max<int64_t>(v - 1, 0); y < std::min(v + 2, s_.hb); ++y)
          for (int64_t x = std::max<int64_t>(u - 1, 0); x < std::min(u + 2, s_.wb); ++x)
            norm += grad_norm_[y * s_.wb + x];
        T* to = sample + s_.key_ys[v] * out.stride_h + s_.key_xs[u] * out.stride_w;
        const T* b =
            bg.data + s_.n * bg.stride_n + s_.key_ys[v] * bg.stride_h + s_.key_xs[u] * bg.stride_w;
        const int64_t k = v * s_.w1 + u;
        for (int64_t c = 0; c < s_.channels; ++c) {
          const T key = grad_keys_[(c / kPanel<T> * s_.hb * s_.w1 + k) * kPanel<T> + c % kPanel<T>];
          to[c * out.stride_c] += norm != T(0) ? key + b[c * bg.stride_c] * norm : key;
        }
      }
    });
  }

  const AttentionSample<T>& s_;
  const ContextualAttentionGradient<T>& gradient_;
  const int threads_;
  const int64_t columns_, panels_, key_panels_, block_panels_;
  const Window window_;
  const int64_t ahead_;
  const FuseSum<T> fuse_, adjoint_;
  Buffer<T> values_;       // [panel of blocks][rate * rate * C][kPanel]
  Buffer<T> key_vectors_;  // [panel of channels][row][w1][kPanel]
  Buffer<T> grad_values_;  // [panel of rate * rate * C][block][kPanel]
  Buffer<T> grad_keys_;    // like key_vectors_
  Buffer<T> grad_norm_;
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
    Backward<T>(sample, gradient);
  }
}

template void contextual_attention_backward<float>(const ContextualAttentionArgs<float>&,
                                                   const ContextualAttentionGradient<float>&);
template void contextual_attention_backward<double>(const ContextualAttentionArgs<double>&,
                                                    const ContextualAttentionGradient<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
