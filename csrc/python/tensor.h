// Tensors of torch as the bindings see them: address, sizes and strides, read through Python, so
// that the extension is built without torch and keeps no hold on a tensor. (An array of numpy over
// a tensor's memory would make its storage unresizable for good.)
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "base/array.h"

namespace inpaint {

enum class Element { kUint8, kUint16, kInt64, kFloat, kDouble };

template <class T>
struct ElementOf;
template <>
struct ElementOf<uint8_t> {
  static constexpr Element kValue = Element::kUint8;
  static constexpr auto kName = pybind11::detail::const_name("Tensor[uint8]");
};
template <>
struct ElementOf<uint16_t> {
  static constexpr Element kValue = Element::kUint16;
  static constexpr auto kName = pybind11::detail::const_name("Tensor[uint16]");
};
template <>
struct ElementOf<int64_t> {
  static constexpr Element kValue = Element::kInt64;
  static constexpr auto kName = pybind11::detail::const_name("Tensor[int64]");
};
template <>
struct ElementOf<float> {
  static constexpr Element kValue = Element::kFloat;
  static constexpr auto kName = pybind11::detail::const_name("Tensor[float32]");
};
template <>
struct ElementOf<double> {
  static constexpr Element kValue = Element::kDouble;
  static constexpr auto kName = pybind11::detail::const_name("Tensor[float64]");
};

// Returns whether the object is a tensor of that element type; then `view` is filled. Throws a
// TypeError for a tensor of that type whose memory cannot be addressed: not in the CPU's memory,
// not strided, without storage, or stored negated.
bool read_tensor(PyObject* object, Element element, TensorView& view);

// Returns whether the object, a tensor, is of that element type, in the CPU's memory and of at most
// four dimensions; then all of `view` but its data is filled.
bool read_layout(PyObject* tensor, Element element, TensorView& view);

// Returns whether the object is a plain tensor, no subclass, of another element type or elsewhere.
bool is_other_tensor(PyObject* object, Element element);

// Fills in the data of a view with a layout. Throws as `read_tensor`.
void read_data(PyObject* tensor, TensorView& view);

// Memory of a result in float32 whose shape and strides, tuples of Python, are made once.
class Memory {
 public:
  Memory() = default;
  Memory(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides);

  // Returns a new tensor, and sets its view.
  pybind11::object make(TensorView& view) const;
  // Returns whether a view has this shape.
  bool has_shape_of(const TensorView& view) const;

 private:
  pybind11::object shape_, strides_;
  TensorView view_;
};

// To be called once, when the module is made.
void find_torch();

}  // namespace inpaint

namespace pybind11 {
namespace detail {

template <class T>
struct type_caster<inpaint::Array<T>> {
  PYBIND11_TYPE_CASTER(inpaint::Array<T>, inpaint::ElementOf<T>::kName);

  bool load(handle source, bool) {
    inpaint::TensorView view;
    if (!inpaint::read_tensor(source.ptr(), inpaint::ElementOf<T>::kValue, view)) return false;
    value = inpaint::Array<T>(view);
    return true;
  }
};

}  // namespace detail
}  // namespace pybind11
