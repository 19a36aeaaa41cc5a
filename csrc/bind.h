// Argument checks shared by the bindings: they repeat only what guards memory; users meet the
// checks of inpaint_ops.ops first.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "nearest_patch.h"

namespace inpaint {

namespace py = pybind11;

// An array of one element type, never converted: a copy would swallow what a kernel writes.
template <class T>
using Array = py::array_t<T, 0>;

inline void require(bool holds, const char* rule) {
  if (!holds) throw std::invalid_argument(rule);
}

template <class T>
ImageView<T> image_view(const py::array& array) {
  require(array.ndim() == 4, "image must have four dimensions");
  require(py::isinstance<py::array_t<T>>(array), "image has another type than its function");
  const auto stride = [&](int axis) { return int64_t(array.strides(axis)) / int64_t(sizeof(T)); };
  return {static_cast<const T*>(array.data()), stride(0), stride(1), stride(2), stride(3)};
}

template <class T>
bool is_packed(const py::array& array) {
  return py::isinstance<py::array_t<T, py::array::c_style>>(array);
}

inline MaskView mask_view(const py::object& object, int64_t batch, int64_t height, int64_t width) {
  if (object.is_none()) return {nullptr, 0};
  const py::array array = object.cast<py::array>();
  require(is_packed<uint8_t>(array) && array.ndim() == 3, "mask must be packed bytes (N, H, W)");
  require(array.shape(0) == 1 || array.shape(0) == batch, "mask batch");
  require(array.shape(1) == height && array.shape(2) == width, "mask size");
  return {static_cast<const uint8_t*>(array.data()), array.shape(0) == 1 ? 0 : height * width};
}

template <class T>
T* output(py::array& array, int64_t size) {
  require(is_packed<T>(array) && array.size() == size, "output must be packed and fit");
  return static_cast<T*>(array.mutable_data());
}

// One function a family, called by module.cpp.
void bind_attention(py::module_& m);
void bind_conv(py::module_& m);
void bind_conv_choose(py::module_& m);
void bind_conv_plan(py::module_& m);
void bind_instance_norm(py::module_& m);
void bind_conv_weight_gradient(py::module_& m);
void bind_matching(py::module_& m);
void bind_shift_connection(py::module_& m);

}  // namespace inpaint
