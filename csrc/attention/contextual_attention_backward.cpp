// Gradient of contextual attention, by recomputation: of the forward pass only the maximum and the
// sum of each query's softmax are kept.
//
// Algebra, in the order of the steps (S scores, M fused scores, T products of patches, G products
// of pixels, A attention, dX the gradient of X):
//   S, M, A           as in the forward pass
//   E, dE, dvalues    E = 2 x 2 diagonal sums of A, dE = dy * values, dvalues = E^T dy
//   dM                scale * A * (dA - <A, dA>), with dA the 2 x 2 diagonal sums of dE
//   dS, dT            adjoint of the fuse sums (the same sums, along rows first), over the key's
//   norm dG, df, dkeys     3 x 3 diagonal sums of dT, then df = dG * keys and dkeys = dG^T f
//
// Tiling: windows of query columns, strips of a few rows. Each step works some rows after the one
// before it, because it reads neighbours of a row on both sides. 11 C multiply-adds a pair of
// cells; nothing is multiplied where A is exactly zero. Threads divide the results of a step, so no
// sum depends on their number.
//
// Traffic and memory: about 31 strips of at most 8 MB (more only where 28 columns need more), and
// copies of the background and its gradient.
#include "attention/contextual_attention.h"
#include "attention/products.h"
#include "attention/scores.h"
#include "attention/softmax.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// The gradient of a window of query columns, and what the window adds to that of the background.
template <class T>
class Backward {
 public:
  Backward(const AttentionSample<T>& sample,
           const ContextualAttentionGradient<T>& gradient,
           BackgroundGradient<T>& background,
           int64_t begin,
           int64_t end)
      : w_(sample, gradient, begin, end),
        s_(sample),
        bg_(background),
        fuse_(sample.hb, sample.wb, false),
        adjoint_(sample.hb, sample.wb, true),
        scores_(sample, w_.far, all_of(w_.far), kStep + 2 * w_.ahead + 1, kStep + w_.ahead + 2),
        attention_(sample, w_.near, kStep + 1),
        grad_scores_(sample, w_.near, 6),
        grad_sums_(4, w_.last - w_.first, sample.hb, sample.w1),
        blocks_(w_, attention_, background),
        products_(w_, grad_sums_, background) {}

