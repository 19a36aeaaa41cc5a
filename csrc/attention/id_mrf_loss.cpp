// ID-MRF loss without the matrix of similarities.
//
// With c[p, q] the cosine of target p and generated q, m = max over p of c[p, q], d = (1 - m) / 2
// and a = 1 / (2 h (d + eps)), the relative similarity normalised over targets is a softmax: s[p,
// q] = exp(a (c[p, q] - m)) / sum over p. So a strip of some q and all p has everything in it that
// s needs; over the strips only k[p] = max over q of s[p, q] is kept. Loss: -log(mean k).
//
// With exclude_self the first target b that has the maximum is measured by the second greatest
// cosine m2 instead: a2 = 1 / (2 h (d2 + eps)), and its exponent exceeds all others by more:
// shift = 2 d (a - a2), s[p, q] = exp(a (c[p, q] - m) - shift) / sum for p != b.
//
// Backward: k[p] has one q each, so only those q have gradients at all; their strips are computed
// again. Strips of 56 x P numbers; C multiply-adds a pair forward, 3 C a pair of a chosen q
// backward.
#include "attention/id_mrf_loss.h"

#include <atomic>

#include "attention/weighted_sum.h"
#include "base/vector_math.h"
#include "matching/best_matches.h"
#include "matching/patch_pack.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Where the positions of a sample lie, in elements; a division each would cost more than the rest
// of a copy.
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

  // What the softmax of one row is made of.
  struct Row {
    T max, factor, sum;
    int64_t best;
    // Of the best where it is measured by the others: the next best and its factor.
    int64_t second = -1;
    T second_factor = 0;
  };

  // Puts s in the place of c.
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
  const std::vector<int64_t> generated, target;  // where the positions lie, in elements

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

template <class T>
void forward(const IdMrfArgs<T>& args, int64_t n, T* loss, int64_t* choice) {
  const Similarity<T> s(args, n);
  BestMatches<T> best(s.positions);
  std::atomic<bool> strange{false};
  // Enough rows a task that its own list of the best is worth its merge.
  constexpr int64_t kRows = 8 * kRowTile;
  parallel_tasks(ceil_div(s.positions, kRows), args.threads, [&](int64_t task) {
    Buffer<T> strip(kRowTile * s.width), scratch(kRowTile * s.channels), most(s.width);
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typedef Int IntVector __attribute__((vector_size(kVectorBytes)));
    Buffer<Int> where(s.width);
    std::fill_n(most.data(), s.width, kMinusInfinity<T>);
    std::fill_n(where.data(), s.width, Int(-1));
    const int64_t end = std::min((task + 1) * kRows, s.positions);
    int64_t q[kRowTile];
    for (int64_t first = task * kRows; first < end; first += kRowTile) {
      const int64_t count = std::min<int64_t>(kRowTile, end - first);
      for (int64_t i = 0; i < count; ++i) q[i] = first + i;
      s.cosines(q, count, scratch.data(), strip.data());
      for (int64_t i = 0; i < count; ++i) {
        T* const row = strip.data() + i * s.width;
        const T made = s.normalise(row).sum;
        if (made != made) strange = true;
        const IntVector here = IntVector{} + Int(first + i);
        for (int64_t p = 0; p < s.width; p += Simd<T>::kWidth) {
          const Vector<T> value = load(row + p), old = load(most.data() + p);
          IntVector at;
          std::memcpy(&at, where.data() + p, sizeof(at));
          const IntVector keep = value <= old;
          at = keep ? at : here;
          std::memcpy(where.data() + p, &at, sizeof(at));
          store(most.data() + p, keep ? old : value);
        }
      }
    }
    Buffer<int64_t> index(s.positions);
    for (int64_t p = 0; p < s.positions; ++p) index[p] = where[p];
    best.merge(0, most.data(), index.data(), s.positions);
  });
  double sum = 0;
  for (int64_t p = 0; p < s.positions; ++p) {
    sum += double(best.score(p));
    choice[p] = std::max<int64_t>(best.index(p), 0);
  }
  // A NaN never wins a comparison.
  if (strange) sum = std::numeric_limits<double>::quiet_NaN();
  *loss = T(-std::log(sum / double(s.positions)));
}

