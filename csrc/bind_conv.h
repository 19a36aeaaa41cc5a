// Argument checks shared by the bindings of the convolutions.
#pragma once

#include <pybind11/stl.h>

#include <optional>
#include <utility>
#include <vector>

#include "bind.h"
#include "conv.h"

namespace inpaint {

using Pair = std::pair<int64_t, int64_t>;
using OptionalFloats = std::optional<Array<float>>;

inline Size2 size2(const Pair& pair) { return {pair.first, pair.second}; }

inline const float* packed_or_null(const OptionalFloats& array, int64_t size, const char* rule) {
  if (!array) return nullptr;
  require(is_packed<float>(*array) && array->size() == size, rule);
  return array->data();
}

inline Activation activation_of(int code) {
  require(code >= 0 && code <= int(Activation::kSigmoid), "activation");
  return Activation(code);
}

inline void set_valid(ConvArgs& a,
                      const std::optional<Array<uint8_t>>& valid,
                      const std::vector<int64_t>& part_end) {
  a.valid = nullptr;
  a.valid_stride_n = 0;
  a.part_end = part_end;
  if (!valid) return;
  require(is_packed<uint8_t>(*valid) && valid->ndim() == 4, "valid must be packed (N, P, H, W)");
  require(valid->shape(0) == 1 || valid->shape(0) == a.batch, "valid batch");
  require(valid->shape(1) == int64_t(part_end.size()), "valid parts");
  require(valid->shape(2) == a.height && valid->shape(3) == a.width, "valid size");
  int64_t last = 0;
  for (const int64_t end : part_end) {
    require(end > last, "parts must grow");
    last = end;
  }
  require(last == a.channels, "parts must cover the channels");
  a.valid = valid->data();
  a.valid_stride_n = valid->shape(0) == 1 ? 0 : valid->shape(1) * a.height * a.width;
}

}  // namespace inpaint
