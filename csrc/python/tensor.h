// Tensors of torch as the bindings see them: address, sizes and strides, read through Python, so
// that the extension is built without torch and keeps no hold on a tensor. (An array of numpy over
// a tensor's memory would make its storage unresizable for good.)
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

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

struct TensorView {
  static constexpr int kMaxDims = 4;

  void* data = nullptr;
  int ndim = 0;
  int64_t size = 0;  // Number of elements.
  int64_t shape[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};  // In elements.
};

// Whether the object is a tensor of that element type; then `view` is filled. Throws a TypeError
// for a tensor of that type whose memory cannot be addressed: not in the CPU's memory, not strided,
// without storage, or stored negated.
bool read_tensor(PyObject* object, Element element, TensorView& view);

// To be called once, when the module is made.
void find_torch();

// A tensor of one element type, never converted: a copy would swallow what a kernel writes. Valid
// as long as its owner, the caller's tensor, is.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(const TensorView& view) : view_(view) {}

  int ndim() const { return view_.ndim; }
  int64_t size() const { return view_.size; }
  int64_t shape(int axis) const { return view_.shape[axis]; }
  int64_t stride(int axis) const { return view_.strides[axis]; }
  const T* data() const { return static_cast<const T*>(view_.data); }
  T* mutable_data() { return static_cast<T*>(view_.data); }

  // Whether the elements lie in the order of the axes, without gaps.
  bool is_packed() const {
    constexpr int kOrder[TensorView::kMaxDims] = {0, 1, 2, 3};
    return is_packed(kOrder);
  }

  // Whether an (N, C, H, W) tensor lies as (N, H, W, C), without gaps.
  bool is_channels_last() const {
    constexpr int kOrder[TensorView::kMaxDims] = {0, 2, 3, 1};
    return view_.ndim == 4 && is_packed(kOrder);
  }

 private:
  bool is_packed(const int* order) const {
    if (view_.size == 0) return true;
    int64_t expected = 1;
    for (int i = view_.ndim; i-- > 0;) {
      const int axis = order[i];
      if (view_.shape[axis] != 1 && view_.strides[axis] != expected) return false;
      expected *= view_.shape[axis];
    }
    return true;
  }

  TensorView view_;
};

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
