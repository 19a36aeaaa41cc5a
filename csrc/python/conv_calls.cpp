// Calls of a convolution operator, found again by what they look like: sizes, strides and options.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "python/conv_call.h"
#include "python/watchers.h"

namespace inpaint {
namespace {

constexpr size_t kTensors = 3, kMostOptions = 8, kMostCalls = 4096;

// What decides about a call. Options are told apart by their addresses: whoever knows the call
// holds on to them, and they cannot change.
struct Signature {
  std::array<int64_t, 4 * 4 + 2> numbers = {};
  std::array<const void*, kMostOptions + 3> words = {};

  bool operator==(const Signature& other) const {
    return numbers == other.numbers && words == other.words;
  }
};

struct Hash {
  size_t operator()(const Signature& signature) const {
    uint64_t sum = 0;
    const auto add = [&](uint64_t value) {
      sum = (sum ^ value) * 0x9E3779B97F4A7C15u;
      sum ^= sum >> 29;
    };
    for (const int64_t number : signature.numbers) add(uint64_t(number));
    for (const void* word : signature.words) add(reinterpret_cast<uintptr_t>(word));
    return size_t(sum);
  }
};

bool is_constant(PyObject* option) {
  if (PyTuple_CheckExact(option)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(option); ++i)
      if (!PyLong_CheckExact(PyTuple_GET_ITEM(option, i))) return false;
    return true;
  }
  return PyLong_CheckExact(option) || PyUnicode_CheckExact(option) || PyBool_Check(option);
}

// Sizes and strides, unless the kernels are for other tensors.
bool read(ConvTensors& t) {
  if (!read_layout(t.x, Element::kFloat, t.x_view) || t.x_view.ndim != 4) return false;
  if (!read_layout(t.weight, Element::kFloat, t.weight_view) || t.weight_view.ndim != 4)
    return false;
  if (!t.has_bias()) return true;
  return read_layout(t.bias, Element::kFloat, t.bias_view) && t.bias_view.ndim == 1;
}

bool asks_for_gradient(const ConvTensors& t) {
  const ConvPython& p = conv_python();
  if (called(p.is_grad_enabled).ptr() != Py_True) return false;
  for (PyObject* tensor : {t.x, t.weight, t.bias}) {
    if (tensor == Py_None) continue;
    PyObject* answer = PyObject_GetAttr(tensor, p.requires_grad);
    if (!answer) throw py::error_already_set();
    Py_DECREF(answer);
    if (answer == Py_True) return true;
  }
  return false;
}

void read_all_data(ConvTensors& t) {
  read_data(t.x, t.x_view);
  read_data(t.weight, t.weight_view);
  if (t.has_bias()) read_data(t.bias, t.bias_view);
}

// The error of C++ as Python's pending error.
template <class Call>
PyObject* guarded(const Call& call) {
  try {
    return call();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  }
  return nullptr;
}

// What `ConvCalls::run` has read of the tensors that autograd's function is about to hand on.
thread_local const ConvTensors* handed_on = nullptr;

class ConvCalls {
 public:
  // `make`: from the arguments of a call the `ConvCall`, or None where there is none.
  explicit ConvCalls(py::object make) : make_(std::move(make)) {}

  // What records a call for autograd; takes a `ConvCall` and three tensors.
  void record_by(py::object apply) { apply_ = std::move(apply); }

  void forget() { known_.clear(); }

  size_t size() const { return known_.size(); }

  // x, weight, bias and options; None where Python has to go on.
  PyObject* run(PyObject* const* arguments, Py_ssize_t count) {
    if (count < Py_ssize_t(kTensors) || count > Py_ssize_t(kTensors + kMostOptions))
      throw std::invalid_argument("arguments");
    ConvTensors t{arguments[0], arguments[1], arguments[2], {}, {}, {}};
    if (is_other_tensor(t.x, Element::kFloat)) return py::none().release().ptr();
    if (!is_open(arguments, t.has_bias() ? 3 : 2) || !read(t)) return py::none().release().ptr();
    const bool recorded = asks_for_gradient(t);
    const py::object found = known(t, arguments, count, recorded);
    if (found.is_none()) return py::none().release().ptr();
    read_all_data(t);
    if (recorded) {
      PyObject* given[4] = {found.ptr(), t.x, t.weight, t.bias};
      handed_on = &t;
      PyObject* y = PyObject_Vectorcall(apply_.ptr(), given, 4, nullptr);
      handed_on = nullptr;
      return y;
    }
    return py::cast<const ConvCall*>(found)->forward(t, nullptr).release().ptr();
  }

 private:
  struct Known {
    py::object call;
    std::vector<py::object> options;
  };

