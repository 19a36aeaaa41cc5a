// Exhaustive nearest patches without a score matrix.
//
// score(p, q) = <patch_p, patch_q> * scale(q) + bias(q); cosine: scale = 1 / |patch_q|, bias = 0;
// l2: scale = 1, bias = -|patch_q|^2 / 2; a key patch that may not be used has bias = -inf.
//
// Dense grids (match_dense). <patch_p, patch_q> is the sum over the k x k offsets d of the pixel
// products G[p + d, q + d]. For a fixed row offset delta = q.y - p.y the products of one query row
// with one key row are a small matrix product, made once; the sum along x is a diagonal sum inside
// that row pair, the sum along y a plain sum of the last k row pairs, kept in a ring. So a pair of
// pixels costs C multiply-adds and a pair of patches about 2 (k - 1) additions, and nothing larger
// than k row pairs is ever stored: ring and products stay in the second-level cache.
// Few channels (C * k small): the sum along x is cheaper inside the product itself (depth k * C on
// overlapping pixels), which also removes the halo of k - 1 columns.
//
// Lists (match_lists). Single pixels, strided grids and scattered queries: the patches are gathered
// and multiplied as plain vectors of k * k * C numbers, the maximum taken per register tile.
//
// Both keep per query the best score so far; a row of scores only takes a running maximum, and the
// position is looked up on the rare row that improves it.
//
// Traffic: keys and queries are packed once; a task reads them from the second- or third-level
// cache; results are 16 bytes a query. Memory: O(C (Hq Wq + Hk Wk)) + about 1 MB a thread.
#include "nearest_patch.h"

#include <algorithm>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <class T>
inline bool any_greater(Vector<T> v, T limit) {
  const auto hit = v > broadcast(limit);
#if defined(__AVX2__)
  __m256i bits;
  if constexpr (kVectorBytes == 64) {
    __m256i half[2];
    std::memcpy(half, &hit, 64);
    bits = _mm256_or_si256(half[0], half[1]);
  } else {
    std::memcpy(&bits, &hit, 32);
  }
  return !_mm256_testz_si256(bits, bits);
#else
  uint64_t words[kVectorBytes / 8];
  std::memcpy(words, &hit, kVectorBytes);
  uint64_t any = 0;
  for (uint64_t w : words) any |= w;
  return any != 0;
#endif
}

// The number just below x, so that "greater than it" means "x or greater".
template <class T>
inline T just_below(T x) {
  return std::nextafter(x, kMinusInfinity<T>);
}

// Key side of one sample on the grid of all patch origins (stride 1).
template <class T>
struct Keys {
  int64_t height, width;  // grid of patch origins
  int64_t ld;             // row stride of scale and bias; padding never matches
  Buffer<T> scale, bias;
  int64_t usable = 0;

  Keys(int64_t h, int64_t w)
      : height(h),
        width(w),
        ld(round_up(w, kPanel<T>) + kPanel<T>),
        scale(h * ld),
        bias(h * ld) {}
};

struct Block {  // wanted queries: columns x0..x1, rows y0..y1 of the grid of patch origins
  int64_t x0, x1, y0, y1;
};

// Best so far of the queries of one block, while a task runs.
template <class T>
struct BlockBest {
  int64_t width;
  Buffer<T> best, limit;
  Buffer<int64_t> index;

  BlockBest(const Block& block, const uint8_t* wanted, int64_t ld)
      : width(block.x1 - block.x0),
        best(width * (block.y1 - block.y0)),
        limit(width * (block.y1 - block.y0)),
        index(width * (block.y1 - block.y0)) {
    for (int64_t y = block.y0; y < block.y1; ++y) {
      for (int64_t x = block.x0; x < block.x1; ++x) {
        const int64_t i = (y - block.y0) * width + x - block.x0;
        best[i] = kMinusInfinity<T>;
        index[i] = -1;
        // An unwanted query never improves.
        limit[i] = wanted[y * ld + x] ? kMinusInfinity<T> : -kMinusInfinity<T>;
      }
    }
  }
};

