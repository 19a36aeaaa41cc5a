#include "convolution/epilogue.h"

#include "python/names.h"

namespace inpaint {
namespace {

// All images (N, C, H, W) in channels_last.
void call_epilogue(const Array<float>& sums,
                   const OptionalFloats& bias,
                   const OptionalFloats& mask_ratio,
                   const OptionalFloats& update_mask,
                   Array<float> y,
                   OptionalFloats pre_activation,
                   bool gated,
                   const std::string& activation,
                   int threads) {
  require(sums.is_channels_last() && threads >= 1, "sums must be channels_last");
  EpilogueArgs a{};
  a.sums = sums.data();
  a.image_pixels = sums.shape(2) * sums.shape(3);
  a.pixels = sums.shape(0) * a.image_pixels;
  a.filters = sums.shape(1);
  a.gated = gated;
  a.activation = activation_of(activation);
  require(!gated || a.filters % 2 == 0, "a gated layer has an even number of filters");
  a.bias = packed_or_null(bias, a.filters, "bias");
  if (mask_ratio) {
    const int64_t batch = mask_ratio->shape(0);
    require(update_mask && mask_ratio->ndim() == 3, "mask_ratio and update_mask");
    require(batch == 1 || batch == sums.shape(0), "mask_ratio batch");
    a.mask_ratio = packed_or_null(mask_ratio, batch * a.image_pixels, "mask_ratio");
    a.update_mask = packed_or_null(update_mask, batch * a.image_pixels, "update_mask");
    a.mask_stride_n = batch == 1 ? 0 : a.image_pixels;
  }
  a.y = channels_last_output(y, a.pixels * (gated ? a.filters / 2 : a.filters));
  a.pre_activation =
      pre_activation ? channels_last_output(*pre_activation, a.pixels * a.filters) : nullptr;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(epilogue);
  py::gil_scoped_release release;
  kernel(a);
}

void call_epilogue_backward(const Array<float>& grad,
                            const Array<float>& saved,
                            OptionalFloats grad_pre_activation,
                            std::optional<Array<double>> grad_bias,
                            bool gated,
                            bool from_result,
                            const std::string& activation,
                            int threads) {
  require(saved.is_channels_last() && threads >= 1, "saved must be channels_last");
  EpilogueBackwardArgs a{};
  a.from_result = from_result;
  a.saved = saved.data();
  a.filters = saved.shape(1);
  a.pixels = saved.shape(0) * saved.shape(2) * saved.shape(3);
  a.gated = gated;
  a.activation = activation_of(activation);
  require(!gated || a.filters % 2 == 0, "a gated layer has an even number of filters");
  require(grad.is_channels_last() && grad.size() == a.pixels * (gated ? a.filters / 2 : a.filters),
          "gradient must be channels_last and fit");
  a.grad = grad.data();
  a.grad_pre_activation = grad_pre_activation
                              ? channels_last_output(*grad_pre_activation, a.pixels * a.filters)
                              : nullptr;
  a.grad_bias = grad_bias ? output<double>(*grad_bias, a.filters) : nullptr;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(epilogue_backward);
  py::gil_scoped_release release;
  kernel(a);
}

}  // namespace

void bind_epilogue(py::module_& m) {
  using py::arg;
  m.def("conv_epilogue",
        &call_epilogue,
        tensor("sums"),
        tensor("bias"),
        tensor("mask_ratio"),
        tensor("update_mask"),
        tensor("y"),
        tensor("pre_activation"),
        arg("gated"),
        arg("activation"),
        arg("threads"));
  m.def("conv_epilogue_backward",
        &call_epilogue_backward,
        tensor("grad"),
        tensor("saved"),
        tensor("grad_pre_activation"),
        tensor("grad_bias"),
        arg("gated"),
        arg("from_result"),
        arg("activation"),
        arg("threads"));
}

}  // namespace inpaint
