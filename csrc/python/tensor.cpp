#include <algorithm>
#include <string>

#include "python/arrays.h"

namespace inpaint {
namespace {

// Looked up once and never released: a call reads some twenty attributes.
struct Torch {
  PyTypeObject* tensor;
  PyObject* dtypes[5];  // In the order of Element.
  PyObject *data_ptr, *shape, *stride, *dtype, *is_cpu, *is_neg;
  PyObject *empty_strided, *dtype_keyword;
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

py::object attribute_of(PyObject* object, PyObject* name) {
  PyObject* result = PyObject_GetAttr(object, name);
  if (!result) refuse(object);
  return py::reinterpret_steal<py::object>(result);
}

py::object result_of(PyObject* object, PyObject* method) {
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

void set_size(TensorView& view) {
  view.size = 1;
  for (int axis = 0; axis < view.ndim; ++axis) view.size *= view.shape[axis];
}

}  // namespace

bool read_tensor(PyObject* object, Element element, TensorView& view) {
  if (!PyObject_TypeCheck(object, torch_.tensor)) return false;
  if (attribute_of(object, torch_.dtype).ptr() != torch_.dtypes[int(element)]) return false;
  if (attribute_of(object, torch_.is_cpu).ptr() != Py_True) refuse(object, "it is elsewhere");
  view.ndim = numbers(object, attribute_of(object, torch_.shape), view.shape);
  if (numbers(object, result_of(object, torch_.stride), view.strides) != view.ndim)
    refuse(object, "sizes and strides differ in number");
  if (result_of(object, torch_.is_neg).ptr() != Py_False) refuse(object, "its values are negated");
  set_size(view);
  read_data(object, view);
  return true;
}

bool is_other_tensor(PyObject* object, Element element) {
  if (Py_TYPE(object) != torch_.tensor) return false;
  return attribute_of(object, torch_.dtype).ptr() != torch_.dtypes[int(element)] ||
         attribute_of(object, torch_.is_cpu).ptr() != Py_True;
}

bool read_layout(PyObject* tensor, Element element, TensorView& view) {
  if (attribute_of(tensor, torch_.dtype).ptr() != torch_.dtypes[int(element)]) return false;
  if (attribute_of(tensor, torch_.is_cpu).ptr() != Py_True) return false;
  const py::object shape = attribute_of(tensor, torch_.shape);
  if (!PyTuple_Check(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) > TensorView::kMaxDims)
    return false;
  view.ndim = numbers(tensor, shape, view.shape);
  if (numbers(tensor, result_of(tensor, torch_.stride), view.strides) != view.ndim) return false;
  set_size(view);
  return true;
}

void read_data(PyObject* tensor, TensorView& view) {
  view.data = PyLong_AsVoidPtr(result_of(tensor, torch_.data_ptr).ptr());
  if (!view.data && PyErr_Occurred()) refuse(tensor);
  if (!view.data && view.size > 0) refuse(tensor, "its storage is empty");
}

Memory::Memory(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  require(shape.size() == strides.size() && shape.size() <= TensorView::kMaxDims, "memory");
  view_.ndim = int(shape.size());
  std::copy(shape.begin(), shape.end(), view_.shape);
  std::copy(strides.begin(), strides.end(), view_.strides);
  set_size(view_);
  shape_ = py::tuple(py::cast(shape));
  strides_ = py::tuple(py::cast(strides));
}

py::object Memory::make(TensorView& view) const {
  // Named, since a program may have changed the dtype that torch makes without it.
  PyObject* arguments[3] = {shape_.ptr(), strides_.ptr(), torch_.dtypes[int(Element::kFloat)]};
  PyObject* made = PyObject_Vectorcall(torch_.empty_strided, arguments, 2, torch_.dtype_keyword);
  if (!made) throw py::error_already_set();
  py::object tensor = py::reinterpret_steal<py::object>(made);
  view = view_;
  read_data(made, view);
  return tensor;
}

bool Memory::has_shape_of(const TensorView& view) const {
  return view.ndim == view_.ndim && std::equal(view.shape, view.shape + view.ndim, view_.shape);
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
  torch_.empty_strided = kept(torch.attr("empty_strided"));
  torch_.dtype_keyword = kept(py::make_tuple("dtype"));
}

}  // namespace inpaint
