// Pixels copied into the orders in which the patch-matching kernels read them.
//
// Right operands of products are panels, left operands tiles (base/gemm.h). Traffic: each pixel is
// read once and written once.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "matching/nearest_patch.h"
#include "matching/patch_gram.h"

namespace inpaint {
namespace INPAINT_ISA {

// Offsets of the pixels of a row, in elements.
inline std::vector<int64_t> places(int64_t begin, int64_t end, int64_t stride) {
  std::vector<int64_t> at;
  at.reserve(end - begin);
  for (int64_t x = begin; x < end; ++x) at.push_back(x * stride);
  return at;
}

// Copies row y of sample n to `out`, (C, width) at row stride ldo. Pixels that are not valid become
// zero, so that their content reaches no result; columns beyond the image become zero too.
template <class T>
void copy_row(const ImageView<T>& image,
              int64_t n,
              int64_t y,
              int64_t channels,
              int64_t width,
              const uint8_t* valid_row,
              T* out,
              int64_t ldo,
              int64_t padded_width) {
  const T* row = image.data + n * image.stride_n + y * image.stride_h;
  constexpr int64_t kBlock = 16;
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t c1 = c0 + kBlock < channels ? c0 + kBlock : channels;
    if (image.stride_w == 1) {
      for (int64_t c = c0; c < c1; ++c)
        std::memcpy(out + c * ldo, row + c * image.stride_c, sizeof(T) * width);
    } else {
      for (int64_t x = 0; x < width; ++x)
        for (int64_t c = c0; c < c1; ++c)
          out[c * ldo + x] = row[c * image.stride_c + x * image.stride_w];
    }
    for (int64_t c = c0; c < c1; ++c) {
      T* o = out + c * ldo;
      if (valid_row) {
        for (int64_t x = 0; x < width; ++x) o[x] = valid_row[x] ? o[x] : T(0);
      }
      for (int64_t x = width; x < padded_width; ++x) o[x] = T(0);
    }
  }
}

// Packs pixels as columns, [group][channel][pixels of the group]. With a width the groups hold that
// many pixels, the last one filled up with zeros (right operands: kPanel). With width 0 the groups
// are the tiles of base/gemm.h (left operands).
template <class T>
class PixelColumns {
 public:
  // at: offsets of the pixels, in elements.
  PixelColumns(std::vector<int64_t> at, int64_t width)
      : at_(std::move(at)), count_(int64_t(at_.size())), width_(width), ends_(count_) {
    // Dividing for every channel of every group would cost as much as the copies.
    const int64_t groups = width ? ceil_div(count_, width) : tile_count(count_);
    for (int64_t group = 0; group < groups; ++group)
      begins_.push_back(width ? group * width : tile_begin(count_, group));
    begins_.push_back(count_);
    for (int64_t j = count_ - 1; j >= 0; --j) {
      const bool joins = j + 1 < count_ && at_[j + 1] == at_[j] + 1;
      ends_[j] = joins ? ends_[j + 1] : j + 1;
      runs_ = runs_ || joins;
    }
  }

  int64_t groups() const { return int64_t(begins_.size()) - 1; }
  int64_t begin(int64_t group) const { return begins_[group]; }
  int64_t end(int64_t group) const { return begins_[group + 1]; }
  // Pixels of a group, with those filled up.
  int64_t width(int64_t group) const { return width_ ? width_ : end(group) - begin(group); }

  // One channel of a group.
  void copy(const T* plane, int64_t group, T* out) const {
    const int64_t first = begin(group), last = end(group), all = first + width(group);
    T* const to = out - first;
    if (!runs_) {
      for (int64_t j = first; j < last; ++j) to[j] = plane[at_[j]];
    } else {
      for (int64_t j = first; j < last;) {
        const int64_t stop = std::min(last, ends_[j]);
        const T* run = plane + at_[j] - j;
        for (; j + W <= stop; j += W) store(to + j, load(run + j));
        for (; j < stop; ++j) to[j] = run[j];
      }
    }
    for (int64_t j = last; j < all; ++j) to[j] = T(0);
  }

  // All channels of one group, of all groups.
  void pack_group(const T* base, int64_t stride_c, int64_t channels, int64_t group, T* out) const {
    const int64_t step = width(group);
    T* const to = out + begin(group) * channels;
    const int64_t first = begin(group), last = end(group);
    for (int64_t c = 0; c < channels; ++c) {
      // Channels may lie far apart: the next ones are fetched while this one is copied.
      const T* const ahead = base + std::min(c + 4, channels - 1) * stride_c;
      for (int64_t j = first; j < last; j += 8) __builtin_prefetch(ahead + at_[j]);
      copy(base + c * stride_c, group, to + c * step);
    }
  }
  void pack(const T* base, int64_t stride_c, int64_t channels, T* out) const {
    for (int64_t group = 0; group < groups(); ++group)
      pack_group(base, stride_c, channels, group, out);
  }

 private:
  static constexpr int64_t W = Simd<T>::kWidth;

  const std::vector<int64_t> at_;
  const int64_t count_, width_;
  std::vector<int64_t> begins_;  // of groups
  std::vector<int64_t> ends_;    // for each pixel the end of its run of neighbours in memory
  bool runs_ = false;
};

// Packs pixels as vectors of channels, [panel][pixel][kPanel], panels of `depth` pixels; channels
// beyond the last are zero.
template <class T>
void pack_vectors(const T* base,
                  int64_t stride_c,
                  int64_t channels,
                  const int64_t* at,
                  int64_t count,
                  int64_t depth,
                  T* out) {
  for (int64_t c0 = 0; c0 < channels; c0 += kPanel<T>, out += depth * kPanel<T>) {
    const int64_t some = std::min(kPanel<T>, channels - c0);
    for (int64_t i = 0; i < count; ++i) {
      const T* from = base + at[i] + c0 * stride_c;
      T* const to = out + i * kPanel<T>;
      for (int64_t c = 0; c < some; ++c) to[c] = from[c * stride_c];
      for (int64_t c = some; c < kPanel<T>; ++c) to[c] = T(0);
    }
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