// One sample of a call.
template <class T>
class Matcher {
 public:
  Matcher(const NearestPatchArgs<T>& args, int64_t n)
      : a_(args),
        n_(n),
        k_(args.patch),
        query_rows_(args.query_height - k_ + 1),
        query_cols_(args.query_width - k_ + 1),
        valid_(args.valid.data ? args.valid.data + n * args.valid.stride_n : nullptr),
        keys_(args.key_height - k_ + 1, args.key_width - k_ + 1),
        wanted_(query_rows_ * query_cols_),
        matches_(query_rows_ * query_cols_) {}

  void run() {
    find_wanted();
    prepare_keys();
    if (keys_.usable > 0 && wanted_count_ > 0) {
      plan_blocks();
      if (lists_are_cheaper()) {
        match_lists();
      } else {
        match_dense();
      }
    }
    write();
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  bool inside_product() const { return k_ == 1 || a_.channels * k_ <= 64; }

  void find_wanted() {
    std::fill_n(wanted_.data(), query_rows_ * query_cols_, uint8_t(0));
    const PatchAxis ys{query_rows_ - 1, a_.stride}, xs{query_cols_ - 1, a_.stride};
    const uint8_t* where = a_.where.data ? a_.where.data + n_ * a_.where.stride_n : nullptr;
    for (int64_t i = 0; i < ys.count(); ++i) {
      for (int64_t j = 0; j < xs.count(); ++j) {
        if (where && !where[i * xs.count() + j]) continue;
        wanted_[ys.origin(i) * query_cols_ + xs.origin(j)] = 1;
        ++wanted_count_;
      }
    }
  }

  // Number of invalid pixels in each key patch, by a separable sum.
  void count_invalid(int32_t* out) const {
    Buffer<int32_t> rows(a_.key_height * keys_.width);
    for (int64_t y = 0; y < a_.key_height; ++y) {
      const uint8_t* v = valid_ + y * a_.key_width;
      int32_t sum = 0;
      for (int64_t x = 0; x < a_.key_width; ++x) {
        sum += !v[x];
        if (x >= k_) sum -= !v[x - k_];
        if (x >= k_ - 1) rows[y * keys_.width + x - k_ + 1] = sum;
      }
    }
    for (int64_t y = 0; y < keys_.height; ++y) {
      for (int64_t x = 0; x < keys_.width; ++x) {
        int32_t sum = 0;
        for (int64_t d = 0; d < k_; ++d) sum += rows[(y + d) * keys_.width + x];
        out[y * keys_.width + x] = sum;
      }
    }
  }

  void prepare_keys() {
    Buffer<double> norms(keys_.height * keys_.width);
    patch_square_norms(a_.key,
                       n_,
                       a_.channels,
                       a_.key_height,
                       a_.key_width,
                       k_,
                       valid_,
                       a_.threads,
                       norms.data());
    Buffer<int32_t> invalid(valid_ ? keys_.height * keys_.width : 0);
    if (valid_) count_invalid(invalid.data());
    const PatchAxis ys{keys_.height - 1, a_.key_stride}, xs{keys_.width - 1, a_.key_stride};
    for (int64_t y = 0; y < keys_.height; ++y) {
      const bool on_row = ys.origin(ys.position(y)) == y;
      T* scale = keys_.scale.data() + y * keys_.ld;
      T* bias = keys_.bias.data() + y * keys_.ld;
      for (int64_t x = 0; x < keys_.ld; ++x) {
        scale[x] = 0;
        bias[x] = kMinusInfinity<T>;
        if (x >= keys_.width || !on_row || xs.origin(xs.position(x)) != x) continue;
        if (valid_ && invalid[y * keys_.width + x]) continue;
        const double square = norms[y * keys_.width + x];
        scale[x] = a_.cosine ? T(1 / std::max(std::sqrt(square), kNormFloor)) : T(1);
        bias[x] = a_.cosine ? T(0) : T(-0.5 * square);
        ++keys_.usable;
      }
    }
  }

  // Cuts the wanted queries into blocks of columns and, in each, into runs of rows. Gaps shorter
  // than a patch are kept in: their row pairs are needed anyway.
  void plan_blocks() {
    const int64_t columns = inside_product() ? kRowTile : 64;
    for (int64_t x0 = 0; x0 < query_cols_;) {
      if (!column_wanted(x0)) {
        ++x0;
        continue;
      }
      int64_t end = x0 + 1, gap = 0;
      for (int64_t x = end; x < query_cols_ && gap < k_; ++x) {
        if (column_wanted(x)) {
          end = x + 1;
          gap = 0;
        } else {
          ++gap;
        }
      }
      const int64_t parts = ceil_div(end - x0, columns);
      for (int64_t part = 0; part < parts; ++part) {
        add_rows(x0 + (end - x0) * part / parts, x0 + (end - x0) * (part + 1) / parts);
      }
      x0 = end;
    }
  }

  bool column_wanted(int64_t x) const {
    for (int64_t y = 0; y < query_rows_; ++y)
      if (wanted_[y * query_cols_ + x]) return true;
    return false;
  }

  void add_rows(int64_t x0, int64_t x1) {
    constexpr int64_t kMaxRows = 128;
    auto row_wanted = [&](int64_t y) {
      const uint8_t* row = wanted_.data() + y * query_cols_;
      return std::any_of(row + x0, row + x1, [](uint8_t w) { return w != 0; });
    };
    for (int64_t y = 0; y < query_rows_; ++y) {
      if (!row_wanted(y)) continue;
      const bool joins = !blocks_.empty() && blocks_.back().x0 == x0 && y - blocks_.back().y1 < k_ &&
                         y + 1 - blocks_.back().y0 <= kMaxRows;
      if (joins) {
        blocks_.back().y1 = y + 1;
      } else {
        blocks_.push_back(Block{x0, x1, y, y + 1});
      }
    }
  }

  // Costs in multiply-adds; a score costs about 8 beside its products (sums, maximum).
  bool lists_are_cheaper() const {
    if (k_ == 1) return true;
    const double channels = double(a_.channels);
    const double lists = double(wanted_count_) * double(keys_.usable) * (channels * k_ * k_ + 2);
    double dense = 0;
    for (const Block& block : blocks_) {
      const double rows = double(block.y1 - block.y0 + k_ - 1) * double(a_.key_height);
      if (inside_product()) {
        dense += rows * double(block.x1 - block.x0) * double(keys_.width) * (channels * k_ + 8);
      } else {
        dense += rows * double(block.x1 - block.x0 + k_ - 1) * double(a_.key_width) * (channels + 8);
      }
    }
    return lists < dense;
  }

  // ---- lists ---------------------------------------------------------------------------------

  void match_lists() {
    const int64_t depth = a_.channels * k_ * k_;
    std::vector<int64_t> queries, keys;  // patch origins
    queries.reserve(wanted_count_);
    keys.reserve(keys_.usable);
    for (int64_t i = 0; i < query_rows_ * query_cols_; ++i)
      if (wanted_[i]) queries.push_back(i);
    for (int64_t y = 0; y < keys_.height; ++y)
      for (int64_t x = 0; x < keys_.width; ++x)
        if (keys_.bias[y * keys_.ld + x] != kMinusInfinity<T>) keys.push_back(y * keys_.width + x);

    const int64_t tiles = tile_count(queries.size());
    const int64_t panels = ceil_div(keys.size(), kPanel<T>);
    Buffer<T> left(int64_t(queries.size()) * depth), right(panels * kPanel<T> * depth);
    Buffer<T> scale(panels * kPanel<T>), bias(panels * kPanel<T>);
    for (int64_t j = 0; j < panels * kPanel<T>; ++j) {
      const bool real = j < int64_t(keys.size());
      const int64_t y = real ? keys[j] / keys_.width : 0, x = real ? keys[j] % keys_.width : 0;
      scale[j] = real ? keys_.scale[y * keys_.ld + x] : T(0);
      bias[j] = real ? keys_.bias[y * keys_.ld + x] : kMinusInfinity<T>;
    }
    parallel_tasks(tiles + panels, a_.threads, [&](int64_t task) {
      if (task < tiles) {
        const int64_t begin = tile_begin(queries.size(), task);
        const int64_t rows = tile_begin(queries.size(), task + 1) - begin;
        gather(a_.query, &queries[begin], rows, query_cols_, rows, left.data() + begin * depth);
      } else {
        const int64_t panel = task - tiles, begin = panel * kPanel<T>;
        const int64_t columns = std::min<int64_t>(kPanel<T>, keys.size() - begin);
        T* to = right.data() + begin * depth;
        gather(a_.key, &keys[begin], columns, keys_.width, kPanel<T>, to);
      }
    });

    // Tasks: up to 8 tiles of queries by a stretch of keys of about 128 kB, so that both stay in
    // the second-level cache.
    const int64_t tiles_a_task = 8;
    const int64_t panels_a_task =
        std::max<int64_t>(1, 131072 / (depth * kPanel<T> * int64_t(sizeof(T))));
    const int64_t query_tasks = ceil_div(tiles, tiles_a_task);
    const int64_t key_tasks = ceil_div(panels, panels_a_task);
    BestMatches<T> best(queries.size());
    parallel_tasks(query_tasks * key_tasks, a_.threads, [&](int64_t task) {
      const int64_t tile0 = task / key_tasks * tiles_a_task;
      const int64_t tile1 = std::min(tiles, tile0 + tiles_a_task);
      const int64_t panel0 = task % key_tasks * panels_a_task;
      const int64_t panel1 = std::min(panels, panel0 + panels_a_task);
      for (int64_t tile = tile0; tile < tile1; ++tile) {
        const int64_t begin = tile_begin(queries.size(), tile);
        const int64_t rows = tile_begin(queries.size(), tile + 1) - begin;
        T found[kRowTile];
        int64_t index[kRowTile];
        for (int64_t r = 0; r < rows; ++r) {
          found[r] = kMinusInfinity<T>;
          index[r] = -1;
        }
        ListTile body{left.data() + begin * depth,
                      right.data(),
                      scale.data(),
                      bias.data(),
                      depth,
                      panel0,
                      panel1,
                      found,
                      index};
        with_rows(rows, body);
        best.merge(begin, found, index, rows);
      }
    });
    for (size_t i = 0; i < queries.size(); ++i) {
      const int64_t found = best.index(i) < 0 ? -1 : keys[best.index(i)];
      const T score = best.score(i);
      matches_.merge(queries[i], &score, &found, 1);
    }
  }

  // Packs patches as columns: out[depth][ld].
  void gather(const ImageView<T>& image,
              const int64_t* origins,
              int64_t count,
              int64_t grid_width,
              int64_t ld,
              T* out) const {
    for (int64_t j = 0; j < ld; ++j) {
      const int64_t y = j < count ? origins[j] / grid_width : 0;
      const int64_t x = j < count ? origins[j] % grid_width : 0;
      const T* from = image.data + n_ * image.stride_n + y * image.stride_h + x * image.stride_w;
      T* to = out + j;
      for (int64_t dy = 0; dy < k_; ++dy) {
        for (int64_t dx = 0; dx < k_; ++dx) {
          const T* pixel = from + dy * image.stride_h + dx * image.stride_w;
          for (int64_t c = 0; c < a_.channels; ++c, to += ld)
            *to = j < count ? pixel[c * image.stride_c] : T(0);
        }
      }
    }
  }

  struct ListTile {
    const T *left, *right, *scale, *bias;
    int64_t depth, panel0, panel1;
    T* found;
    int64_t* index;

    template <int ROWS>
    void run() {
      for (int64_t panel = panel0; panel < panel1; ++panel) {
        Accumulator<T, ROWS, 2> sum;
        sum.clear();
        sum.add(left, right + panel * kPanel<T> * depth, kPanel<T>, depth);
        const Vector<T> s0 = load(scale + panel * kPanel<T>);
        const Vector<T> s1 = load(scale + panel * kPanel<T> + W);
        const Vector<T> b0 = load(bias + panel * kPanel<T>);
        const Vector<T> b1 = load(bias + panel * kPanel<T> + W);
        alignas(64) T scores[ROWS][2 * W];
        Vector<T> top[ROWS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
          const Vector<T> v0 = sum.v[r][0] * s0 + b0, v1 = sum.v[r][1] * s1 + b1;
          store(scores[r], v0);
          store(scores[r] + W, v1);
          top[r] = max_or_second<T>(v0, max_or_second<T>(v1, broadcast(kMinusInfinity<T>)));
        }
        for (int r = 0; r < ROWS; ++r) {
          if (!any_greater<T>(top[r], found[r])) continue;
          for (int64_t j = 0; j < 2 * W; ++j) {
            if (scores[r][j] > found[r]) {
              found[r] = scores[r][j];
              index[r] = panel * kPanel<T> + j;
            }
          }
        }
      }
    }
  };

  // ---- dense grids ---------------------------------------------------------------------------

  // Keys of one sample, packed: row-planar [y][c][ld] where products sum along x, so that a shifted
  // read is a plain unaligned load; else panels [y][panel][c][kPanel].
  void pack_keys(T* out, int64_t row_size) const {
    const int64_t C = a_.channels;
    parallel_tasks(a_.key_height, a_.threads, [&](int64_t y) {
      const uint8_t* valid = valid_ ? valid_ + y * a_.key_width : nullptr;
      T* row = out + y * row_size;
      const int64_t width = row_size / C;
      if (inside_product()) {
        copy_row(a_.key, n_, y, C, a_.key_width, valid, row, width, width);
        return;
      }
      Buffer<T> planar(row_size);
      copy_row(a_.key, n_, y, C, a_.key_width, valid, planar.data(), width, width);
      for (int64_t x = 0; x < width; x += kPanel<T>)
        for (int64_t c = 0; c < C; ++c)
          std::memcpy(row + x * C + c * kPanel<T>,
                      planar.data() + c * width + x,
                      sizeof(T) * kPanel<T>);
    });
  }

  void match_dense() {
    const int64_t padded = round_up(a_.key_width, kPanel<T>) + (inside_product() ? 2 * kPanel<T> : 0);
    const int64_t row_size = a_.channels * (inside_product() ? padded + k_ : padded);
    Buffer<T> packed(a_.key_height * row_size);
    pack_keys(packed.data(), row_size);

    // Enough tasks for an even load: each block is cut along the row offset.
    const int64_t cuts = std::max<int64_t>(1, ceil_div(6 * a_.threads, int64_t(blocks_.size())));
    parallel_tasks(int64_t(blocks_.size()) * cuts, a_.threads, [&](int64_t task) {
      const Block& block = blocks_[task / cuts];
      const int64_t first = -(block.y1 - 1), count = keys_.height - block.y0 - first;
      const int64_t cut = task % cuts;
      DenseTask dense(*this, block, packed.data(), row_size);
      dense.run(first + count * cut / cuts, first + count * (cut + 1) / cuts);
    });
  }

  class DenseTask {
   public:
    DenseTask(Matcher& matcher, const Block& block, const T* packed, int64_t row_size)
        : m_(matcher),
          a_(matcher.a_),
          k_(matcher.k_),
          block_(block),
          packed_(packed),
          row_size_(row_size),
          columns_(block.x1 - block.x0),
          pixels_(matcher.inside_product() ? columns_ : columns_ + k_ - 1),
          depth_(matcher.inside_product() ? a_.channels * k_ : a_.channels),
          left_((block.y1 - block.y0 + k_ - 1) * pixels_ * depth_),
          best_(block, matcher.wanted_.data(), matcher.query_cols_),
          key_block_(key_block_width()),
          ld_(key_block_ + (matcher.inside_product() ? 0 : round_up(k_ - 1, W) + W)),
          gram_(matcher.inside_product() ? 0 : pixels_ * ld_),
          ring_(k_ * columns_ * key_block_),
          top_(columns_ * W) {
      pack_queries();
    }

    void run(int64_t delta0, int64_t delta1) {
      for (int64_t x0 = 0; x0 < m_.keys_.width; x0 += key_block_) {
        x0_ = x0;
        // Whole panels, padding included: it holds zeros and never matches.
        width_ = std::min(key_block_, round_up(m_.keys_.width - x0, kPanel<T>));
        if (x0 > 0) accept_equal();
        for (int64_t delta = delta0; delta < delta1; ++delta) sweep(delta);
      }
      const int64_t columns = columns_;
      for (int64_t y = block_.y0; y < block_.y1; ++y) {
        const int64_t i = (y - block_.y0) * columns;
        m_.matches_.merge(y * m_.query_cols_ + block_.x0,
                          best_.best.data() + i,
                          best_.index.data() + i,
                          columns);
      }
    }

   private:
    // Ring and products of a block of keys fit the second-level cache: 256 kB.
    int64_t key_block_width() const {
      const int64_t rows = k_ * columns_ + (m_.inside_product() ? 0 : pixels_);
      const int64_t fit = 262144 / (rows * int64_t(sizeof(T))) / kPanel<T> * kPanel<T>;
      const int64_t all = round_up(m_.keys_.width, kPanel<T>);
      const int64_t blocks = ceil_div(all, std::max(fit, 2 * kPanel<T>));
      return round_up(ceil_div(all, blocks), kPanel<T>);
    }

    // left_[row][tile][depth][rows of the tile]
    void pack_queries() {
      const ImageView<T>& image = a_.query;
      const int64_t C = a_.channels;
      for (int64_t y = block_.y0; y < block_.y1 + k_ - 1; ++y) {
        T* to = left_.data() + (y - block_.y0) * pixels_ * depth_;
        const T* row = image.data + m_.n_ * image.stride_n + y * image.stride_h;
        for (int64_t tile = 0; tile < tile_count(pixels_); ++tile) {
          const int64_t begin = tile_begin(pixels_, tile), end = tile_begin(pixels_, tile + 1);
          for (int64_t d = 0; d < depth_; ++d) {
            const T* from = row + d % C * image.stride_c + (block_.x0 + d / C) * image.stride_w;
            for (int64_t p = begin; p < end; ++p) *to++ = from[p * image.stride_w];
          }
        }
      }
    }

    // A later block of columns holds lower indices too: a score equal to the best is looked at.
    void accept_equal() {
      for (int64_t i = 0; i < columns_ * (block_.y1 - block_.y0); ++i) {
        const bool wanted = best_.limit[i] < -kMinusInfinity<T>;
        best_.limit[i] = wanted ? just_below(best_.best[i]) : best_.limit[i];
      }
      equal_counts_ = true;
    }

    // All row pairs (y, y + delta), downwards; after k of them every further one ends a patch row.
    void sweep(int64_t delta) {
      const int64_t begin = std::max(block_.y0, -delta);
      const int64_t end = std::min(block_.y1 + k_ - 1, a_.key_height - delta);
      for (int64_t y = begin; y < end; ++y) {
        slot_ = (y - begin) % k_;
        full_ = y - begin >= k_ - 1;
        query_row_ = y - k_ + 1;
        key_row_ = query_row_ + delta;
        const T* left = left_.data() + (y - block_.y0) * pixels_ * depth_;
        const T* right = packed_ + (y + delta) * row_size_;
        if (full_) {
          scale_ = m_.keys_.scale.data() + key_row_ * m_.keys_.ld + x0_;
          bias_ = m_.keys_.bias.data() + key_row_ * m_.keys_.ld + x0_;
          for (int64_t i = 0; i < columns_; ++i)
            store(top_.data() + i * W, broadcast(kMinusInfinity<T>));
        }
        if (m_.inside_product()) {
          products_in_ring(left, right);
        } else {
          products(left, right);
          diagonal_sums();
        }
        if (full_) look_up();
      }
    }

    T* ring(int64_t slot, int64_t column) {
      return ring_.data() + (slot * columns_ + column) * key_block_;
    }

    // Scores of one vector of keys from the sums along x of the last k row pairs; `newest` is the
    // last of them. Oldest first, so that the bits do not depend on the place in the ring.
    inline __attribute__((always_inline)) Vector<T> scores(int64_t column,
                                                            int64_t j,
                                                            Vector<T> newest) {
      Vector<T> sum = newest;
      if (k_ > 1) {
        int64_t slot = slot_ + 1 == k_ ? 0 : slot_ + 1;
        const int64_t step = columns_ * key_block_;
        const T* p = ring_.data() + column * key_block_ + j;
        sum = load(p + slot * step);
        for (int64_t i = 2; i < k_; ++i) {
          slot = slot + 1 == k_ ? 0 : slot + 1;
          sum += load(p + slot * step);
        }
        sum += newest;
      }
      return sum * load(scale_ + j) + load(bias_ + j);
    }

    inline __attribute__((always_inline)) void take(int64_t column, int64_t j, Vector<T> row_sum) {
      store(ring(slot_, column) + j, row_sum);
      if (!full_) return;
      T* top = top_.data() + column * W;
      store(top, max_or_second<T>(scores(column, j, row_sum), load(top)));
    }

    struct RingTile {
      DenseTask& task;
      const T *left, *right;
      int64_t begin;

      template <int ROWS>
      void run() {
        const int64_t C = task.a_.channels, ldb = task.row_size_ / C;
        for (int64_t j = 0; j < task.width_; j += kPanel<T>) {
          Accumulator<T, ROWS, 2> sum;
          sum.clear();
          for (int64_t dx = 0; dx < task.k_; ++dx)
            sum.add(left + dx * C * ROWS, right + task.x0_ + j + dx, ldb, C);
#pragma GCC unroll 16
          for (int r = 0; r < ROWS; ++r) {
            task.take(begin + r, j, sum.v[r][0]);
            task.take(begin + r, j + W, sum.v[r][1]);
          }
        }
      }
    };

    void products_in_ring(const T* left, const T* right) {
      for (int64_t tile = 0; tile < tile_count(pixels_); ++tile) {
        const int64_t begin = tile_begin(pixels_, tile), end = tile_begin(pixels_, tile + 1);
        RingTile body{*this, left + begin * depth_, right, begin};
        with_rows(end - begin, body);
      }
    }

    struct GramTile {
      DenseTask& task;
      const T *left, *right;
      int64_t begin, vectors;

      template <int ROWS>
      void run() {
        int64_t v = 0;
        for (; v + 2 <= vectors; v += 2) columns<ROWS, 2>(v);
        if (v < vectors) columns<ROWS, 1>(v);
      }

      template <int ROWS, int VECS>
      void columns(int64_t v) {
        Accumulator<T, ROWS, VECS> sum;
        sum.clear();
        const int64_t C = task.a_.channels;
        sum.add(left, right + (task.x0_ + v * W) * C, kPanel<T>, C);
        T* out = task.gram_.data() + begin * task.ld_ + v * W;
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r)
          for (int i = 0; i < VECS; ++i) store(out + r * task.ld_ + i * W, sum.v[r][i]);
      }
    };

    // Pixel products of one query row with the key pixels of this block and its halo.
    void products(const T* left, const T* right) {
      const int64_t last = round_up(a_.key_width, kPanel<T>);
      const int64_t pixels = std::min(width_ + k_ - 1, last - x0_);
      const int64_t vectors = ceil_div(pixels, W);
      for (int64_t r = 0; r < pixels_; ++r)
        for (int64_t j = vectors * W; j < ld_; ++j) gram_[r * ld_ + j] = T(0);
      for (int64_t tile = 0; tile < tile_count(pixels_); ++tile) {
        const int64_t begin = tile_begin(pixels_, tile), end = tile_begin(pixels_, tile + 1);
        GramTile body{*this, left + begin * depth_, right, begin, vectors};
        with_rows(end - begin, body);
      }
    }

    void diagonal_sums() {
      for (int64_t column = 0; column < columns_; ++column) {
        const T* diagonal = gram_.data() + column * ld_;
        for (int64_t j = 0; j < width_; j += W) {
          Vector<T> sum = load(diagonal + j);
          for (int64_t d = 1; d < k_; ++d) sum += load(diagonal + j + d * (ld_ + 1));
          take(column, j, sum);
        }
      }
    }

    // The row of scores is gone; where its maximum improves a query, it is made again to find where.
    void look_up() {
      for (int64_t column = 0; column < columns_; ++column) {
        const int64_t q = (query_row_ - block_.y0) * columns_ + column;
        const Vector<T> top = load(top_.data() + column * W);
        if (!any_greater<T>(top, best_.limit[q])) continue;
        const T score = horizontal_max<T>(top);
        for (int64_t j = 0; j < width_; j += W) {
          const Vector<T> row = scores(column, j, load(ring(slot_, column) + j));
          if (!any_greater<T>(row, just_below(score))) continue;
          int64_t lane = 0;
          while (!(row[lane] >= score)) ++lane;
          improve(q, score, key_row_ * m_.keys_.width + x0_ + j + lane);
          break;
        }
      }
    }

    void improve(int64_t q, T score, int64_t index) {
      if (score == best_.best[q] && index > best_.index[q] && best_.index[q] >= 0) return;
      best_.best[q] = score;
      best_.index[q] = index;
      best_.limit[q] = equal_counts_ ? just_below(score) : score;
    }

    Matcher& m_;
    const NearestPatchArgs<T>& a_;
    const int64_t k_;
    const Block& block_;
    const T* packed_;
    const int64_t row_size_, columns_, pixels_, depth_;
    Buffer<T> left_;
    BlockBest<T> best_;
    const int64_t key_block_, ld_;
    Buffer<T> gram_, ring_, top_;
    int64_t x0_ = 0, width_ = 0, slot_ = 0, query_row_ = 0, key_row_ = 0;
    bool full_ = false, equal_counts_ = false;
    const T *scale_ = nullptr, *bias_ = nullptr;
  };

