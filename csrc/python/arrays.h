// Argument checks shared by the bindings: they repeat only what guards memory; users meet the
// checks of inpaint_ops.ops first.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "matching/nearest_patch.h"
#include "python/tensor.h"

namespace inpaint {

namespace py = pybind11;

template <class T>
ImageView<T> image_view(const Array<T>& image) {
  require(image.ndim() == 4, "image must have four dimensions");
  return {image.data(), image.stride(0), image.stride(1), image.stride(2), image.stride(3)};
}

using OptionalBytes = std::optional<Array<uint8_t>>;

inline MaskView mask_view(const OptionalBytes& mask, int64_t batch, int64_t height, int64_t width) {
  if (!mask) return {nullptr, 0};
  require(mask->is_packed() && mask->ndim() == 3, "mask must be packed bytes (N, H, W)");
  require(mask->shape(0) == 1 || mask->shape(0) == batch, "mask batch");
  require(mask->shape(1) == height && mask->shape(2) == width, "mask size");
  return {mask->data(), mask->shape(0) == 1 ? 0 : height * width};
}

// One function a family, called by python/module.cpp.
void bind_attention(py::module_& m);
void bind_conv_calls(py::module_& m);
void bind_convolution(py::module_& m);
void bind_epilogue(py::module_& m);
void bind_fingerprint(py::module_& m);
void bind_images(py::module_& m);
void bind_instance_norm(py::module_& m);
void bind_mask_planes(py::module_& m);
void bind_matching(py::module_& m);
void bind_shift_connection(py::module_& m);
void bind_watchers(py::module_& m);

}  // namespace inpaint
