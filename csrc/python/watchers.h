// What stands between a call of an operator and its kernel, read through Python: see
// inpaint_ops/ops/shortcut.py, which says what is asked and why.
#pragma once

#include <pybind11/pybind11.h>

namespace inpaint {

// Returns whether the dispatcher would only record for autograd and call the device's kernel.
// Tensors are any objects. Throws Python's error where torch lacks one of the questions.
bool is_open(PyObject* const* tensors, size_t count);

// Returns the result of a function without arguments.
inline pybind11::object called(PyObject* function) {
  PyObject* result = PyObject_Vectorcall(function, nullptr, 0, nullptr);
  if (!result) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(result);
}

}  // namespace inpaint
