// Transformed inputs of few channels: all parts of the kernel side by side fill the vectors.
//
// A vector holds channels of several parts, so of several pixels. Loads under a mask bring each
// part's channels into their lanes, and the vector is transformed where it was put together. Where
// the pixels were brought together in memory first, 7x7 of 3 channels took 1.15 times as long.
//
// Part of winograd.cpp.
#pragma once

#include <vector>

#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

template <class T>
class ThinInputs {
 public:
  // All are kept, not copied.
  ThinInputs(const ConvArgs& a, const Layout<T>& layout, const std::vector<Lattice<T>>& lattices)
      : a_(a), layout_(layout), lattices_(lattices) {
    constexpr int64_t W = Simd<float>::kWidth;
    vectors_.resize(size_t(ceil_div(layout.parts() * a.channels, W)));
    for (int64_t part = 0; part < layout.parts(); ++part)
      for (const Lattice<T>& lattice : lattices) {
        const SourcePart& image = lattice.image();
        const int64_t first = part * a.channels + image.begin;
        const int64_t end = first + image.end - image.begin;
        for (int64_t v = first / W; v * W < end; ++v) {
          const int64_t begin = std::max(first - v * W, int64_t(0));
          vectors_[size_t(v)].push_back({found_ * kPixels,
                                         v * W - first,
                                         lane_mask(int(begin), int(std::min(end - v * W, W)))});
        }
        ++found_;
      }
  }

  // Addresses that `transform` needs room for.
  int64_t reads() const { return found_ * kPixels; }

  // Takes the inputs of a tile to `to`; `stride`: floats up to the next tile's. `reads`: scratch.
  void transform(
      const Tile& tile, const float** reads, float* to, int64_t stride, int64_t plane) const {
    const float** next = reads;
    each_part(a_, layout_, tile, [&](int64_t, int64_t y, int64_t x) {
      for (const Lattice<T>& lattice : lattices_) {
        lattice.find(tile.n, y, x, next);
        next += kPixels;
      }
    });
    constexpr int64_t W = Simd<float>::kWidth;
    for (size_t v = 0; v < vectors_.size(); ++v) {
      float* first = to + int64_t(v) * W;
      const int64_t room = stride - int64_t(v) * W;
      const int64_t count = int64_t(vectors_[v].size());
      if (count == kUsual) {
        together<kUsual>(vectors_[v], reads, first, room, plane);
      } else if (count == kNext) {
        together<kNext>(vectors_[v], reads, first, room, plane);
      } else {
        together<0>(vectors_[v], reads, first, room, plane);
      }
    }
  }

 private:
  static constexpr int64_t kPixels = Lattice<T>::kPixels;

  // Neighbouring channels of one image in one part.
  struct Lanes {
    int64_t lattice;  // where the addresses of its pixels begin
    int64_t shift;    // from a pixel to what lane 0 would be
    LaneMask mask;
  };

  // Parts in a vector, of kernels that fall into four parts of 3 to 5 channels. Where the compiler
  // knows their number, a first layer takes 0.93 of the time. 0: any number, also where no
  // instruction loads under a mask.
  static constexpr int kUsual = kLoadsLanes ? Simd<float>::kWidth / 4 : 0;
  static constexpr int kNext = kLoadsLanes ? kUsual + 1 : 0;

  // `COUNT`: all.size(), or 0.
  template <int COUNT>
  static void together(const std::vector<Lanes>& all,
                       const float* const* reads,
                       float* to,
                       int64_t room,
                       int64_t plane) {
    transform_input<T>(
        [&](int i, int j) INPAINT_INLINED {
          const float* const* pixels = reads + i * T::kReads + j;
          if constexpr (COUNT == 0) return any_number(all, pixels);
          Vector<float> v{};
          for (int k = 0; k < COUNT; ++k) v = with(v, all[size_t(k)], pixels);
          return v;
        },
        to,
        room,
        plane);
  }

  // `v` and what a part adds to it.
  static inline __attribute__((always_inline)) Vector<float> with(Vector<float> v,
                                                                  const Lanes& lanes,
                                                                  const float* const* pixels) {
    return load_lanes(v, pixels[lanes.lattice] + lanes.shift, lanes.mask);
  }

  static __attribute__((noinline)) Vector<float> any_number(const std::vector<Lanes>& all,
                                                            const float* const* pixels) {
    Vector<float> v{};
    for (const Lanes& lanes : all) v = with(v, lanes, pixels);
    return v;
  }

  const ConvArgs& a_;
  const Layout<T>& layout_;
  const std::vector<Lattice<T>>& lattices_;
  int64_t found_ = 0;  // lattices of all parts
  std::vector<std::vector<Lanes>> vectors_;
};

}  // namespace
}  // namespace INPAINT_ISA
}  // namespace inpaint
