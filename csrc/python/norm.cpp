#include "norm/instance_norm.h"
#include "python/arrays.h"
#include "python/names.h"

namespace inpaint {
namespace {

const float* packed(const Array<float>& array, int64_t size) {
  require(array.is_packed() && array.size() == size, "input must be packed and fit");
  return array.data();
}

const float* packed(const std::optional<Array<float>>& array, int64_t size) {
  return array ? packed(*array, size) : nullptr;
}

// (N, C, H, W) as it lies, or channels_last.
const float* image(const Array<float>& array, bool planes, int64_t size) {
  require(planes ? array.is_packed() : array.is_channels_last(), "image must be packed");
  require(array.ndim() == 4 && array.size() == size, "image must fit");
  return array.data();
}

float* image_output(Array<float>& array, bool planes, int64_t size) {
  return planes ? output<float>(array, size) : channels_last_output(array, size);
}

template <class Args>
Args common(const Array<float>& x, bool planes, const std::string& activation, int threads) {
  require(x.ndim() == 4 && threads >= 1, "x must be (N, C, H, W)");
  Args a;
  a.channels_first = planes;
  a.batch = x.shape(0);
  a.pixels = x.shape(2) * x.shape(3);
  a.channels = x.shape(1);
  require(a.pixels >= 1 && a.channels >= 1, "x must hold pixels");
  a.x = image(x, planes, x.size());
  a.activation = activation_of(activation);
  a.threads = threads;
  return a;
}

void call_norm(const Array<float>& x,
               const std::optional<Array<float>>& weight,
               const std::optional<Array<float>>& bias,
               const std::optional<Array<float>>& residual,
               double eps,
               bool planes,
               const std::string& activation,
               Array<float> y,
               Array<float> mean,
               Array<float> inverse,
               int threads) {
  auto a = common<InstanceNormArgs>(x, planes, activation, threads);
  a.weight = packed(weight, a.channels);
  a.bias = packed(bias, a.channels);
  a.residual = residual ? image(*residual, planes, x.size()) : nullptr;
  a.eps = eps;
  a.y = image_output(y, planes, x.size());
  a.mean = output<float>(mean, a.batch * a.channels);
  a.inverse = output<float>(inverse, a.batch * a.channels);
  auto* kernel = INPAINT_PICK(instance_norm);
  py::gil_scoped_release release;
  kernel(a);
}

void call_norm_backward(const Array<float>& grad,
                        const Array<float>& x,
                        const std::optional<Array<float>>& weight,
                        const std::optional<Array<float>>& bias,
                        const Array<float>& mean,
                        const Array<float>& inverse,
                        bool planes,
                        const std::string& activation,
                        Array<float> grad_x,
                        Array<double> grad_weight,
                        Array<double> grad_bias,
                        int threads) {
  auto a = common<InstanceNormBackwardArgs>(x, planes, activation, threads);
  a.grad = image(grad, planes, x.size());
  a.weight = packed(weight, a.channels);
  a.bias = packed(bias, a.channels);
  a.mean = packed(mean, a.batch * a.channels);
  a.inverse = packed(inverse, a.batch * a.channels);
  a.grad_x = image_output(grad_x, planes, x.size());
  a.grad_weight = output<double>(grad_weight, a.batch * a.channels);
  a.grad_bias = output<double>(grad_bias, a.batch * a.channels);
  auto* kernel = INPAINT_PICK(instance_norm_backward);
  py::gil_scoped_release release;
  kernel(a);
}

}  // namespace

void bind_instance_norm(py::module_& m) {
  m.def("instance_norm",
        &call_norm,
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
        &call_norm_backward,
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
