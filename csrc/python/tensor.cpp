#include <string>

#include "python/arrays.h"

namespace inpaint {
namespace {

// Looked up once and never released: a call reads some twenty attributes.
struct Torch {
  PyTypeObject* tensor;
  PyObject* dtypes[5];  // In the order of Element.
  PyObject *data_ptr, *shape, *stride, *dtype, *is_cpu, *is_neg;
};

Torch torch_ = {};

[[noreturn]] void refuse(PyObject* object, const std::string& reason) {
  const std::string type = Py_TYPE(object)->tp_name;
  throw py::type_error("a strided " + type + " in the CPU's memory is needed: " + reason);
}

// The pending error of Python as the reason.
[[noreturn]] void refuse(PyObject* object) {
  const std::string reason = py::error_already_set().what();
  refuse(object, reason);
}

py::object attribute(PyObject* object, PyObject* name) {
  PyObject* result = PyObject_GetAttr(object, name);
  if (!result) refuse(object);
  return py::reinterpret_steal<py::object>(result);
}

py::object call(PyObject* object, PyObject* method) {
  PyObject* arguments[1] = {object};
  PyObject* result =
      PyObject_VectorcallMethod(method, arguments, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
  if (!result) refuse(object);
  return py::reinterpret_steal<py::object>(result);
}

// Returns the length of a tuple of numbers.
int numbers(PyObject* tensor, const py::object& tuple, int64_t* to) {
  if (!PyTuple_Check(tuple.ptr())) refuse(tensor, "sizes and strides must be tuples");
  const Py_ssize_t length = PyTuple_GET_SIZE(tuple.ptr());
  if (length > TensorView::kMaxDims) refuse(tensor, "it has more than four dimensions");
  for (Py_ssize_t i = 0; i < length; ++i) {
    to[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), i));
    if (to[i] == -1 && PyErr_Occurred()) refuse(tensor);
  }
  return int(length);
}

}  // namespace

bool read_tensor(PyObject* object, Element element, TensorView& view) {
  if (!PyObject_TypeCheck(object, torch_.tensor)) return false;
  if (attribute(object, torch_.dtype).ptr() != torch_.dtypes[int(element)]) return false;
  if (attribute(object, torch_.is_cpu).ptr() != Py_True) refuse(object, "it is elsewhere");
  view.ndim = numbers(object, attribute(object, torch_.shape), view.shape);
  if (numbers(object, call(object, torch_.stride), view.strides) != view.ndim)
    refuse(object, "sizes and strides differ in number");
  if (call(object, torch_.is_neg).ptr() != Py_False) refuse(object, "its values are negated");
  view.data = PyLong_AsVoidPtr(call(object, torch_.data_ptr).ptr());
  if (!view.data && PyErr_Occurred()) refuse(object);
  view.size = 1;
  for (int axis = 0; axis < view.ndim; ++axis) view.size *= view.shape[axis];
  if (!view.data && view.size > 0) refuse(object, "its storage is empty");
  return true;
}

void find_torch() {
  const py::module_ torch = py::module_::import("torch");
  const auto kept = [](py::object object) { return object.release().ptr(); };
  const auto name = [](const char* text) {
    PyObject* interned = PyUnicode_InternFromString(text);
    if (!interned) throw py::error_already_set();
    return interned;
  };
  torch_.tensor = reinterpret_cast<PyTypeObject*>(kept(torch.attr("Tensor")));
  constexpr const char* kTypes[] = {"uint8", "uint16", "int64", "float32", "float64"};
  for (int i = 0; i < 5; ++i) torch_.dtypes[i] = kept(torch.attr(kTypes[i]));
  torch_.data_ptr = name("data_ptr");
  torch_.shape = name("shape");
  torch_.stride = name("stride");
  torch_.dtype = name("dtype");
  torch_.is_cpu = name("is_cpu");
  torch_.is_neg = name("is_neg");
}

}  // namespace inpaint
