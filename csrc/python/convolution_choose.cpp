#include <array>

#include "convolution/choose.h"
#include "python/convolution.h"

namespace inpaint {
namespace {

// The name of a core, or "aten" where none takes it.
const char* choose_core_name(bool weight_gradient,
                             int64_t batch,
                             const std::array<int64_t, 4>& weight_shape,
                             int64_t groups,
                             const Pair& stride,
                             const Pair& dilation,
                             const Pair& padding,
                             int upsample,
                             const Pair& size,
                             bool tiled) {
  const auto [filters, channels, kernel_y, kernel_x] = weight_shape;
  const ChoiceArgs args{batch,
                        filters,
                        channels,
                        groups,
                        {kernel_y, kernel_x},
                        size2(stride),
                        size2(dilation),
                        size2(padding),
                        upsample,
                        size2(size),
                        tiled};
  require(batch >= 0 && filters >= 1 && channels >= 1 && groups >= 1, "sizes must be positive");
  for (const Size2& each : {args.kernel, args.stride, args.dilation})
    require(each.y >= 1 && each.x >= 1, "kernel, stride and dilation must be positive");
  require(!weight_gradient || groups == 1, "a weight's gradient takes no groups");
  const auto core = weight_gradient ? INPAINT_PICK(choose_weight_gradient_core)(args)
                                    : INPAINT_PICK(choose_core)(args);
  return core ? kCoreNames[static_cast<int>(*core)] : "aten";
}

template <size_t N>
py::tuple names(const char* const (&of)[N]) {
  py::tuple result(N);
  for (size_t i = 0; i < N; ++i) result[i] = of[i];
  return result;
}

}  // namespace

void bind_conv_choose(py::module_& m) {
  m.def("choose_core",
        &choose_core_name,
        py::arg("weight_gradient"),
        py::arg("batch"),
        py::arg("weight_shape"),
        py::arg("groups"),
        py::arg("stride"),
        py::arg("dilation"),
        py::arg("padding"),
        py::arg("upsample"),
        py::arg("size"),
        py::arg("tiled"));
  // In the order of their codes.
  m.attr("cores") = names(kCoreNames);
  m.attr("activations") = names(kActivationNames);
  m.attr("padding_modes") = names(kPaddingModeNames);
  m.attr("leaky_slope") = kLeakySlope;
}

}  // namespace inpaint
