#include "bind_conv.h"
#include "conv_weight_gradient.h"

namespace inpaint {
namespace {

// x (N, H, W, C), grad (N, Ho, Wo, filters), grad_weight (filters, C, kh, kw).
void call_weight_gradient(const Array<float>& x,
                          const std::optional<Array<uint8_t>>& valid,
                          const std::vector<int64_t>& part_end,
                          const Array<float>& grad,
                          Array<float> grad_weight,
                          int core_code,
                          const Pair& stride,
                          const Pair& padding,
                          const Pair& dilation,
                          int padding_mode,
                          int upsample,
                          int threads) {
  require(x.ndim() == 4 && grad.ndim() == 4 && grad_weight.ndim() == 4 && threads >= 1,
          "arguments must have four dimensions");
  require(x.shape(3) >= 1 && (x.shape(3) == 1 || x.strides(3) == 4), "channels must be adjacent");
  require(core_code >= 0 && core_code <= int(Core::kWinogradFours), "core");
  require(padding_mode >= 0 && padding_mode <= int(PaddingMode::kReplicate), "padding mode");
  require(upsample == 1 || upsample == 2, "upsample");
  const Core core = Core(core_code);
  WeightGradientArgs args{};
  ConvArgs& a = args.conv;
  a.x = x.data();
  a.batch = x.shape(0);
  a.height = x.shape(1);
  a.width = x.shape(2);
  a.channels = x.shape(3);
  a.stride_n = x.strides(0) / 4;
  a.stride_y = x.strides(1) / 4;
  a.stride_x = x.strides(2) / 4;
  a.upsample = upsample;
  a.padding_mode = PaddingMode(padding_mode);
  a.padding = size2(padding);
  a.stride = size2(stride);
  a.dilation = size2(dilation);
  a.kernel = {grad_weight.shape(2), grad_weight.shape(3)};
  a.out_height = grad.shape(1);
  a.out_width = grad.shape(2);
  a.filters = grad.shape(3);
  a.threads = threads;
  for (const Size2& size : {a.kernel, a.stride, a.dilation})
    require(size.y >= 1 && size.x >= 1, "kernel, stride and dilation must be positive");
  require(x.size() > 0 && grad.size() > 0 && grad.shape(0) == a.batch, "images are empty");
  require(grad_weight.shape(0) == a.filters && grad_weight.shape(1) == a.channels, "weight size");
  require(is_packed<float>(grad), "gradient must be packed");
  a.core = core;
  require(core == Core::kDirect || INPAINT_PICK(winograd_takes)(a), "the core does not take this");
  set_valid(a, valid, part_end);
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
        py::arg("part_end"),
        py::arg("grad").noconvert(),
        py::arg("grad_weight").noconvert(),
        py::arg("core"),
        py::arg("stride"),
        py::arg("padding"),
        py::arg("dilation"),
        py::arg("padding_mode"),
        py::arg("upsample"),
        py::arg("threads"));
}

}  // namespace inpaint
