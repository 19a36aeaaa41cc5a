// Arguments of the convolution kernels; one group. Images lie as (N, H, W, C), channels adjacent;
// input and result may also lie as (N, C, H, W).
#pragma once

#include <cstdint>
#include <vector>

#include "base/activation_codes.h"
#include "base/cpu.h"

namespace inpaint {

// How a convolution is summed. Winograd's algorithms are named F(m, r) as in Lavin and Gray, 2016:
// m x m outputs a tile, r x r taps at a time; a larger kernel falls into parts of r x r taps.
//
//   name                     inputs a tile  products  taken for, mostly
//   winograd_4x3             6 x 6          36        3x3, 5x5; 3x3 of dilated layers
//   winograd_4x3_upsampled   4 x 4 pixels   36        3x3 after nearest upsampling, padding 1
//   winograd_5x2             6 x 6          36        3x3 and 4x4 with stride 2, transposed 4x4
//   winograd_4x2             5 x 5          25        the same where outputs fall into whole tiles
//   winograd_3x4             6 x 6          36        7x7, 4x4
//   winograd_5x4             8 x 8          64        7x7, 4x4
//   winograd_4x5             8 x 8          64        5x5
//
// Those of 8 x 8 inputs are the large tiles: they err more, and sum no gradients of weights.
enum class Algorithm {
  kDirect,
  kWinograd4x3,
  kWinograd4x3Upsampled,
  kWinograd5x2,
  kWinograd4x2,
  kWinograd3x4,
  kWinograd5x4,
  kWinograd4x5,
  kUnpacked  // direct sums of a weight that is read where it lies, see convolution/unpacked.h
};
constexpr const char* kAlgorithmNames[] = {"direct",
                                           "winograd_4x3",
                                           "winograd_4x3_upsampled",
                                           "winograd_5x2",
                                           "winograd_4x2",
                                           "winograd_3x4",
                                           "winograd_5x4",
                                           "winograd_4x5",
                                           "unpacked"};

// Whether an algorithm has the large tiles.
constexpr bool is_large(Algorithm algorithm) {
  return algorithm == Algorithm::kWinograd5x4 || algorithm == Algorithm::kWinograd4x5;
}

enum class PaddingMode { kZeros, kReflect, kReplicate };
constexpr const char* kPaddingModeNames[] = {"zeros", "reflect", "replicate"};

struct Size2 {
  int64_t y, x;
};

// Filter taps (filters, channels, whole.y, whole.x) at any strides, what is packed of them, and
// where it goes. A gated layer has `filters / 2` features, then as many gates.
struct PackArgs {
  Algorithm algorithm;
  const float* weight;
  int64_t stride_filter, stride_channel, stride_y, stride_x;
  int64_t filters, channels;
  Size2 whole;
  Size2 kernel, first;  // so many taps, from that one on,
  int64_t step;         // so far apart along both axes; negative: backwards
  Size2 stride;
  bool gated;
  float* packed;
  int threads;

  // Where a packed tap is among the whole kernel's.
  Size2 tap(int64_t y, int64_t x) const { return {first.y + y * step, first.x + x * step}; }
  float at(int64_t filter, int64_t channel, int64_t y, int64_t x) const {
    const Size2 its = tap(y, x);
    return weight[filter * stride_filter + channel * stride_channel + its.y * stride_y +
                  its.x * stride_x];
  }
};

// One of the images (N, height, width, channels) that are read as if they were concatenated along
// their channels, each at its own resolution.
struct Part {
  const float* x;
  int64_t height, width, channels;
  int64_t stride_n, stride_y, stride_x, stride_c;
  int upsample;  // nearest, 1 or 2, applied before the padding
  // Bytes (N or 1, height, width): which pixels are read; the others count as zero, whatever they
  // hold. Null: all.
  const uint8_t* valid;
  int64_t valid_stride_n;
  // Where `direct_reads` and `winograd_reads` mark the pixels that are read: bytes (N, height,
  // width). The other kernels leave it alone.
  uint8_t* reads;
};

struct ConvArgs {
  Algorithm algorithm = Algorithm::kDirect;
  std::vector<Part> parts;  // of one size after their upsampling
  int64_t batch, channels;  // channels: of all parts
  PaddingMode padding_mode;
  Size2 padding;  // before, negative: cut off; what is read after the image's end follows from
                  // the output's size
  Size2 kernel, stride, dilation;