  void run() {
    int64_t known = 0, scored = 0, attended = 0, fused = 0;
    if (w_.ahead > 0 && !grad_scores_.all()) {
      // The fuse sums of the first query rows read dM of the last one, so that comes first.
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
      blocks_.compute(s_.h - 1, false);
      blocks_.compute(s_.h, false);
      score_gradient(s_.h - 1);
      for (const auto& column : w_.columns)
        std::fill_n(attention_.hot(s_.h - 1, column.x), s_.hb, uint8_t(0));
    }
    for (int64_t R = 0; R <= s_.h; ++R) {
      if (R == attended && R < s_.h) {
        const int64_t end = std::min(R + kStep, s_.h);
        const int64_t last = scores_.strips.all() ? s_.h : std::min(end + w_.ahead, s_.h);
        if (last > scored) {
          scores_.compute(scored, last, known);
          if (scored <= 1 && last > 1) scores_.strips.keep_neighbour(1);
          scored = last;
          known = last + 1;
        }
        attend(R, end);
        attended = end;
      }
      blocks_.compute(R, true);
      if (R > 0) score_gradient(R - 1);
      // dM is known for rows less than R. Where all rows are kept, the fuse sums wait for the last.
      const int64_t delay = w_.ahead > 0 && grad_scores_.all() ? s_.h : w_.ahead;
      const int64_t ready = R == s_.h ? s_.h : std::max<int64_t>(R - delay, 0);
      for (; fused < ready; ++fused) {
        sum_gradient(fused);
        if (fused > 0) products_.compute(fused - 1);
      }
    }
    products_.compute(s_.h - 1);
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int64_t kStep = 2;

  // All queries in the columns of a window.
  CellMap all_of(const QueryWindow& window) const {
    CellMap cells(s_.h, s_.w, false);
    for (int64_t y = 0; y < s_.h; ++y)
      for (int64_t x = 0; x < s_.w; ++x)
        if (window.place(x) >= 0) cells.add(y, x);
    return cells;
  }

  // Attention of query rows [first, last).
  void attend(int64_t first, int64_t last) {
    constexpr int64_t kChunk = 8;
    const int64_t count = int64_t(w_.columns.size());
    parallel_tasks(ceil_div(count, kChunk), s_.threads, [&](int64_t task) {
      Buffer<T> row(s_.keys_count + 2 * W), best(s_.hb * W);
      for (int64_t i = task * kChunk; i < std::min((task + 1) * kChunk, count); ++i) {
        const int64_t x = w_.columns[i].x;
        for (int64_t y = first; y < last; ++y) {
          const T* scores = scores_.query(fuse_, y, x, row.data());
          const SoftmaxRow<T> softmax(s_, scores, row.data(), best.data());
          const int64_t at = (s_.n * s_.h + y) * s_.w + x;
          softmax.weigh(w_.gradient.row_max[at], attention_.hot(y, x));
          softmax.write(w_.gradient.row_sum[at], attention_.hot(y, x), attention_.row(y, x));
        }
      }
    });
  }

  // dM of query row y, from dE of the rows of blocks y and y + 1.
  void score_gradient(int64_t y) {
    parallel_tasks(int64_t(w_.columns.size()), s_.threads, [&](int64_t i) {
      const auto [x, block] = w_.columns[i];
      Buffer<T> line(s_.keys_count + W);
      const uint8_t* hot = attention_.hot(y, x);
      const T* attention = attention_.row(y, x);
      const T* const terms[4] = {blocks_.grad.row(y, block),
                                 blocks_.grad.row(y, block + 1) + 1,
                                 blocks_.grad.row(y + 1, block) + s_.w1,
                                 blocks_.grad.row(y + 1, block + 1) + s_.w1 + 1};
      T* const out = grad_scores_.row(y, w_.near.place(x));
      T mean = 0;
      Vector<T> means = {};
      for (int64_t v = 0; v < s_.hb; ++v) {
        if (!hot[v]) continue;
        int64_t u = 0, j = v * s_.w1;
        // Select, not multiply: a pasted value with weight zero may be NaN.
        for (; u + W <= s_.wb; u += W, j += W) {
          const Vector<T> weight = load(attention + j);
          const Vector<T> sum =
              (load(terms[0] + j) + load(terms[1] + j)) + (load(terms[2] + j) + load(terms[3] + j));
          const Vector<T> kept = weight != T(0) ? sum : Vector<T>{};
          store(line.data() + v * s_.wb + u, kept);
          means = multiply_add(weight, kept, means);
        }
        for (; u < s_.wb; ++u, ++j) {
          const T sum = (terms[0][j] + terms[1][j]) + (terms[2][j] + terms[3][j]);
          line[v * s_.wb + u] = attention[j] != T(0) ? sum : T(0);
          mean += attention[j] * line[v * s_.wb + u];
        }
      }
      for (int64_t i = 0; i < W; ++i) mean += means[i];
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

  // dT of query row y, and what it adds to the gradients of the keys' norms.
  void sum_gradient(int64_t y) {
    parallel_tasks(ceil_div(w_.last - w_.first, 4), s_.threads, [&](int64_t task) {
      Buffer<T> line(s_.keys_count + 2 * W);
      for (int64_t x = w_.first + task * 4; x < std::min(w_.first + task * 4 + 4, w_.last); ++x) {
        const T* from = grad_scores_.row(y, w_.near.place(x));
        if (s_.args.fuse) {
          const T* rows[9];
          grad_scores_.neighbours(y, x, true, rows);
          adjoint_.run(rows, line.data());
          from = line.data();
        }
        T* const to = grad_sums_.row(y, x - w_.first);
        for (int64_t v = 0; v < s_.hb; ++v) {
          const T* scale = s_.inverse_norm.data() + v * s_.wb;
          // A key that no query uses may have any norm, NaN included.
          for (int64_t u = 0; u < s_.wb; ++u) {
            const T g = from[v * s_.wb + u];
            to[v * s_.w1 + u] = g != T(0) ? g * scale[u] : T(0);
          }
        }
      }
    });
    parallel_tasks(s_.hb, s_.threads, [&](int64_t v) {
      T* const sum = bg_.grad_norm.data() + v * s_.wb;
      for (int64_t x = w_.begin; x < w_.end; ++x) {
        const T* const g = grad_sums_.row(y, x - w_.first) + v * s_.w1;
        const T* const score = scores_.strips.row(y, w_.far.place(x)) + v * s_.wb;
        for (int64_t u = 0; u < s_.wb; ++u) sum[u] += g[u] != T(0) ? g[u] * score[u] : T(0);
      }
    });
  }

  const GradientWindow<T> w_;
  const AttentionSample<T>& s_;
  BackgroundGradient<T>& bg_;
  const FuseSum<T> fuse_, adjoint_;
  ScoreStrips<T> scores_;
  AttentionStrips<T> attention_;
  WrapStrips<T> grad_scores_;
  BlockStrips<T> grad_sums_;
  BlockGradient<T> blocks_;
  ProductGradient<T> products_;
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
    // Each window computes dT of 2 columns of its neighbours again, dM of 6 and the scores of 10.
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
