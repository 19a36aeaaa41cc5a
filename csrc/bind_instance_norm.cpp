#include <pybind11/stl.h>

#include <optional>

#include "bind.h"
#include "instance_norm.h"

namespace inpaint {
namespace {

const float* packed(const Array<float>& array, int64_t size) {
  require(is_packed<float>(array) && array.size() == size, "input must be packed and fit");
  return array.data();
}

const float* packed(const std::optional<Array<float>>& array, int64_t size) {
  return array ? packed(*array, size) : nullptr;
}

Activation activation_of(int code) {
  require(code >= 0 && code <= int(Activation::kSigmoid), "unknown activation");
  return Activation(code);
}

template <class Args>
Args common(const Array<float>& x, bool planes, int activation, int threads) {
  require(x.ndim() == 3 && threads >= 1, "x must be (N, P, C), or (N, C, P) as planes");
  Args a;
  a.planes = planes;
  a.batch = x.shape(0);
  a.pixels = x.shape(planes ? 2 : 1);
  a.channels = x.shape(planes ? 1 : 2);
  require(a.pixels >= 1 && a.channels >= 1, "x must hold pixels");
  a.x = packed(x, x.size());
  a.activation = activation_of(activation);
  a.threads = threads;
  return a;
}

void call_forward(const Array<float>& x,
                  const std::optional<Array<float>>& weight,
                  const std::optional<Array<float>>& bias,
                  const std::optional<Array<float>>& residual,
                  double eps,
                  bool planes,
                  int activation,
                  Array<float> y,
                  Array<float> mean,
                  Array<float> inverse,
                  int threads) {
  auto a = common<InstanceNormArgs>(x, planes, activation, threads);
  a.weight = packed(weight, a.channels);
  a.bias = packed(bias, a.channels);
  a.residual = packed(residual, x.size());
  a.eps = eps;
  a.y = output<float>(y, x.size());
  a.mean = output<float>(mean, a.batch * a.channels);
  a.inverse = output<float>(inverse, a.batch * a.channels);
  auto* kernel = INPAINT_PICK(instance_norm);
  py::gil_scoped_release release;
  kernel(a);
}

void call_backward(const Array<float>& grad,
                   const Array<float>& x,
                   const std::optional<Array<float>>& weight,
                   const std::optional<Array<float>>& bias,
                   const Array<float>& mean,
                   const Array<float>& inverse,
                   bool planes,
                   int activation,
                   Array<float> grad_x,
                   Array<double> grad_weight,
                   Array<double> grad_bias,
                   int threads) {
  auto a = common<InstanceNormBackwardArgs>(x, planes, activation, threads);
  a.grad = packed(grad, x.size());
  a.weight = packed(weight, a.channels);
  a.bias = packed(bias, a.channels);
  a.mean = packed(mean, a.batch * a.channels);
  a.inverse = packed(inverse, a.batch * a.channels);
  a.grad_x = output<float>(grad_x, x.size());
  a.grad_weight = output<double>(grad_weight, a.batch * a.channels);
  a.grad_bias = output<double>(grad_bias, a.batch * a.channels);
  auto* kernel = INPAINT_PICK(instance_norm_backward);
  py::gil_scoped_release release;
  kernel(a);
}

}  // namespace

void bind_instance_norm(py::module_& m) {
  m.def("instance_norm",
        &call_forward,
        py::arg("x").noconvert(),
        py::arg("weight").noconvert(),
        py::arg("bias").noconvert(),
        py::arg("residual").noconvert(),
        py::arg("eps"),
        py::arg("planes"),
        py::arg("activation"),
        py::arg("y").noconvert(),
        py::arg("mean").noconvert(),
        py::arg("inverse").noconvert(),
        py::arg("threads"));
  m.def("instance_norm_backward",
        &call_backward,
        py::arg("grad").noconvert(),
        py::arg("x").noconvert(),
        py::arg("weight").noconvert(),
        py::arg("bias").noconvert(),
        py::arg("mean").noconvert(),
        py::arg("inverse").noconvert(),
        py::arg("planes"),
        py::arg("activation"),
        py::arg("grad_x").noconvert(),
        py::arg("grad_weight").noconvert(),
        py::arg("grad_bias").noconvert(),
        py::arg("threads"));
}

}  // namespace inpaint
