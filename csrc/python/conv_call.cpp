#include "python/conv_call.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <unordered_set>

#include "convolution/epilogue.h"
#include "convolution/planes.h"
#include "python/objects.h"
#include "python/watchers.h"

namespace inpaint {

struct Freed {
  void operator()(float* memory) const { std::free(memory); }
};

// An image in channels_last: a tensor, or memory of ours.
struct Image {
  py::object tensor;
  std::unique_ptr<float, Freed> memory;
  TensorView view;

  Array<float> array() const { return Array<float>(view); }
};

namespace {

// Packed weights belong to the extension: Python only keeps them.
using Packed = py::array_t<float, py::array::c_style>;

ConvPython look_up_python() {
  ConvPython p{};
  const py::module_ torch = py::module_::import("torch");
  const py::module_ packed = py::module_::import("inpaint_ops.ops.convolution.packed_weights");
  p.packed_of = kept(packed.attr("packed_weights").attr("of"));
  p.count = kept(packed.attr("packed_weights").attr("count"));
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

// Memory for an image of that size.
Image image_like(const TensorView& size) {
  Image image;
  image.view = size;
  const int64_t *shape = size.shape, channels = shape[1], row = shape[3] * channels;
  const int64_t strides[4] = {shape[2] * row, 1, row, channels};
  std::copy_n(strides, 4, image.view.strides);
  constexpr size_t kLine = 64;
  const size_t bytes = (size_t(size.size) * sizeof(float) + kLine) / kLine * kLine;
  image.memory.reset(static_cast<float*>(std::aligned_alloc(kLine, bytes)));
  if (!image.memory) throw std::bad_alloc();
  image.view.data = image.memory.get();
  return image;
}

// The image of a tensor: itself or a copy.
Image channels_last(PyObject* tensor, const TensorView& view) {
  Image image;
  if (floats(view).is_channels_last()) {
    image.view = view;
    return image;
  }
  if (view.strides[3] == 1 || view.shape[3] == 1) {
    image = image_like(view);
    const int64_t *shape = view.shape, *strides = view.strides;
    const ToPixelsArgs a{floats(view).data(),
                         image.memory.get(),
                         shape[0],
                         shape[1],
                         shape[2],
                         shape[3],
                         strides[0],
                         strides[1],
                         strides[2],
                         nullptr,
                         0,
                         threads()};
    auto* kernel = INPAINT_PICK(to_pixels);
    py::gil_scoped_release release;
    kernel(a);
    return image;
  }
  PyObject* arguments[2] = {tensor, conv_python().channels_last};
  image.tensor = method(conv_python().contiguous, arguments, conv_python().channels_last_keyword);
  require(read_layout(image.tensor.ptr(), Element::kFloat, image.view), "copy");
  read_data(image.tensor.ptr(), image.view);
  return image;
}

// Addresses of the weights that are read in place and known to Python's count of weights in use.
std::unordered_set<const void*>& counted_weights() {
  static auto* addresses = new std::unordered_set<const void*>();
  return *addresses;
}

void count_once(PyObject* weight, const TensorView& view) {
  if (!counted_weights().insert(view.data).second) return;
  PyObject* arguments[1] = {weight};
  checked(PyObject_Vectorcall(conv_python().count, arguments, 1, nullptr));
}

Memory memory(const Layout& layout) { return Memory(layout.first, layout.second); }

}  // namespace

const ConvPython& conv_python() {
  static const ConvPython* found = nullptr;
  if (!found) found = new ConvPython(look_up_python());
  return *found;
}

void forget_counted_weights() { counted_weights().clear(); }

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
    count_once(weight, weight_view);
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
                             const std::optional<Pair>& padded,
                             int upsample,
                             const Layout& grad_weight,
                             int64_t filters,
                             const std::string& algorithm,
                             const Pair& stride,
                             const Pair& padding,
                             const Pair& dilation,
                             const std::string& padding_mode,
                             const std::vector<TensorShape>& tensors,
                             bool exchanged) {
  input_kernels_ = ConvKernels(std::move(plan), std::move(form));
  grad_x_ = memory(grad_x);
  if (padded) padded_ = size2(*padded);
  upsample_ = upsample;
  grad_weight_ = memory(grad_weight);
  filters_ = filters;
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

// The gradient of the sums.
struct ConvCall::Sums {
  Image image;
};

ConvCall::Sums ConvCall::grad_sums(const Saved& saved, double* grad_bias) const {
  Image grad = channels_last(saved.grad, saved.grad_view);
  if (linear_ && !grad_bias) return {std::move(grad)};
  EpilogueBackwardArgs a{};
  a.filters = filters_;
  a.gated = gated_;
  a.activation = activation_;
  a.grad = a.saved = grad.array().data();
  a.pixels = grad.view.shape[0] * grad.view.shape[2] * grad.view.shape[3];
  a.grad_bias = grad_bias;
  a.threads = threads();
  Image result, sums;
  if (!linear_) {
    result = channels_last(saved.result, saved.result_view);
    a.saved = result.array().data();
    a.from_result = !sums_;
    sums = image_like(saved.result_view);
    a.grad_pre_activation = sums.memory.get();
  }
  auto* kernel = INPAINT_PICK(epilogue_backward);
  {
    py::gil_scoped_release release;
    kernel(a);
  }
  return {std::move(linear_ ? grad : sums)};
}

py::object ConvCall::grad_x(const Saved& saved, const Sums& sums) const {
  TensorView out;
  py::object result = grad_x_.make(out);
  Image padded;
  TensorView into = out;
  if (padded_) {
    const int64_t channels = out.shape[1];
    into.shape[2] = padded_->y;
    into.shape[3] = padded_->x;
    into.size = out.shape[0] * channels * padded_->y * padded_->x;
    padded = image_like(into);
    into = padded.view;
  }
  input_kernels_.run(
      saved.weight, saved.weight_view, sums.image.view, std::nullopt, into, std::nullopt);
  if (padded_) {
    const FoldArgs args = fold_args(padded.array(),
                                    Array<float>(out),
                                    weight_spec_.padding,
                                    upsample_,
                                    weight_spec_.padding_mode,
                                    threads());
    auto* kernel = INPAINT_PICK(fold_padding);
    py::gil_scoped_release release;
    kernel(args);
  }
  return result;
}

py::object ConvCall::grad_weight(const Saved& saved, const Sums& sums) const {
  TensorView out, read = exchanged_ ? sums.image.view : saved.x_view;
  Image copy, other;
  if (read.shape[1] != 1 && read.strides[1] != 1) {
    copy = channels_last(saved.x, read);
    read = copy.view;
  }
  if (exchanged_) other = channels_last(saved.x, saved.x_view);
  py::object result = grad_weight_.make(out);
  const Images images{floats(read)};
  const Masks masks(1);
  const int count = threads();
  const Array<float> second = exchanged_ ? other.array() : sums.image.array();
  py::gil_scoped_release release;
  weight_gradient(weight_spec_, images, masks, second, floats(out), count);
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
          {},
          {},
          {},
          {}};
  PyObject* const all[4] = {s.grad, s.x, s.weight, s.result};
  TensorView* const views[4] = {&s.grad_view, &s.x_view, &s.weight_view, &s.result_view};
  const size_t count = linear_ ? 3 : 4;
  if (!is_open(all, count)) return py::none();
  for (size_t i = 0; i < count; ++i)
    if (!read_layout(all[i], Element::kFloat, *views[i])) return py::none();
  const Memory& result = sums_ ? *sums_ : y_;
  if (!y_.has_shape_of(s.grad_view) || !grad_x_.has_shape_of(s.x_view) ||
      !grad_weight_.has_shape_of(s.weight_view) || !floats(s.weight_view).is_packed() ||
      !(linear_ || result.has_shape_of(s.result_view)))
    return py::none();
  for (size_t i = 0; i < count; ++i) read_data(all[i], *views[i]);

  const py::object needs = attribute(ctx, p.needs_input_grad);
  require(PyTuple_Check(needs.ptr()) && PyTuple_GET_SIZE(needs.ptr()) == 4, "needs_input_grad");
  const auto needed = [&](int i) { return PyTuple_GET_ITEM(needs.ptr(), i) == Py_True; };
  std::vector<double> bias(needed(3) ? size_t(filters_) : 0);
  const Sums sums = grad_sums(s, needed(3) ? bias.data() : nullptr);
  py::object grads[4] = {py::none(), py::none(), py::none(), py::none()};
  if (needed(1)) grads[1] = grad_x(s, sums);
  if (needed(2)) grads[2] = grad_weight(s, sums);
  if (needed(3)) {
    TensorView out;
    grads[3] = grad_bias_.make(out);
    std::copy(bias.begin(), bias.end(), static_cast<float*>(out.data));
  }
  return py::make_tuple(grads[0], grads[1], grads[2], grads[3]);
}

}  // namespace inpaint
