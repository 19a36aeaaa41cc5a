// Argument checks shared by the bindings of the convolutions.
#pragma once

#include <utility>
#include <vector>

#include "convolution/conv.h"
#include "python/arrays.h"

namespace inpaint {

using Pair = std::pair<int64_t, int64_t>;
using OptionalFloats = std::optional<Array<float>>;

inline Size2 size2(const Pair& pair) { return {pair.first, pair.second}; }

inline const float* packed_or_null(const OptionalFloats& array, int64_t size, const char* rule) {
  if (!array) return nullptr;
  require(array->is_packed() && array->size() == size, rule);
  return array->data();
}

inline Activation activation_of(int code) {
  require(code >= 0 && code <= int(Activation::kSigmoid), "activation");
  return Activation(code);
}

// What one tensor of a convolution's input is besides its data: its upsampling factor and the
// channels that each plane of its mask speaks for, in order.
using TensorShape = std::pair<int, std::vector<int64_t>>;

inline void check_shapes(const std::vector<TensorShape>& shapes) {
  require(!shapes.empty(), "there must be a tensor");
  for (const auto& [upsample, widths] : shapes) {
    require(upsample == 1 || upsample == 2, "upsample");
    require(!widths.empty(), "widths");
    for (const int64_t width : widths) require(width >= 1, "widths");
  }
}

// The parts of tensors (N, C, H, W), one for each plane of a mask, bytes (N or 1, planes, H, W).
inline void set_parts(ConvArgs& a,
                      const std::vector<TensorShape>& shapes,
                      const std::vector<Array<float>>& x,
                      const std::vector<std::optional<Array<uint8_t>>>& valid) {
  require(x.size() == shapes.size() && valid.size() == shapes.size(), "one mask a tensor");
  a.parts.clear();
  a.channels = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto& [upsample, widths] = shapes[i];
    const Array<float>& image = x[i];
    require(image.ndim() == 4 && image.size() > 0, "x must have four dimensions, none empty");
    if (i == 0) a.batch = image.shape(0);
    int64_t channels = 0;
    for (const int64_t width : widths) channels += width;
    require(image.shape(0) == a.batch && image.shape(1) == channels, "x size");
    Part part{};
    part.height = image.shape(2);
    part.width = image.shape(3);
    part.stride_n = image.stride(0);
    part.stride_y = image.stride(2);
    part.stride_x = image.stride(3);
    part.stride_c = channels == 1 ? 1 : image.stride(1);
    part.upsample = upsample;
    const int64_t plane = part.height * part.width;
    if (valid[i]) {
      const Array<uint8_t>& mask = *valid[i];
      require(mask.is_packed() && mask.ndim() == 4, "valid must be packed (N, P, H, W)");
      require(mask.shape(0) == 1 || mask.shape(0) == a.batch, "valid batch");
      require(mask.shape(1) == int64_t(widths.size()), "valid planes");
      require(mask.shape(2) == part.height && mask.shape(3) == part.width, "valid size");
      part.valid_stride_n = mask.shape(0) == 1 ? 0 : mask.shape(1) * plane;
    }
    int64_t first = 0;
    for (size_t p = 0; p < widths.size(); ++p) {
      part.x = image.data() + first * part.stride_c;
      part.channels = widths[p];
      if (valid[i]) part.valid = valid[i]->data() + int64_t(p) * plane;
      a.parts.push_back(part);
      first += widths[p];
    }
    a.channels += channels;
  }
  const Part& first = a.parts.front();
  for (const Part& part : a.parts)
    require(part.height * part.upsample == first.height * first.upsample &&
                part.width * part.upsample == first.width * first.upsample,
            "tensors must have one size behind their upsampling");
}

}  // namespace inpaint
