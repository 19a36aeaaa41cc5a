// Enumerations by their names, pairs of sizes and tensor arguments, for the bindings.
#pragma once

#include <string>
#include <utility>

#include "convolution/conv.h"
#include "python/arrays.h"

namespace inpaint {

using Pair = std::pair<int64_t, int64_t>;

inline Size2 size2(const Pair& pair) { return {pair.first, pair.second}; }

// The value whose name, in the list of its enumeration, that is.
template <class Enum, size_t N>
Enum named(const char* const (&names)[N], const std::string& name, const char* rule) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return static_cast<Enum>(i);
  throw std::invalid_argument(rule);
}

inline Activation activation_of(const std::string& name) {
  return named<Activation>(kActivationNames, name, "activation");
}

inline PaddingMode padding_mode_of(const std::string& name) {
  return named<PaddingMode>(kPaddingModeNames, name, "padding mode");
}

// Tensors are never converted: a copy would swallow what a kernel writes.
inline py::arg tensor(const char* name) { return py::arg(name).noconvert(); }

}  // namespace inpaint
