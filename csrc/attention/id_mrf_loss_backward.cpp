// Gradient of the ID-MRF loss.
//
// Algebra: each k[p] = max over q of s[p, q] has one q, its choice, so only chosen q have
// gradients. Their rows of cosines are computed again. With g the gradient of a row of cosines
// (through the softmax, and through its factor to the maximum), dgenerated[q] = sum over p of g[p]
// target[p] and dtarget[p] += g[p] generated[q]: 3 C multiply-adds a pair of a chosen q.
//
// Tiling: strips of 4 tiles of chosen positions x all targets. Each sum runs over the chosen
// positions in ascending order, so the number of threads changes no bit.
// Traffic: two strips, of cosines and of gradients; the targets once for each tile.
#include "attention/id_mrf_loss.h"
#include "attention/id_mrf_similarity.h"
#include "attention/weighted_sum.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <class T>
class Backward {
 public:
  Backward(const IdMrfArgs<T>& args, int64_t n, const IdMrfGradient<T>& gradient)
      : args_(args),
        s_(args, n),
        panels_(ceil_div(s_.channels, kPanel<T>)),
        grad_best_(-gradient.grad[n] / (std::exp(-gradient.loss[n]) * T(s_.positions))),
        grad_generated_(gradient.grad_generated),
        to_generated_(offsets(grad_generated_, n, args.height, args.width)),
        targets_(panels_ * s_.positions * kPanel<T>),
        grad_targets_(panels_ * s_.positions * kPanel<T>) {
    std::fill_n(grad_targets_.data(), panels_ * s_.positions * kPanel<T>, T(0));
    pack(args.target, s_.target, targets_.data());
    parallel_tasks(s_.channels, args.threads, [&](int64_t c) {
      for (int64_t at : to_generated_) grad_generated_.data[at + c * grad_generated_.stride_c] = 0;
    });
    list_chosen(gradient.choice + n * s_.positions);
    for (int64_t first = 0; first < int64_t(chosen_.size()); first += kRows)
      strip(first, std::min<int64_t>(kRows, int64_t(chosen_.size()) - first));
    const OutputView<T>& grad_target = gradient.grad_target;
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

  // Lists the chosen positions, ascending, and for each the targets that chose it.
  void list_chosen(const int64_t* choice) {
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
    parallel_tasks(ceil_div(count, kRowTile), args_.threads, [&](int64_t tile) {
      const int64_t begin = tile * kRowTile, end = std::min<int64_t>(begin + kRowTile, count);
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

  // Gradient of one row of cosines: of the softmax, and through its factor of the maximum.
  void row_gradient(int64_t index, T* row, T* out) const {
    std::memcpy(out, row, sizeof(T) * s_.width);
    const typename Similarity<T>::Row made = s_.normalise(out);
    T mean = 0;
    for (int64_t i = begin_[index]; i < begin_[index + 1]; ++i) mean += out[by_[i]] * grad_best_;
    // Each target that chose this position adds to its own entry.
    std::vector<T> own;
    for (int64_t i = begin_[index]; i < begin_[index + 1]; ++i)
      own.push_back(out[by_[i]] * grad_best_);
    for (int64_t p = 0; p < s_.width; p += W) store(out + p, load(out + p) * -mean);
    for (size_t i = 0; i < own.size(); ++i) out[by_[begin_[index] + int64_t(i)]] += own[i];
    Vector<T> moved = {};
    for (int64_t p = 0; p < s_.positions; p += W) {
      const Vector<T> g = load(out + p);
      // After the last position g is zero and the cosine -inf.
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
    // All exponents depend on the least distance, and that of the best on the second least too.
    const T own_grad = out[made.best] / made.factor, distance = (1 - made.max) / 2;
    out[made.best] = (change / 2 + own_grad * distance) * twice + own_grad * made.second_factor;
    out[made.second] -=
        2 * args_.bandwidth * made.second_factor * made.second_factor * distance * own_grad;
  }

  const IdMrfArgs<T>& args_;
  const Similarity<T> s_;
  const int64_t panels_;
  const T grad_best_;  // dL / dk[p], the same for all p
  const OutputView<T>& grad_generated_;
  const std::vector<int64_t> to_generated_;
  Buffer<T> targets_, grad_targets_;          // [panel][position][kPanel]
  std::vector<int64_t> chosen_, begin_, by_;  // targets of chosen_[i]: by_[begin_[i] ..]
};

}  // namespace

template <class T>
void id_mrf_loss_backward(const IdMrfArgs<T>& args, const IdMrfGradient<T>& gradient) {
  for (int64_t n = 0; n < args.batch; ++n) Backward<T>(args, n, gradient);
}

template void id_mrf_loss_backward<float>(const IdMrfArgs<float>&, const IdMrfGradient<float>&);
template void id_mrf_loss_backward<double>(const IdMrfArgs<double>&, const IdMrfGradient<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
