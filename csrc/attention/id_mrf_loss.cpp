// ID-MRF loss without the matrix of similarities.
//
// Algebra: loss = -log(mean over p of k[p]), k[p] = max over q of s[p, q], with the similarities s
// of attention/id_mrf_similarity.h. A strip of some q and all p holds all that s needs; over the
// strips only k[p] and the q that has it are kept.
//
// Tiling: a task takes 8 tiles of generated positions. C multiply-adds a pair.
// Traffic: a strip of one tile x P numbers stays in cache; the lists of the best are joined once a
// task. Of equal similarities the lowest q wins, so the number of threads changes no bit.
#include "attention/id_mrf_loss.h"

#include <atomic>

#include "attention/id_mrf_similarity.h"
#include "matching/best_matches.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <class T>
void forward(const IdMrfArgs<T>& args, int64_t n, T* loss, int64_t* choice) {
  const Similarity<T> s(args, n);
  BestMatches<T> best(s.positions);
  std::atomic<bool> has_nan{false};
  // Enough rows that joining a task's list of the best costs little beside its products.
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
        if (made != made) has_nan = true;
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
  // A NaN wins no comparison, so it reaches no k[p].
  if (has_nan) sum = std::numeric_limits<double>::quiet_NaN();
  *loss = T(-std::log(sum / double(s.positions)));
}

}  // namespace

template <class T>
void id_mrf_loss(const IdMrfArgs<T>& args, const IdMrfResult<T>& result) {
  for (int64_t n = 0; n < args.batch; ++n)
    forward(args, n, result.loss + n, result.choice + n * args.height * args.width);
}

template void id_mrf_loss<float>(const IdMrfArgs<float>&, const IdMrfResult<float>&);
template void id_mrf_loss<double>(const IdMrfArgs<double>&, const IdMrfResult<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
