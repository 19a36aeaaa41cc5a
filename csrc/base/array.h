// Views of tensors, and the checks that guard their memory; users meet those of inpaint_ops.ops
// first.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>

#include "base/large_pages.h"

namespace inpaint {

inline void require(bool holds, const char* rule) {
  if (!holds) throw std::invalid_argument(rule);
}

struct TensorView {
  static constexpr int kMaxDims = 4;

  void* data = nullptr;
  int ndim = 0;
  int64_t size = 0;  // Number of elements.
  int64_t shape[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};  // In elements.
};

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

  // Returns whether the elements lie in the order of the axes, without gaps.
  bool is_packed() const {
    constexpr int kOrder[TensorView::kMaxDims] = {0, 1, 2, 3};
    return is_packed(kOrder);
  }

  // Returns whether an (N, C, H, W) tensor lies as (N, H, W, C), without gaps.
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

using OptionalFloats = std::optional<Array<float>>;

inline const float* packed_or_null(const OptionalFloats& array, int64_t size, const char* rule) {
  if (!array) return nullptr;
  require(array->is_packed() && array->size() == size, rule);
  return array->data();
}

// Memory without gaps that is about to be written from end to end.
template <class T>
T* whole_memory(Array<T>& array) {
  T* data = array.mutable_data();
  ask_for_large_pages(data, size_t(array.size()) * sizeof(T));
  return data;
}

template <class T>
T* output(Array<T>& array, int64_t size) {
  require(array.is_packed() && array.size() == size, "output must be packed and fit");
  return whole_memory(array);
}

// The memory of an (N, C, H, W) result.
template <class T>
T* channels_last_output(Array<T>& array, int64_t size) {
  require(array.is_channels_last() && array.size() == size, "output must be channels_last and fit");
  return whole_memory(array);
}

}  // namespace inpaint
