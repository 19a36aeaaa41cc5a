#include "python/conv_call.h"

#include <pybind11/numpy.h>

#include <algorithm>

#include "convolution/epilogue.h"
#include "python/watchers.h"

namespace inpaint {
namespace {

// Packed weights belong to the extension: Python only keeps them.
using Packed = py::array_t<float, py::array::c_style>;

PyObject* kept(py::object object) { return object.release().ptr(); }

PyObject* interned(const char* text) {
  PyObject* name = PyUnicode_InternFromString(text);
  if (!name) throw py::error_already_set();
  return name;
}

ConvPython look_up() {
  ConvPython p{};
  const py::module_ torch = py::module_::import("torch");
  const py::module_ packed = py::module_::import("inpaint_ops.ops.convolution.packed_weights");
  p.packed_of = kept(packed.attr("packed_weights").attr("of"));
  p.backend = kept(py::module_::import("inpaint_ops.backends").attr("CURRENT"));
  p.is_grad_enabled = kept(torch.attr("is_grad_enabled"));
  p.num_threads = kept(torch.attr("get_num_threads"));
  p.channels_last = kept(torch.attr("channels_last"));
  p.channels_last_keyword = kept(py::make_tuple("memory_format"));
  p.requires_grad = interned("requires_grad");
  p.contiguous = interned("contiguous");
  p.save_for_backward = interned("save_for_backward");
  p.set_materialize_grads = interned("set_materialize_grads");
  p.call = interned("call");
  p.saved_tensors = interned("saved_tensors");
  p.needs_input_grad = interned("needs_input_grad");
  return p;
}

py::object checked(PyObject* result) {
  if (!result) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

py::object attribute(PyObject* object, PyObject* name) {
  return checked(PyObject_GetAttr(object, name));
}

template <size_t N>
py::object method(PyObject* name, PyObject* const (&arguments)[N], PyObject* keywords = nullptr) {
  const size_t count = N - (keywords ? size_t(PyTuple_GET_SIZE(keywords)) : 0);
  return checked(PyObject_VectorcallMethod(name, arguments, count, keywords));
}

int threads() {
  const long count = PyLong_AsLong(called(conv_python().num_threads).ptr());
  if (count == -1 && PyErr_Occurred()) throw py::error_already_set();
  return int(count);
}

Array<float> floats(const TensorView& view) { return Array<float>(view); }

OptionalFloats optional_floats(bool there, const TensorView& view) {
  return there ? OptionalFloats(view) : std::nullopt;
}

// The tensor itself, or a copy in channels_last; sets the view.
py::object channels_last(PyObject* tensor, TensorView& view) {
  if (floats(view).is_channels_last()) return py::reinterpret_borrow<py::object>(tensor);
  PyObject* arguments[2] = {tensor, conv_python().channels_last};
  py::object copy =
      method(conv_python().contiguous, arguments, conv_python().channels_last_keyword);
  TensorView own;
  require(read_layout(copy.ptr(), Element::kFloat, own), "copy");
  read_data(copy.ptr(), own);
  view = own;
  return copy;
}

Memory memory(const Layout& layout) { return Memory(layout.first, layout.second); }

}  // namespace

const ConvPython& conv_python() {
  static const ConvPython* found = nullptr;
  if (!found) found = new ConvPython(look_up());
  return *found;
}

PyObject* backend_in_force() {
  PyObject* value = nullptr;
  if (PyContextVar_Get(conv_python().backend, nullptr, &value) != 0) throw py::error_already_set();
  Py_XDECREF(value);
  return value;
}

ConvKernels::ConvKernels(py::object plan, py::object form)
    : owner(std::move(plan)), form(std::move(form)), plan(py::cast<const ConvPlan*>(owner)) {}

void ConvKernels::run(PyObject* weight,
                      const TensorView& weight_view,
                      const TensorView& x,
                      const OptionalFloats& bias,
                      const TensorView& y,
                      const OptionalFloats& sums) const {
  const Images images{floats(x)};
  const Masks masks(1);
  const OptionalFloats none;
  const PlanCall call{images, masks, bias, floats(y), sums, none, none, threads()};
  if (form.is_none()) {
    py::gil_scoped_release release;
    plan->run_unpacked(call, floats(weight_view));
    return;
  }
  PyObject* arguments[2] = {weight, form.ptr()};
  const py::object packed =
      checked(PyObject_Vectorcall(conv_python().packed_of, arguments, 2, nullptr));
  require(py::isinstance<Packed>(packed), "packed weights");
  const auto numbers = py::reinterpret_borrow<Packed>(packed);
  const float* data = numbers.data();
  const int64_t size = numbers.size();
  py::gil_scoped_release release;
  plan->run(call, data, size, std::nullopt, {0, 0});
}

ConvCall::ConvCall(py::object plan,
                   py::object form,
                   const Layout& y,
                   const std::optional<Layout>& sums,
                   bool gated,
                   const std::string& activation,
                   bool curved,
                   py::dict context)
    : kernels_(std::move(plan), std::move(form)),
      y_(memory(y)),
      gated_(gated),
      curved_(curved),
      activation_(activation_of(activation)),
      context_(std::move(context)),
      isa_(instruction_set()) {
  if (sums) sums_ = memory(*sums);
  linear_ = !gated && activation_ == Activation::kIdentity;
  backend = backend_in_force();
}

void ConvCall::set_gradients(py::object plan,
                             py::object form,
                             const Layout& grad_x,
                             const Layout& grad_weight,
                             const Layout& grad_sums,
                             const std::string& algorithm,
                             const Pair& stride,
                             const Pair& padding,
                             const Pair& dilation,
                             const std::string& padding_mode,
                             const std::vector<TensorShape>& tensors,
                             bool exchanged) {
  input_kernels_ = ConvKernels(std::move(plan), std::move(form));
  grad_x_ = memory(grad_x);
  grad_weight_ = memory(grad_weight);
  grad_sums_ = memory(grad_sums);
  filters_ = grad_sums.first.at(1);
  grad_bias_ = Memory({filters_}, {1});
  weight_spec_.algorithm = named<Algorithm>(kAlgorithmNames, algorithm, "algorithm");
  weight_spec_.stride = size2(stride);
  weight_spec_.padding = size2(padding);
  weight_spec_.dilation = size2(dilation);
  weight_spec_.padding_mode = named<PaddingMode>(kPaddingModeNames, padding_mode, "padding mode");
  weight_spec_.tensors = tensors;
  exchanged_ = exchanged;
  has_gradients_ = true;
}

py::object ConvCall::forward(const ConvTensors& t, py::object* sums) const {
  TensorView y, pre_activation;
  py::object result = y_.make(y);
  if (sums) *sums = sums_->make(pre_activation);
  kernels_.run(t.weight,
               t.weight_view,
               t.x_view,
               optional_floats(t.has_bias(), t.bias_view),
               y,
               optional_floats(sums != nullptr, pre_activation));
  return result;
}

py::object ConvCall::recorded(PyObject* ctx, PyObject* self, const ConvTensors& t) const {
  const ConvPython& p = conv_python();
  py::object sums;
  py::object y = forward(t, sums_ ? &sums : nullptr);
  PyObject* saved = sums_ ? sums.ptr() : linear_ ? Py_None : y.ptr();
  PyObject* tensors[5] = {ctx, t.x, t.weight, saved, curved_ ? t.bias : Py_None};
  method(p.save_for_backward, tensors);
  // Otherwise zeros come where there is no gradient.
  PyObject* off[2] = {ctx, Py_False};
  method(p.set_materialize_grads, off);
  if (PyObject_SetAttr(ctx, p.call, self) != 0) throw py::error_already_set();
  return y;
}

// What a backward pass is given.
struct ConvCall::Saved {
  PyObject *grad, *x, *weight, *result;
  TensorView grad_view, x_view, weight_view, result_view;
};

std::pair<py::object, TensorView> ConvCall::grad_sums(const Saved& saved,
                                                      double* grad_bias) const {
  TensorView grad = saved.grad_view, result;
  py::object image = channels_last(saved.grad, grad);
  py::object kept_result, out = image;
  EpilogueBackwardArgs a{};
  a.filters = filters_;
  a.gated = gated_;
  a.activation = activation_;
  a.grad = a.saved = floats(grad).data();
  a.pixels = grad.shape[0] * grad.shape[2] * grad.shape[3];
  a.grad_bias = grad_bias;
  TensorView sums = grad;
  if (linear_) {
    if (!grad_bias) return {image, sums};
  } else {
    result = saved.result_view;
    kept_result = channels_last(saved.result, result);
    a.saved = floats(result).data();
    a.from_result = !sums_;
    out = grad_sums_.make(sums);
    a.grad_pre_activation = Array<float>(sums).mutable_data();
  }
  a.threads = threads();
  auto* kernel = INPAINT_PICK(epilogue_backward);
  py::gil_scoped_release release;
  kernel(a);
  return {out, sums};
}

py::object ConvCall::grad_weight(const Saved& saved,
                                 PyObject* sums,
                                 const TensorView& sums_view) const {
  TensorView out, read = exchanged_ ? sums_view : saved.x_view;
  TensorView other = exchanged_ ? saved.x_view : sums_view;
  py::object read_owner, other_owner;
  if (read.shape[1] != 1 && read.strides[1] != 1) read_owner = channels_last(saved.x, read);
  other_owner = channels_last(exchanged_ ? saved.x : sums, other);
  py::object result = grad_weight_.make(out);
  const Images images{floats(read)};
  const Masks masks(1);
  const int count = threads();
  py::gil_scoped_release release;
  weight_gradient(weight_spec_, images, masks, floats(other), floats(out), count);
  return result;
}

py::object ConvCall::backward(PyObject* ctx, PyObject* grad) const {
  const ConvPython& p = conv_python();
  if (!has_gradients_ || grad == Py_None || isa_ != instruction_set()) return py::none();
  if (backend_in_force() != backend || called(p.is_grad_enabled).ptr() != Py_False)
    return py::none();
  const py::object tensors = attribute(ctx, p.saved_tensors);
  require(PyTuple_Check(tensors.ptr()) && PyTuple_GET_SIZE(tensors.ptr()) == 4, "saved tensors");
  Saved s{grad,
          PyTuple_GET_ITEM(tensors.ptr(), 0),
          PyTuple_GET_ITEM(tensors.ptr(), 1),
          PyTuple_GET_ITEM(tensors.ptr(), 2),
          {}, {}, {}, {}};
  PyObject* const all[4] = {s.grad, s.x, s.weight, s.result};
  TensorView* const views[4] = {&s.grad_view, &s.x_view, &s.weight_view, &s.result_view};
  const size_t count = linear_ ? 3 : 4;
  if (!is_open(all, count)) return py::none();
  for (size_t i = 0; i < count; ++i)
    if (!read_layout(all[i], Element::kFloat, *views[i])) return py::none();
  const Memory& result = sums_ ? *sums_ : y_;
  if (!y_.has_shape_of(s.grad_view) || !grad_x_.has_shape_of(s.x_view) ||
      !grad_weight_.has_shape_of(s.weight_view) || !(linear_ || result.has_shape_of(s.result_view)))
    return py::none();
  for (size_t i = 0; i < count; ++i) read_data(all[i], *views[i]);

  const py::object needs = attribute(ctx, p.needs_input_grad);
  require(PyTuple_Check(needs.ptr()) && PyTuple_GET_SIZE(needs.ptr()) == 4, "needs_input_grad");
  const auto needed = [&](int i) { return PyTuple_GET_ITEM(needs.ptr(), i) == Py_True; };
  std::vector<double> bias(needed(3) ? size_t(filters_) : 0);
  const auto [sums, sums_view] = grad_sums(s, needed(3) ? bias.data() : nullptr);
  py::object grads[4] = {py::none(), py::none(), py::none(), py::none()};
  if (needed(1)) {
    TensorView out;
    grads[1] = grad_x_.make(out);
    input_kernels_.run(s.weight, s.weight_view, sums_view, std::nullopt, out, std::nullopt);
  }
  if (needed(2)) grads[2] = grad_weight(s, sums.ptr(), sums_view);
  if (needed(3)) {
    TensorView out;
    grads[3] = grad_bias_.make(out);
    std::copy(bias.begin(), bias.end(), static_cast<float*>(out.data));
  }
  return py::make_tuple(grads[0], grads[1], grads[2], grads[3]);
}

}  // namespace inpaint