  const float* packed;
  const float* bias;  // null: none
  int64_t filters;
  bool gated;
  Activation activation;

  // y = activation(sum * mask_ratio + bias * update_mask), zero where update_mask is zero; planes
  // (N or 1, Ho, Wo). Null: plain sum + bias.
  const float* mask_ratio;
  const float* update_mask;
  int64_t mask_stride_n;

  float* y;  // (N, height, width, filters or filters / 2) of the stored image
  // y is (N, filters or filters / 2, height, width) instead; direct sums with pixels in the lanes
  // and unpacked weights write that, the others leave it to `conv_all`.
  bool y_planes = false;
  // y is larger than a processor core's caches, and its pixels begin at cache lines: written past
  // the caches, if the instruction set can.
  bool y_streams = false;
  // The same with `filters` channels: the sums before activation and gate; null: not wanted.
  float* pre_activation;
  int64_t out_height, out_width;
  // Output (i, j) is stored at (i, j) * store_step + store_offset of an image of store_size: the
  // phases of a transposed convolution interleave. Steps beyond 1 go without mask_ratio and
  // update_mask.
  Size2 store_step, store_offset, store_size;
  // Bytes (N or 1, store_size): the outputs that are wanted. Everything else in y and
  // pre_activation is left alone. Null: all.
  const uint8_t* wanted;
  int64_t wanted_stride_n;
  // An output at which one of Winograd's tiles begins: where tiles lie decides of last bits. If not
  // at the first output, tiles begin `lead` outputs before it.
  Size2 anchor, lead;
  int threads;
};

// Work that a convolution does for the outputs that are wanted, and for all, in units of its own.
struct Share {
  int64_t wanted = 0, all = 0;
};

// Number of the stored pixel of output (y, x) of image n.
inline int64_t stored_pixel(const ConvArgs& a, int64_t n, int64_t y, int64_t x) {
  return (n * a.store_size.y + y * a.store_step.y + a.store_offset.y) * a.store_size.x +
         x * a.store_step.x + a.store_offset.x;
}

// Whether output (y, x) of image n is wanted.
inline bool is_wanted(const ConvArgs& a, int64_t n, int64_t y, int64_t x) {
  return !a.wanted || a.wanted[n * a.wanted_stride_n + stored_pixel(a, 0, y, x)];
}

// clang-format off
INPAINT_EACH_ISA(
  // Floats of the packed form that `args` asks for.
  int64_t winograd_packed_size(const PackArgs& args);
  int64_t direct_packed_size(const PackArgs& args);
  // Of one weight, all alike but for `kernel`, `first` and `packed`.
  void pack_winograd(const std::vector<PackArgs>& phases);
  void pack_direct(const std::vector<PackArgs>& phases);

  // Any kernel; along each axis stride or dilation is 1. kWinograd4x3Upsampled: 3 x 3, stride 1,
  // dilation 1 and padding 1 after upsample 2.
  bool winograd_takes(const ConvArgs& args);
  void conv_winograd(const ConvArgs& args);
  // Marks in Part::reads all that the sums of the wanted outputs depend on: their bits too. What is
  // valid does not count, nor what parts hold.
  Share winograd_reads(const ConvArgs& args);
  // Any kernel, stride and dilation, but for a stride with a dilation where filters are few.
  bool direct_takes(const ConvArgs& args);
  void conv_direct(const ConvArgs& args);
  Share direct_reads(const ConvArgs& args);
)
// clang-format on

}  // namespace inpaint
