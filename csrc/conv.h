// What the convolution kernels take. Images lie as (N, H, W, C), channels adjacent; one group.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu.h"

namespace inpaint {

// Values are those of inpaint_ops/ops/_conv.py.
enum class Activation { kIdentity, kRelu, kLeakyRelu, kElu, kSilu, kTanh, kSigmoid };
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
  Size2 padding;  // before; what is read behind the image follows from the output's size
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

  float* y;  // (N, Ho, Wo, filters or filters / 2)
  float* z;  // (N, Ho, Wo, filters): the sums before activation and gate; null: not wanted
  int64_t out_height, out_width;
  // The part of the output that is computed, half open; the rest of y and z is left alone.
  Size2 region_begin, region_end;
  int threads;
};

// clang-format off
INPAINT_EACH_ISA(
  // Floats of the packed form, for each core.
  int64_t winograd_packed_size(int64_t filters, int64_t channels, bool gated);
  int64_t direct_packed_size(int64_t filters, int64_t channels, bool gated, Size2 kernel);
  void pack_winograd(const PackArgs& args);
  void pack_direct(const PackArgs& args);

  // 3x3, stride 1, any dilation.
  void conv_winograd(const ConvArgs& args);
  // Any kernel, stride and dilation.
  void conv_direct(const ConvArgs& args);
)
// clang-format on

}  // namespace inpaint