template <class T>
class Backward {
 public:
  Backward(const IdMrfArgs<T>& args,
           int64_t n,
           T loss,
           const int64_t* choice,
           T grad,
           const OutputView<T>& grad_generated,
           const OutputView<T>& grad_target)
      : args_(args),
        s_(args, n),
        panels_(ceil_div(s_.channels, kPanel<T>)),
        share_(-grad / (std::exp(-loss) * T(s_.positions))),
        grad_generated_(grad_generated),
        to_generated_(offsets(grad_generated, n, args.height, args.width)),
        targets_(panels_ * s_.positions * kPanel<T>),
        grad_targets_(panels_ * s_.positions * kPanel<T>) {
    std::fill_n(grad_targets_.data(), panels_ * s_.positions * kPanel<T>, T(0));
    pack(args.target, s_.target, targets_.data());
    parallel_tasks(s_.channels, args.threads, [&](int64_t c) {
      for (int64_t at : to_generated_) grad_generated.data[at + c * grad_generated.stride_c] = 0;
    });
    chosen_by(choice);
    for (int64_t first = 0; first < int64_t(chosen_.size()); first += kRows)
      strip(first, std::min<int64_t>(kRows, int64_t(chosen_.size()) - first));
    const std::vector<int64_t> to_target = offsets(grad_target, n, args.height, args.width);
    parallel_tasks(s_.channels, args.threads, [&](int64_t c) {
      const T* from = grad_targets_.data() + c / kPanel<T> * s_.positions * kPanel<T>;
      for (int64_t p = 0; p < s_.positions; ++p)
        grad_target.data[to_target[p] + c * grad_target.stride_c] =
            from[p * kPanel<T> + c % kPanel<T>];
    });
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;
  static constexpr int64_t kRows = 4 * kRowTile;

  void pack(const ImageView<T>& image, const std::vector<int64_t>& at, T* to) const {
    const int64_t count = int64_t(at.size());
    parallel_tasks(panels_, args_.threads, [&](int64_t panel) {
      const int64_t c0 = panel * kPanel<T>;
      pack_vectors(image.data + c0 * image.stride_c,
                   image.stride_c,
                   std::min(kPanel<T>, s_.channels - c0),
                   at.data(),
                   count,
                   count,
                   to + c0 * count);
    });
  }

  // The chosen positions, ascending, and for each the targets that chose it.
  void chosen_by(const int64_t* choice) {
    std::vector<int64_t> count(s_.positions + 1, 0);
    for (int64_t p = 0; p < s_.positions; ++p) ++count[choice[p] + 1];
    for (int64_t q = 0; q < s_.positions; ++q) {
      if (count[q + 1] > 0) {
        chosen_.push_back(q);
        begin_.push_back(count[q]);
      }
      count[q + 1] += count[q];
    }
    begin_.push_back(s_.positions);
    by_.resize(s_.positions);
    for (int64_t p = 0; p < s_.positions; ++p) by_[count[choice[p]]++] = p;
  }

  void strip(int64_t first, int64_t count) {
    Buffer<T> cosine(count * s_.width), grads(count * s_.width);
    parallel_tasks(tile_count(count), args_.threads, [&](int64_t tile) {
      const int64_t begin = tile_begin(count, tile), end = tile_begin(count, tile + 1);
      Buffer<T> scratch((end - begin) * s_.channels);
      s_.cosines(chosen_.data() + first + begin,
                 end - begin,
                 scratch.data(),
                 cosine.data() + begin * s_.width);
      for (int64_t i = begin; i < end; ++i)
        row_gradient(first + i, cosine.data() + i * s_.width, grads.data() + i * s_.width);
    });
    parallel_tasks(ceil_div(count, kRowTile), args_.threads, [&](int64_t part) {
      const int64_t begin = part * kRowTile, end = std::min<int64_t>(begin + kRowTile, count);
      WeightedSum<T> sum(targets_.data(), s_.positions, panels_, end - begin);
      for (int64_t p = 0; p < s_.positions; p += WeightedSum<T>::kPiece) {
        const int64_t width = std::min(WeightedSum<T>::kPiece, s_.positions - p);
        sum.prepare(0, width);
        for (int64_t i = begin; i < end; ++i)
          std::memcpy(
              sum.weights(0, i - begin), grads.data() + i * s_.width + p, sizeof(T) * width);
        sum.push(0, p, width);
      }
      sum.flush();
      for (int64_t i = begin; i < end; ++i)
        for (int64_t c = 0; c < s_.channels; ++c)
          grad_generated_.data[to_generated_[chosen_[first + i]] + c * grad_generated_.stride_c] =
              sum.sums(i - begin)[c];
    });
    Buffer<T> vectors(panels_ * count * kPanel<T>);
    std::vector<int64_t> at;
    for (int64_t i = 0; i < count; ++i) at.push_back(s_.generated[chosen_[first + i]]);
    pack(args_.generated, at, vectors.data());
    const TransposedSum<T> sum{
        grads.data(), s_.width, count, vectors.data(), panels_, grad_targets_.data(), s_.positions};
    parallel_tasks(sum.chunks(), args_.threads, [&](int64_t chunk) { sum.run(chunk); });
  }

  // The gradient of one row of cosines: the softmax's, and through its factor the maximum's.
  void row_gradient(int64_t index, T* row, T* out) const {
    std::memcpy(out, row, sizeof(T) * s_.width);
    const typename Similarity<T>::Row made = s_.normalise(out);
    T mean = 0;
    for (int64_t i = begin_[index]; i < begin_[index + 1]; ++i) mean += out[by_[i]] * share_;
    // What each target that chose this position adds to its own.
    std::vector<T> own;
    for (int64_t i = begin_[index]; i < begin_[index + 1]; ++i) own.push_back(out[by_[i]] * share_);
    for (int64_t p = 0; p < s_.width; p += W) store(out + p, load(out + p) * -mean);
    for (size_t i = 0; i < own.size(); ++i) out[by_[begin_[index] + int64_t(i)]] += own[i];
    Vector<T> moved = {};
    for (int64_t p = 0; p < s_.positions; p += W) {
      const Vector<T> g = load(out + p);
      // Behind the last position g is zero and the cosine -inf.
      moved += g != T(0) ? g * (load(row + p) - made.max) : Vector<T>{};
      store(out + p, g * made.factor);
    }
    T change = 0;
    for (int64_t i = 0; i < W; ++i) change += moved[i];
    const T twice = 2 * args_.bandwidth * made.factor * made.factor;
    if (made.second < 0) {
      out[made.best] += change * twice / 2;
      return;
    }
    // In exponents: the others' distances over the best's, the best's over the second's.
    const T own_grad = out[made.best] / made.factor, distance = (1 - made.max) / 2;
    out[made.best] = (change / 2 + own_grad * distance) * twice + own_grad * made.second_factor;
    out[made.second] -=
        2 * args_.bandwidth * made.second_factor * made.second_factor * distance * own_grad;
  }

  const IdMrfArgs<T>& args_;
  const Similarity<T> s_;
  const int64_t panels_;
  const T share_;  // dL / dk[p]
  const OutputView<T>& grad_generated_;
  const std::vector<int64_t> to_generated_;
  Buffer<T> targets_, grad_targets_;  // [panel][position][kPanel]
  std::vector<int64_t> chosen_, begin_, by_;
};

}  // namespace

