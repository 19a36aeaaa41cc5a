// One call of a convolution operator over tensors whose layouts are known: memory of the results,
// packed weights and kernels, without a step of Python in between.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "convolution/plan.h"
#include "python/names.h"

namespace inpaint {

// Shape and strides.
using Layout = std::pair<std::vector<int64_t>, std::vector<int64_t>>;

// The tensors of a call. `bias` may be Python's None.
struct ConvTensors {
  PyObject *x, *weight, *bias;
  TensorView x_view, weight_view, bias_view;

  bool has_bias() const { return bias != Py_None; }
};

// A plan, and the form in which it takes its weight; no form: as it lies.
struct ConvKernels {
  py::object owner, form;
  const ConvPlan* plan = nullptr;

  ConvKernels() = default;
  ConvKernels(py::object plan, py::object form);
  void run(PyObject* weight,
           const TensorView& weight_view,
           const TensorView& x,
           const OptionalFloats& bias,
           const TensorView& y,
           const OptionalFloats& sums) const;
};

class ConvCall {
 public:
  // `sums`: layout of the sums before activation and gate, where a backward pass starts from them.
  // `curved`: whether a second derivative wants the bias. `context`: what a backward pass by Python
  // finds in its ctx.
  ConvCall(py::object plan,
           py::object form,
           const Layout& y,
           const std::optional<Layout>& sums,
           bool gated,
           const std::string& activation,
           bool curved,
           py::dict context);

  // Takes the backward pass, too: `plan` and `form` of the gradient of x, or of the upsampled and
  // padded image of a size, to be folded back; `filters` of the sums; the other arguments are those
  // of the weight's gradient, see `conv_weight_gradient`. `exchanged`: x and the gradient of the
  // sums change places there.
  void set_gradients(py::object plan,
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
                     bool exchanged);

  py::object forward(const ConvTensors& tensors, py::object* sums) const;
  // The same inside autograd's function: keeps in its ctx what the backward pass needs.
  py::object recorded(PyObject* ctx, PyObject* self, const ConvTensors& tensors) const;
  // The gradients of autograd's function, or None where Python has to form them.
  py::object backward(PyObject* ctx, PyObject* grad) const;

  py::dict context() const { return context_; }
  // The choice of backend in force, by its address: words of backends live for ever.
  PyObject* backend = nullptr;

 private:
  struct Saved;
  struct Sums;
  Sums grad_sums(const Saved& saved, double* grad_bias) const;
  py::object grad_x(const Saved& saved, const Sums& sums) const;
  py::object grad_weight(const Saved& saved, const Sums& sums) const;

  ConvKernels kernels_;
  Memory y_;
  std::optional<Memory> sums_;
  bool gated_, curved_, linear_;
  Activation activation_;
  py::dict context_;
  Isa isa_;

  bool has_gradients_ = false, exchanged_ = false;
  ConvKernels input_kernels_;
  Memory grad_x_, grad_weight_, grad_bias_;
  std::optional<Size2> padded_;
  int upsample_ = 1;
  int64_t filters_ = 0;
  PlanSpec weight_spec_ = {};
};

// What the calls ask of Python, found at the first call: see inpaint_ops/ops/convolution/calls.py.
struct ConvPython {
  PyObject *packed_of, *count, *backend, *is_grad_enabled, *num_threads, *channels_last_keyword,
      *channels_last;
  PyObject *requires_grad, *contiguous, *save_for_backward, *set_materialize_grads, *call,
      *saved_tensors, *needs_input_grad;
};
const ConvPython& conv_python();

// Counts all weights that are read in place anew: one of them is gone.
void forget_counted_weights();

// The context variable's value; a new reference that the caller may drop at once.
PyObject* backend_in_force();

}  // namespace inpaint
