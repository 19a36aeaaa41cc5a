#include "convolution/weight_gradient.h"
#include "python/convolution.h"

namespace inpaint {
namespace {

// x and valid as in set_parts, grad (N, filters, Ho, Wo) in channels_last, grad_weight (filters, C,
// kh, kw).
void call_weight_gradient(const std::vector<Array<float>>& x,
                          const std::vector<std::optional<Array<uint8_t>>>& valid,
                          const std::vector<TensorShape>& tensors,
                          const Array<float>& grad,
                          Array<float> grad_weight,
                          int core_code,
                          const Pair& stride,
                          const Pair& padding,
                          const Pair& dilation,
                          int padding_mode,
                          int threads) {
  require(grad.ndim() == 4 && grad_weight.ndim() == 4 && threads >= 1,
          "arguments must have four dimensions");
  require(core_code >= 0 && core_code <= int(Core::kWinogradFours), "core");
  require(padding_mode >= 0 && padding_mode <= int(PaddingMode::kReplicate), "padding mode");
  const Core core = Core(core_code);
  WeightGradientArgs args{};
  ConvArgs& a = args.conv;
  check_shapes(tensors);
  set_parts(a, tensors, x, valid);
  for (const Part& part : a.parts) require(part.stride_c == 1, "channels must be adjacent");
  a.padding_mode = PaddingMode(padding_mode);
  a.padding = size2(padding);
  a.stride = size2(stride);
  a.dilation = size2(dilation);
  a.kernel = {grad_weight.shape(2), grad_weight.shape(3)};
  a.out_height = grad.shape(2);
  a.out_width = grad.shape(3);
  a.filters = grad.shape(1);
  a.threads = threads;
  for (const Size2& size : {a.kernel, a.stride, a.dilation})
    require(size.y >= 1 && size.x >= 1, "kernel, stride and dilation must be positive");
  require(grad.size() > 0 && grad.shape(0) == a.batch, "images are empty");
  require(grad_weight.shape(0) == a.filters && grad_weight.shape(1) == a.channels, "weight size");
  require(grad.is_channels_last(), "gradient must be channels_last");
  a.core = core;
  require(core == Core::kDirect || INPAINT_PICK(winograd_takes)(a), "the core does not take this");
  args.grad = grad.data();
  args.grad_weight = output<float>(grad_weight, grad_weight.size());
  auto* kernel = core == Core::kDirect ? INPAINT_PICK(weight_gradient_direct)
                                       : INPAINT_PICK(weight_gradient_winograd);
  py::gil_scoped_release release;
  kernel(args);
}

}  // namespace

void bind_conv_weight_gradient(py::module_& m) {
  m.def("conv_weight_gradient",
        &call_weight_gradient,
        py::arg("x").noconvert(),
        py::arg("valid").noconvert(),
        py::arg("tensors"),
        py::arg("grad").noconvert(),
        py::arg("grad_weight").noconvert(),
        py::arg("core"),
        py::arg("stride"),
        py::arg("padding"),
        py::arg("dilation"),
        py::arg("padding_mode"),
        py::arg("threads"));
}

}  // namespace inpaint
