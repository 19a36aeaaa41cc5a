// The best key of each query, as several tasks find it.
#pragma once

#include <mutex>

#include "matching/patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {

// Order-free: of equal scores the lowest key index wins, whoever comes first, so the result does
// not depend on how tasks are cut or scheduled.
template <class T>
class BestMatches {
 public:
  explicit BestMatches(int64_t queries) : score_(queries), index_(queries) {
    for (int64_t i = 0; i < queries; ++i) {
      score_[i] = kMinusInfinity<T>;
      index_[i] = -1;
    }
  }

  // Takes in the best matches that one task found for a stretch of queries.
  void merge(int64_t first, const T* score, const int64_t* index, int64_t count) {
    std::lock_guard<std::mutex> lock(guard_);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t q = first + i;
      if (index[i] >= 0 &&
          (score[i] > score_[q] || (score[i] == score_[q] && index[i] < index_[q]))) {
        score_[q] = score[i];
        index_[q] = index[i];
      }
    }
  }

  void scores(int64_t first, int64_t count, T* out) {
    std::lock_guard<std::mutex> lock(guard_);
    for (int64_t i = 0; i < count; ++i) out[i] = score_[first + i];
  }

  T score(int64_t query) const { return score_[query]; }
  int64_t index(int64_t query) const { return index_[query]; }

 private:
  Buffer<T> score_;
  Buffer<int64_t> index_;
  std::mutex guard_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