  // ---- results -------------------------------------------------------------------------------

  void write() {
    const PatchAxis ys{query_rows_ - 1, a_.stride}, xs{query_cols_ - 1, a_.stride};
    const PatchAxis kys{keys_.height - 1, a_.key_stride}, kxs{keys_.width - 1, a_.key_stride};
    const int64_t first = n_ * ys.count() * xs.count();
    Buffer<double> norms(a_.cosine ? query_rows_ * query_cols_ : 0);
    if (a_.cosine) {
      patch_square_norms(a_.query,
                         n_,
                         a_.channels,
                         a_.query_height,
                         a_.query_width,
                         k_,
                         static_cast<const uint8_t*>(nullptr),
                         a_.threads,
                         norms.data());
    }
    parallel_tasks(ys.count(), a_.threads, [&](int64_t i) {
      for (int64_t j = 0; j < xs.count(); ++j) {
        const int64_t y = ys.origin(i), x = xs.origin(j);
        const int64_t found = matches_.index(y * query_cols_ + x);
        const int64_t o = first + i * xs.count() + j;
        if (found < 0) {
          a_.index[o] = -1;
          a_.score[o] = kMinusInfinity<T>;
          continue;
        }
        a_.index[o] = kys.position(found / keys_.width) * kxs.count() +
                      kxs.position(found % keys_.width);
        const T score = matches_.score(y * query_cols_ + x);
        const double norm = a_.cosine ? std::sqrt(norms[y * query_cols_ + x]) : 1.0;
        a_.score[o] = a_.cosine ? T(score / std::max(norm, kNormFloor)) : score;
      }
    });
  }

  const NearestPatchArgs<T>& a_;
  const int64_t n_, k_, query_rows_, query_cols_;
  const uint8_t* valid_;
  Keys<T> keys_;
  Buffer<uint8_t> wanted_;
  int64_t wanted_count_ = 0;
  BestMatches<T> matches_;
  std::vector<Block> blocks_;
};

}  // namespace

template <class T>
void nearest_patch(const NearestPatchArgs<T>& args) {
  const PatchAxis ys{args.query_height - args.patch, args.stride};
  const PatchAxis xs{args.query_width - args.patch, args.stride};
  const bool keys = args.key_height >= args.patch && args.key_width >= args.patch;
  if (!keys || args.channels == 0) {
    for (int64_t i = 0; i < args.batch * ys.count() * xs.count(); ++i) {
      args.index[i] = -1;
      args.score[i] = kMinusInfinity<T>;
    }
    return;
  }
  if (ys.count() * xs.count() == 0) return;
  for (int64_t n = 0; n < args.batch; ++n) Matcher<T>(args, n).run();
}

template void nearest_patch<float>(const NearestPatchArgs<float>&);
template void nearest_patch<double>(const NearestPatchArgs<double>&);

}  // namespace INPAINT_ISA
}  // namespace inpaint
