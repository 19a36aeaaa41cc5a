// Blocks of pixels of an image, as instance normalisation reads and writes them.
//
// A block takes about 128 KB, so that it stays in the second-level cache between two reads. It has
// at most 512 pixels, so that float sums keep their digits. Its size depends on the image alone, so
// the number of threads changes no bit. A block of an image with channels first is transposed in
// scratch, so both layouts give equal bits.
#pragma once

#include <algorithm>

#include "base/parallel.h"
#include "base/transpose.h"
#include "norm/instance_norm.h"

namespace inpaint {
namespace INPAINT_ISA {

constexpr int64_t kWidth = Simd<float>::kWidth;

// Pixels of a block.
inline int64_t block_pixels(int64_t channels) {
  return std::max<int64_t>(16, std::min<int64_t>(512, 32768 / channels));
}

inline Vector<float> load_some(const float* from, int64_t count) {
  if (count == kWidth) return load(from);
  Vector<float> v = {};
  std::memcpy(&v, from, sizeof(float) * count);
  return v;
}

inline void store_some(float* to, Vector<float> v, int64_t count) {
  if (count == kWidth) return store(to, v);
  std::memcpy(to, &v, sizeof(float) * count);
}

// Transposes a matrix: to[j * to_step + i] = from[i * from_step + j].
inline void transpose_block(const float* from,
                            int64_t from_step,
                            int64_t rows,
                            int64_t columns,
                            float* to,
                            int64_t to_step) {
  const int64_t whole_rows = rows / kWidth * kWidth, whole_columns = columns / kWidth * kWidth;
  for (int64_t i = 0; i < whole_rows; i += kWidth)
    for (int64_t j = 0; j < whole_columns; j += kWidth) {
      Vector<float> square[kWidth];
#pragma GCC unroll 16
      for (int64_t k = 0; k < kWidth; ++k) square[k] = load(from + (i + k) * from_step + j);
      transpose(square);
#pragma GCC unroll 16
      for (int64_t k = 0; k < kWidth; ++k) store(to + (j + k) * to_step + i, square[k]);
    }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_step + i] = from[i * from_step + j];
}

// Blocks of an image (N, pixels, channels), or (N, channels, pixels) with channels first.
struct PixelBlocks {
  int64_t pixels, channels, block, count;  // count: blocks of a sample
  bool channels_first;                     // and that is another order than channels last

  template <class Args>
  explicit PixelBlocks(const Args& a)
      : pixels(a.pixels),
        channels(a.channels),
        block(block_pixels(a.channels)),
        count(ceil_div(a.pixels, block)),
        channels_first(a.channels_first && a.channels > 1 && a.pixels > 1) {}

  int64_t begin(int64_t task) const { return task % count * block; }
  int64_t size(int64_t task) const { return std::min(block, pixels - begin(task)); }
  // Floats of scratch for one image.
  int64_t scratch() const { return channels_first ? block * channels : 0; }

  // Rows of a block, in place or as a copy in scratch; null without an image.
  const float* rows(const float* image, int64_t task, float* scratch) const {
    if (!image || !channels_first) return at(image, task);
    transpose_block(at(image, task), pixels, channels, size(task), scratch, channels);
    return scratch;
  }
  // Memory for the rows of a result; settle() then brings them to the image.
  float* target(float* image, int64_t task, float* scratch) const {
    return channels_first ? scratch : at(image, task);
  }
  void settle(const float* rows, float* image, int64_t task) const {
    if (channels_first)
      transpose_block(rows, channels, size(task), channels, at(image, task), pixels);
  }

 private:
  template <class Float>
  Float* at(Float* image, int64_t task) const {
    if (!image) return nullptr;
    const int64_t step = channels_first ? 1 : channels;
    return image + task / count * pixels * channels + begin(task) * step;
  }
};

// Calls body(first channel, number of channels) for whole vectors, then for the rest.
template <class Body>
inline void each_vector(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kWidth <= channels; c += kWidth) body(c, kWidth);
  if (c < channels) body(c, channels - c);
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