  // Calls that are recorded have a backward pass as well: the others need none.
  py::object known(const ConvTensors& t,
                   PyObject* const* arguments,
                   Py_ssize_t count,
                   bool recorded) {
    Signature signature;
    int64_t* to = signature.numbers.data();
    for (const TensorView* view : {&t.x_view, &t.weight_view}) {
      to = std::copy_n(view->shape, 4, to);
      to = std::copy_n(view->strides, 4, to);
    }
    to[0] = t.has_bias() ? t.bias_view.shape[0] : -1;
    to[1] = t.has_bias() ? t.bias_view.strides[0] : -1;
    std::copy(arguments + kTensors, arguments + count, signature.words.data());
    signature.words[kMostOptions] = backend_in_force();
    signature.words[kMostOptions + 1] =
        reinterpret_cast<const void*>(uintptr_t(instruction_set()) + 1);
    signature.words[kMostOptions + 2] = reinterpret_cast<const void*>(uintptr_t(recorded));
    const auto place = known_.find(signature);
    if (place != known_.end()) return place->second.call;
    Known made;
    for (Py_ssize_t i = kTensors; i < count; ++i) {
      if (!is_constant(arguments[i])) return py::none();
      made.options.push_back(py::reinterpret_borrow<py::object>(arguments[i]));
    }
    PyObject* call = PyObject_Vectorcall(make_.ptr(), arguments, size_t(count), nullptr);
    if (!call) throw py::error_already_set();
    made.call = py::reinterpret_steal<py::object>(call);
    require(made.call.is_none() || py::isinstance<ConvCall>(made.call), "call");
    if (known_.size() >= kMostCalls) known_.clear();
    known_[signature] = made;
    return made.call;
  }

  py::object make_, apply_;
  std::unordered_map<Signature, Known, Hash> known_;
};

PyObject* call_of(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  auto* calls = static_cast<ConvCalls*>(PyCapsule_GetPointer(self, nullptr));
  return guarded([&] { return calls->run(arguments, count); });
}

// Of autograd's function: ctx, the call, x, weight, bias.
PyObject* forward_of(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] {
    require(count == 5, "arguments");
    require(handed_on, "it is called by `ConvCalls` alone");
    const ConvTensors t = *handed_on;
    handed_on = nullptr;
    require(t.x == arguments[2] && t.weight == arguments[3] && t.bias == arguments[4], "tensors");
    const auto* call = py::cast<const ConvCall*>(py::handle(arguments[1]));
    return call->recorded(arguments[0], arguments[1], t).release().ptr();
  });
}

// Ctx and gradient; None where Python has to go on.
PyObject* backward_of(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] {
    require(count == 2, "arguments");
    PyObject* object = PyObject_GetAttr(arguments[0], conv_python().call);
    if (!object) throw py::error_already_set();
    const auto call = py::reinterpret_steal<py::object>(object);
    return py::cast<const ConvCall*>(call)->backward(arguments[0], arguments[1]).release().ptr();
  });
}

template <class Function>
PyMethodDef definition(const char* name, Function* function) {
  return {name,
          reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
          METH_FASTCALL,
          nullptr};
}

py::object function_of(PyMethodDef& method, PyObject* self) {
  PyObject* function = PyCFunction_New(&method, self);
  if (!function) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace

void bind_conv_calls(py::module_& m) {
  m.def("forget_counted_weights", &forget_counted_weights);
  using py::arg;
  // Functions of C take their arguments as they lie: pybind11 would take half a microsecond more.
  static PyMethodDef call = definition("conv_call", &call_of);
  static PyMethodDef forward = definition("conv_forward", &forward_of);
  static PyMethodDef backward = definition("conv_backward", &backward_of);
  py::class_<ConvCall>(m, "ConvCall")
      .def(py::init<py::object,
                    py::object,
                    const Layout&,
                    const std::optional<Layout>&,
                    bool,
                    const std::string&,
                    bool,
                    py::dict>(),
           arg("plan"),
           arg("form"),
           arg("y"),
           arg("sums"),
           arg("gated"),
           arg("activation"),
           arg("curved"),
           arg("context"))
      .def("set_gradients",
           &ConvCall::set_gradients,
           arg("plan"),
           arg("form"),
           arg("grad_x"),
           arg("padded"),
           arg("upsample"),
           arg("grad_weight"),
           arg("filters"),
           arg("algorithm"),
           arg("stride"),
           arg("padding"),
           arg("dilation"),
           arg("padding_mode"),
           arg("tensors"),
           arg("exchanged"))
      .def("context", &ConvCall::context);
  py::class_<ConvCalls>(m, "ConvCalls")
      .def(py::init<py::object>(), arg("make"))
      .def("record_by", &ConvCalls::record_by, arg("apply"))
      .def("forget", &ConvCalls::forget)
      .def("size", &ConvCalls::size)
      .def("function",
           [](const py::object& self) {
             auto* calls = py::cast<ConvCalls*>(self);
             const auto release = [](PyObject* capsule) {
               Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(capsule)));
             };
             PyObject* made = PyCapsule_New(calls, nullptr, release);
             if (!made) throw py::error_already_set();
             const auto capsule = py::reinterpret_steal<py::object>(made);
             PyCapsule_SetContext(made, self.inc_ref().ptr());
             return function_of(call, made);
           })
      .def_static("forward", [] { return function_of(forward, nullptr); })
      .def_static("backward", [] { return function_of(backward, nullptr); });
}

}  // namespace inpaint
