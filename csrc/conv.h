// What the convolution kernels take. Images lie as (N, H, W, C), channels adjacent; one group.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu.h"

namespace inpaint {

// Values are those of inpaint_ops/ops/_conv.py and _conv_cpu.py.
enum class Activation { kIdentity, kRelu, kLeakyRelu, kElu, kSilu, kTanh, kSigmoid };
enum class Core { kDirect, kWinograd, kWinogradDoubled };
enum class PaddingMode { kZeros, kReflect, kReplicate };

constexpr float kLeakySlope = 0.2f;

struct Size2 {
  int64_t y, x;
};

// Filter taps (filters, channels, kernel.y, kernel.x) at any strides, negative ones included, and
// where their packed form goes. A gated layer has `filters / 2` features, then as many gates.
struct PackArgs {
  const float* weight;
  int64_t stride_filter, stride_channel, stride_y, stride_x;
  int64_t filters, channels;
  Size2 kernel;
  bool gated;
  float* packed;
  int threads;
};

struct ConvArgs {
  const float* x;
  int64_t batch, height, width, channels;
  int64_t stride_n, stride_y, stride_x;
  int upsample;  // nearest, 1 or 2, applied before the padding
  PaddingMode padding_mode;
  Size2 padding;  // before, negative: cut off; what is read behind the image follows from the
                  // output's size
  Size2 kernel, stride, dilation;

  // Bytes (N or 1, parts, H, W): part p says of channels part_end[p - 1] to part_end[p] which
  // pixels are read; the others count as zero, whatever they hold. Null: all.
  const uint8_t* valid;
  int64_t valid_stride_n;
  std::vector<int64_t> part_end;

  const float* packed;
  const float* bias;  // null: none
  int64_t filters;
  bool gated;
  Activation activation;

  // y = activation(sum * scale + bias * share), zero where share is zero; planes (N or 1, Ho, Wo).
  // Null: plain sum + bias.
  const float* scale;
  const float* share;
  int64_t scale_stride_n;

  float* y;  // (N, height, width, filters or filters / 2) of the stored image
  float* z;  // the same with `filters`: the sums before activation and gate; null: not wanted
  int64_t out_height, out_width;
  // Output (i, j) is stored at (i, j) * store_step + store_offset of an image of store_size: the
  // phases of a transposed convolution interleave. Steps beyond 1 go without scale and share.
  Size2 store_step, store_offset, store_size;
  // The part of the output that is computed, half open; the rest of y and z is left alone.
  Size2 region_begin, region_end;
  int threads;
};

// Number of the stored pixel of output (y, x) of image n.
inline int64_t stored_pixel(const ConvArgs& a, int64_t n, int64_t y, int64_t x) {
  return (n * a.store_size.y + y * a.store_step.y + a.store_offset.y) * a.store_size.x +
         x * a.store_step.x + a.store_offset.x;
}

// clang-format off
INPAINT_EACH_ISA(
  // Floats of the packed form, for each core.
  int64_t winograd_packed_size(int64_t filters, int64_t channels, bool gated, bool doubled);
  int64_t direct_packed_size(int64_t filters, int64_t channels, bool gated, Size2 kernel);
  void pack_winograd(const PackArgs& args);
  void pack_winograd_doubled(const PackArgs& args);
  void pack_direct(const PackArgs& args);

  // 3x3, stride 1, any dilation.
  void conv_winograd(const ConvArgs& args);
  // The same with upsample 2, dilation 1 and padding 1.
  void conv_winograd_doubled(const ConvArgs& args);
  // Any kernel, stride and dilation, but for a stride with a dilation where filters are few.
  bool direct_takes(const ConvArgs& args);
  void conv_direct(const ConvArgs& args);
)
// clang-format on

}  // namespace inpaint
