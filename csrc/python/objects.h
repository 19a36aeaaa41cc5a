// Calls of Python's own functions, for what each call of a layer asks.
#pragma once

#include <pybind11/pybind11.h>

namespace inpaint {

// The object, never released.
inline PyObject* kept(pybind11::object object) { return object.release().ptr(); }

inline PyObject* interned(const char* text) {
  PyObject* name = PyUnicode_InternFromString(text);
  if (!name) throw pybind11::error_already_set();
  return name;
}

inline pybind11::object checked(PyObject* result) {
  if (!result) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(result);
}

}  // namespace inpaint