template <class T>
void id_mrf_loss(const IdMrfArgs<T>& args, T* loss, int64_t* choice) {
  for (int64_t n = 0; n < args.batch; ++n)
    forward(args, n, loss + n, choice + n * args.height * args.width);
}

template <class T>
void id_mrf_loss_backward(const IdMrfArgs<T>& args,
                          const T* loss,
                          const int64_t* choice,
                          const T* grad,
                          const OutputView<T>& grad_generated,
                          const OutputView<T>& grad_target) {
  for (int64_t n = 0; n < args.batch; ++n)
    Backward<T>(args,
                n,
                loss[n],
                choice + n * args.height * args.width,
                grad[n],
                grad_generated,
                grad_target);
}

template void id_mrf_loss<float>(const IdMrfArgs<float>&, float*, int64_t*);
template void id_mrf_loss<double>(const IdMrfArgs<double>&, double*, int64_t*);
template void id_mrf_loss_backward<float>(const IdMrfArgs<float>&,
                                          const float*,
                                          const int64_t*,
                                          const float*,
                                          const OutputView<float>&,
                                          const OutputView<float>&);
template void id_mrf_loss_backward<double>(const IdMrfArgs<double>&,
                                           const double*,
                                           const int64_t*,
                                           const double*,
                                           const OutputView<double>&,
                                           const OutputView<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
