// The best key of each query, joined from what several tasks found.
#pragma once

#include <mutex>

#include "matching/patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {

// Of equal scores the lowest key index wins, in whatever order the tasks arrive. So the result does
// not depend on how the work is cut or scheduled.
template <class T>
class BestMatches {
 public:
  explicit BestMatches(int64_t queries) : score_(queries), index_(queries) {
    for (int64_t i = 0; i < queries; ++i) {
      score_[i] = kMinusInfinity<T>;
      index_[i] = -1;
    }
  }

  // Joins the best matches that one task found for `count` queries from `first` on.
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
