// Hole pixels from the votes of the matched patches that cover them.
//
// Algebra: out[:, x] = sum_p w_p features[:, index_p + (x - p)] / sum_p w_p over the matched
// patches p that cover pixel x. The weight is w_p = exp(-penalty_p - d_p / (2 s)), with d the
// squared distances and s their 75th percentile over x. With `best` the vote of least d counts
// alone, the first of equals.
//
// Tiling: a task is a row of the image, patch^2 votes a pixel.
//
// Traffic: 8 + 4 C bytes a vote. The reads are scattered but clustered, since neighbouring patches
// mostly come from neighbouring places. Memory: the votes of one pixel a task.
#include "matching/vote_patches.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "base/vector_math.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

struct Votes {
  Buffer<int64_t> source;  // offset of the pixel copied from
  Buffer<float> distance, weight, sorted;
  int64_t count = 0;
  explicit Votes(int64_t size)
      : source(size),
        distance(size),
        weight(round_up(size, Simd<float>::kWidth)),  // whole vectors
        sorted(size) {
    for (int64_t i = 0; i < round_up(size, Simd<float>::kWidth); ++i) weight[i] = 0;
  }
};

void collect(const VotePatchesArgs& a, int64_t y, int64_t x, Votes& votes) {
  const int64_t rows = a.height - a.patch + 1, columns = a.width - a.patch + 1;
  votes.count = 0;
  for (int64_t dy = 0; dy < a.patch; ++dy) {
    if (y - dy < 0 || y - dy >= rows) continue;
    for (int64_t dx = 0; dx < a.patch; ++dx) {
      if (x - dx < 0 || x - dx >= columns) continue;
      const int64_t p = (y - dy) * columns + x - dx;
      const int64_t match = a.index[p];
      if (match < 0) continue;
      const int64_t i = votes.count++;
      const int64_t key_columns = a.features_width - a.patch + 1;
      votes.source[i] = (match / key_columns + dy) * a.features.stride_h +
                        (match % key_columns + dx) * a.features.stride_w;
      votes.distance[i] = a.distance[p];
      votes.weight[i] = a.penalty[p];
    }
  }
}

// Turns penalties into weights. They are relative to the largest, which is 1, so that their sum
// does not vanish deep in a hole.
void weigh(Votes& votes) {
  const int64_t n = votes.count, rank = std::min(n * 3 / 4, n - 1);
  std::copy_n(votes.distance.data(), n, votes.sorted.data());
  std::nth_element(votes.sorted.data(), votes.sorted.data() + rank, votes.sorted.data() + n);
  const float scale = std::max(votes.sorted[rank], 1e-8f);
  float least = std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    votes.weight[i] += votes.distance[i] / (2 * scale);
    least = std::min(least, votes.weight[i]);
  }
  constexpr int64_t W = Simd<float>::kWidth;
  for (int64_t i = 0; i < n; i += W)
    store(votes.weight.data() + i, exp<float>(broadcast(least) - load(votes.weight.data() + i)));
}

void write(const VotePatchesArgs& a, int64_t y, int64_t x, Votes& votes) {
  float* out = a.out + y * a.width + x;
  const int64_t plane = a.height * a.width;
  if (!a.best) weigh(votes);
  const int64_t nearest =
      std::min_element(votes.distance.data(), votes.distance.data() + votes.count) -
      votes.distance.data();
  for (int64_t c = 0; c < a.channels; ++c) {
    const float* from = a.features.data + c * a.features.stride_c;
    if (a.best) {
      out[c * plane] = from[votes.source[nearest]];
      continue;
    }
    float total = 0, weights = 0;
    for (int64_t i = 0; i < votes.count; ++i) {
      total += votes.weight[i] * from[votes.source[i]];
      weights += votes.weight[i];
    }
    out[c * plane] = total / weights;
  }
}

}  // namespace

void vote_patches(const VotePatchesArgs& args) {
  // Below this waking a second thread costs more than it saves.
  const int threads = args.height * args.width < 4096 ? 1 : args.threads;
  parallel_tasks(args.height, threads, [&](int64_t y) {
    const uint8_t* hole = args.hole + y * args.width;
    if (std::find(hole, hole + args.width, uint8_t(1)) == hole + args.width) return;
    Votes votes(args.patch * args.patch);
    for (int64_t x = 0; x < args.width; ++x) {
      if (!hole[x]) continue;
      collect(args, y, x, votes);
      if (votes.count > 0) write(args, y, x, votes);
    }
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
