#include "python/watchers.h"

#include <cstdint>
#include <map>
#include <utility>

#include "python/arrays.h"
#include "python/objects.h"

namespace inpaint {
namespace {

// Looked up at the first question and never released.
struct Questions {
  PyTypeObject *tensor, *parameter;
  PyObject *function_modes, *profiler, *included, *excluded, *keys, *rule;
  PyObject* forward_ad;  // The names of a module.
  PyObject *raw_repr, *current_level, *is_cpu, *is_cuda, *get_device, *data_ptr, *numel;
};

Questions look_up_questions() {
  Questions q{};
  const py::module_ torch = py::module_::import("torch");
  const py::object c = torch.attr("_C");
  q.function_modes = kept(c.attr("_len_torch_function_stack"));
  q.profiler = kept(c.attr("_autograd").attr("_profiler_enabled"));
  q.included = kept(c.attr("_dispatch_tls_local_include_set"));
  q.excluded = kept(c.attr("_dispatch_tls_local_exclude_set"));
  q.keys = kept(c.attr("_dispatch_keys"));
  const py::module_ forward_ad = py::module_::import("torch.autograd.forward_ad");
  forward_ad.attr("_current_level");
  q.forward_ad = kept(forward_ad.attr("__dict__"));
  q.rule = kept(py::module_::import("inpaint_ops.ops.shortcut").attr("are_ordinary"));
  q.tensor = reinterpret_cast<PyTypeObject*>(kept(torch.attr("Tensor")));
  q.parameter = reinterpret_cast<PyTypeObject*>(kept(torch.attr("nn").attr("Parameter")));
  q.raw_repr = interned("raw_repr");
  q.current_level = interned("_current_level");
  q.is_cpu = interned("is_cpu");
  q.is_cuda = interned("is_cuda");
  q.get_device = interned("get_device");
  q.data_ptr = interned("data_ptr");
  q.numel = interned("numel");
  return q;
}

// Not by a static of the language: its lock and Python's, which an import gives back, may each be
// held by a thread that waits for the other.
const Questions& questions() {
  static const Questions* found = nullptr;
  if (!found) found = new Questions(look_up_questions());
  return *found;
}

py::object asked(PyObject* object, PyObject* name) {
  PyObject* arguments[1] = {object};
  return checked(
      PyObject_VectorcallMethod(name, arguments, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
}

bool is_true(PyObject* object, PyObject* name) {
  return checked(PyObject_GetAttr(object, name)).ptr() == Py_True;
}

int64_t number(const py::object& object) {
  const int64_t value = PyLong_AsLongLong(object.ptr());
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

uint64_t bits(const py::object& keys) {
  const py::object repr = asked(keys.ptr(), questions().raw_repr);
  const uint64_t value = PyLong_AsUnsignedLongLong(repr.ptr());
  if (value == uint64_t(-1) && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

uint64_t bits_of(PyObject* tensor) {
  PyObject* arguments[1] = {tensor};
  return bits(checked(PyObject_Vectorcall(questions().keys, arguments, 1, nullptr)));
}

// The rule is Python's; a process meets a handful of cases.
bool are_ordinary(uint64_t included, uint64_t excluded) {
  static std::map<std::pair<uint64_t, uint64_t>, bool> known;
  const std::pair<uint64_t, uint64_t> both{included, excluded};
  const auto place = known.find(both);
  if (place != known.end()) return place->second;
  const py::object answer = py::handle(questions().rule)(included, excluded);
  if (known.size() >= 4096) known.clear();
  return known[both] = answer.ptr() == Py_True;
}

bool have_memory(PyObject* const* tensors, size_t count) {
  const Questions& q = questions();
  for (size_t i = 0; i < count; ++i) {
    PyObject* arguments[1] = {tensors[i]};
    PyObject* address = PyObject_VectorcallMethod(
        q.data_ptr, arguments, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    if (!address) {  // Sparse tensors and the like have no such thing.
      if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) throw py::error_already_set();
      PyErr_Clear();
      return false;
    }
    const bool none = PyObject_Not(address) == 1;
    Py_DECREF(address);
    if (none && number(asked(tensors[i], q.numel)) != 0) return false;
  }
  return true;
}

}  // namespace

bool is_open(PyObject* const* tensors, size_t count) {
  const Questions& q = questions();
  for (size_t i = 0; i < count; ++i)
    if (Py_TYPE(tensors[i]) != q.tensor && Py_TYPE(tensors[i]) != q.parameter) return false;
  if (number(called(q.function_modes)) != 0 || called(q.profiler).ptr() != Py_False) return false;
  PyObject* level = PyDict_GetItemWithError(q.forward_ad, q.current_level);
  if (!level || PyLong_AsLong(level) >= 0) return false;
  uint64_t included = bits(called(q.included));
  size_t on_gpus = 0;
  int64_t device = -1;
  for (size_t i = 0; i < count; ++i) {
    if (!is_true(tensors[i], q.is_cpu)) {
      if (!is_true(tensors[i], q.is_cuda)) return false;
      const int64_t own = number(asked(tensors[i], q.get_device));
      if (on_gpus++ > 0 && own != device) return false;
      device = own;
    }
    included |= bits_of(tensors[i]);
  }
  if (on_gpus > 0 && on_gpus < count) return false;
  return are_ordinary(included, bits(called(q.excluded))) && have_memory(tensors, count);
}

void bind_watchers(py::module_& m) {
  m.def(
      "is_open",
      [](const py::list& tensors) {
        return is_open(PySequence_Fast_ITEMS(tensors.ptr()), tensors.size());
      },
      py::arg("tensors"));
}

}  // namespace inpaint
