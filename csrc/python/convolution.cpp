#include <pybind11/numpy.h>

#include <array>
#include <new>

#include "base/large_pages.h"
#include "convolution/choose.h"
#include "convolution/plan.h"
#include "convolution/tap_sums.h"
#include "python/names.h"

namespace inpaint {
namespace {

// Packed weights belong to the extension: Python only keeps them.
using Packed = py::array_t<float, py::array::c_style>;

Algorithm algorithm_of(const std::string& name) {
  return named<Algorithm>(kAlgorithmNames, name, "algorithm");
}

// `kind`: "forward", "transposed" or "weight_gradient".
ChoiceArgs choice_args(const std::string& kind,
                       int64_t batch,
                       const std::array<int64_t, 4>& weight_shape,
                       int64_t groups,
                       const Pair& stride,
                       const Pair& dilation,
                       const Pair& padding,
                       int upsample,
                       const Pair& size,
                       bool tiled,
                       bool large,
                       bool in_place,
                       bool anew,
                       const Costs& costs) {
  const bool transposed = kind == "transposed", weight_gradient = kind == "weight_gradient";
  const auto [first, second, kernel_y, kernel_x] = weight_shape;
  const ChoiceArgs args{batch,
                        transposed ? second : first,
                        transposed ? first : second,
                        groups,
                        {kernel_y, kernel_x},
                        size2(stride),
                        size2(dilation),
                        size2(padding),
                        upsample,
                        size2(size),
                        tiled,
                        large,
                        in_place,
                        anew,
                        costs};
  require(transposed || weight_gradient || kind == "forward", "kind");
  require(batch >= 0 && first >= 1 && second >= 1 && groups >= 1, "sizes must be positive");
  for (const Size2& each : {args.kernel, args.stride, args.dilation})
    require(each.y >= 1 && each.x >= 1, "kernel, stride and dilation must be positive");
  require(!weight_gradient || groups == 1, "a weight's gradient takes no groups");
  return args;
}

// The name of an algorithm, or "aten" where none takes the convolution.
template <class... Rest>
const char* call_choose(const std::string& kind, Rest... rest) {
  const ChoiceArgs args = choice_args(kind, rest...);
  auto* choose = kind == "transposed"        ? INPAINT_PICK(choose_transposed_algorithm)
                 : kind == "weight_gradient" ? INPAINT_PICK(choose_weight_gradient_algorithm)
                                             : INPAINT_PICK(choose_algorithm);
  const auto algorithm = choose(args);
  return algorithm ? kAlgorithmNames[static_cast<int>(*algorithm)] : "aten";
}

// How much work of each kind an algorithm does for a "forward" or "transposed" convolution.
Work call_work(const std::string& algorithm,
               const std::string& kind,
               int64_t batch,
               const std::array<int64_t, 4>& weight,
               const Pair& stride,
               const Pair& dilation,
               const Pair& size) {
  require(kind != "weight_gradient", "kind");
  const ChoiceArgs args = choice_args(
      kind, batch, weight, 1, stride, dilation, {0, 0}, 1, size, true, true, false, false, {});
  const Algorithm its = algorithm_of(algorithm);
  require(its != Algorithm::kUnpacked, "the algorithm takes no packed weights");
  auto* work =
      kind == "transposed" ? INPAINT_PICK(transposed_work) : INPAINT_PICK(convolution_work);
  return work(args, its);
}

// Floats of a packed weight.
int64_t call_packed_floats(const Array<float>& weight,
                           const std::string& algorithm,
                           const Pair& stride,
                           bool gated,
                           bool flipped,
                           int64_t step,
                           const Pair& padding) {
  const PackSpec spec{algorithm_of(algorithm), size2(stride), gated, flipped, step, size2(padding)};
  return WeightPacking(weight, spec, 1).floats();
}

// Whole lines of the cache, since kernels read vectors as wide as one; in large pages, since forms
// of weights are read and written at strides of many small ones.
Packed packed_memory(int64_t floats) {
  constexpr size_t kLine = 64, kPage = kLargePage;
  const size_t bytes = size_t(std::max<int64_t>(floats, 1)) * sizeof(float);
  void* data = ::operator new(bytes, std::align_val_t(bytes >= kPage ? kPage : kLine));
  ask_for_large_pages(data, bytes);
  const py::capsule owner(
      data,
      bytes >= kPage ? [](void* memory) { ::operator delete(memory, std::align_val_t(kPage)); }
                     : [](void* memory) { ::operator delete(memory, std::align_val_t(kLine)); });
  return Packed({floats}, {sizeof(float)}, static_cast<float*>(data), owner);
}

// `spare`: memory that nobody reads any more, taken if it is large enough: the packed weight is
// then at its begin. Pages of its own would cost a third of the packing.
Packed call_pack_weight(const Array<float>& weight,
                        const std::string& algorithm,
                        const Pair& stride,
                        bool gated,
                        bool flipped,
                        int64_t step,
                        const Pair& padding,
                        int threads,
                        const std::optional<Packed>& spare) {
  const PackSpec spec{algorithm_of(algorithm), size2(stride), gated, flipped, step, size2(padding)};
  const WeightPacking packing(weight, spec, threads);
  const bool fits = spare && spare->size() >= packing.floats();
  Packed packed = fits ? *spare : packed_memory(packing.floats());
  float* to = packed.mutable_data();
  py::gil_scoped_release release;
  packing.run(to);
  return packed;
}

void call_sum_neighbours(const Array<float>& weight, Array<float> sums, int threads) {
  require(weight.ndim() == 4 && sums.ndim() == 4 && threads >= 1, "weight and sums");
  for (int axis = 0; axis < 4; ++axis)
    require(sums.shape(axis) == weight.shape(axis) + (axis > 1), "shape of the sums");
  TapSumsArgs args{};
  args.weight = weight.data();
  args.stride_filter = weight.stride(0);
  args.stride_channel = weight.stride(1);
  args.stride_y = weight.stride(2);
  args.stride_x = weight.stride(3);
  args.filters = weight.shape(0);
  args.channels = weight.shape(1);
  args.kernel = {weight.shape(2), weight.shape(3)};
  args.sums = output<float>(sums, sums.size());
  args.threads = threads;
  auto* kernel = INPAINT_PICK(sum_neighbours);
  py::gil_scoped_release release;
  kernel(args);
}

ConvPlan make_plan(const std::string& algorithm,
                   const Pair& kernel,
                   const Pair& stride,
                   const Pair& dilation,
                   const Pair& padding,
                   const std::string& padding_mode,
                   const std::vector<TensorShape>& tensors,
                   int64_t filters,
                   bool gated,
                   const std::string& activation,
                   int64_t step) {
  return ConvPlan({algorithm_of(algorithm),
                   size2(kernel),
                   size2(stride),
                   size2(dilation),
                   size2(padding),
                   padding_mode_of(padding_mode),
                   tensors,
                   filters,
                   gated,
                   activation_of(activation),
                   step});
}

void run_plan(const ConvPlan& plan,
              const Images& x,
              const Masks& valid,
              const Packed& packed,
              const OptionalFloats& bias,
              const Array<float>& y,
              const OptionalFloats& pre_activation,
              const OptionalFloats& mask_ratio,
              const OptionalFloats& update_mask,
              const OptionalBytes& wanted,
              const Pair& anchor,
              int threads) {
  const PlanCall call{x, valid, bias, y, pre_activation, mask_ratio, update_mask, threads};
  const float* weights = packed.data();
  const int64_t floats = packed.size();
  py::gil_scoped_release release;
  plan.run(call, weights, floats, wanted, size2(anchor));
}

// The share of the work, and the anchor.
std::pair<double, Pair> plan_reads(const ConvPlan& plan,
                                   const Array<uint8_t>& wanted,
                                   const Pair& out,
                                   const std::vector<Array<uint8_t>>& reads,
                                   const std::optional<Pair>& anchor) {
  std::optional<Size2> place;
  if (anchor) place = size2(*anchor);
  py::gil_scoped_release release;
  const PlanReads found = plan.reads(wanted, size2(out), reads, place);
  return {found.share, {found.anchor.y, found.anchor.x}};
}

void plan_touches(const ConvPlan& plan,
                  const std::vector<Array<uint8_t>>& changed,
                  const Array<uint8_t>& touched,
                  const Pair& anchor) {
  py::gil_scoped_release release;
  plan.touches(changed, touched, size2(anchor));
}

void run_plan_unpacked(const ConvPlan& plan,
                       const Images& x,
                       const Masks& valid,
                       const Array<float>& weight,
                       const OptionalFloats& bias,
                       const Array<float>& y,
                       const OptionalFloats& pre_activation,
                       const OptionalFloats& mask_ratio,
                       const OptionalFloats& update_mask,
                       int threads) {
  const PlanCall call{x, valid, bias, y, pre_activation, mask_ratio, update_mask, threads};
  py::gil_scoped_release release;
  plan.run_unpacked(call, weight);
}

void call_weight_gradient(const Images& x,
                          const Masks& valid,
                          const std::vector<TensorShape>& tensors,
                          const Array<float>& grad,
                          const Array<float>& grad_weight,
                          const std::string& algorithm,
                          const Pair& stride,
                          const Pair& padding,
                          const Pair& dilation,
                          const std::string& padding_mode,
                          int threads) {
  PlanSpec spec{};
  spec.algorithm = algorithm_of(algorithm);
  spec.stride = size2(stride);
  spec.dilation = size2(dilation);
  spec.padding = size2(padding);
  spec.padding_mode = padding_mode_of(padding_mode);
  spec.tensors = tensors;
  py::gil_scoped_release release;
  weight_gradient(spec, x, valid, grad, grad_weight, threads);
}

template <size_t N>
py::tuple names(const char* const (&of)[N]) {
  py::tuple result(N);
  for (size_t i = 0; i < N; ++i) result[i] = of[i];
  return result;
}

}  // namespace

void bind_convolution(py::module_& m) {
  using py::arg;
  m.attr("algorithms") = names(kAlgorithmNames);
  // In the order of their codes.
  m.attr("activations") = names(kActivationNames);
  m.attr("padding_modes") = names(kPaddingModeNames);
  m.attr("leaky_slope") = kLeakySlope;
  m.attr("cost_names") = names(kTermNames);
  m.def("measured_costs", &measured_costs, arg("instruction_set"));
  m.def("convolution_work",
        &call_work,
        arg("algorithm"),
        arg("kind"),
        arg("batch"),
        arg("weight_shape"),
        arg("stride"),
        arg("dilation"),
        arg("size"));
  m.def("choose_algorithm",
        &call_choose<int64_t,
                     const std::array<int64_t, 4>&,
                     int64_t,
                     const Pair&,
                     const Pair&,
                     const Pair&,
                     int,
                     const Pair&,
                     bool,
                     bool,
                     bool,
                     bool,
                     const Costs&>,
        arg("kind"),
        arg("batch"),
        arg("weight_shape"),
        arg("groups"),
        arg("stride"),
        arg("dilation"),
        arg("padding"),
        arg("upsample"),
        arg("size"),
        arg("tiled"),
        arg("large"),
        arg("in_place"),
        arg("anew"),
        arg("costs"));
  m.def("packed_floats",
        &call_packed_floats,
        tensor("weight"),
        arg("algorithm"),
        arg("stride"),
        arg("gated"),
        arg("flipped"),
        arg("step"),
        arg("padding"));
  m.def("pack_weight",
        &call_pack_weight,
        tensor("weight"),
        arg("algorithm"),
        arg("stride"),
        arg("gated"),
        arg("flipped"),
        arg("step"),
        arg("padding"),
        arg("threads"),
        tensor("spare"));
  m.def("sum_neighbours", &call_sum_neighbours, tensor("weight"), tensor("sums"), arg("threads"));
  py::class_<ConvPlan>(m, "ConvPlan")
      .def(py::init(&make_plan),
           arg("algorithm"),
           arg("kernel"),
           arg("stride"),
           arg("dilation"),
           arg("padding"),
           arg("padding_mode"),
           arg("tensors"),
           arg("filters"),
           arg("gated"),
           arg("activation"),
           arg("step"))
      .def("run",
           &run_plan,
           tensor("x"),
           tensor("valid"),
           tensor("packed"),
           tensor("bias"),
           tensor("y"),
           tensor("pre_activation"),
           tensor("mask_ratio"),
           tensor("update_mask"),
           tensor("wanted"),
           arg("anchor"),
           arg("threads"))
      .def("reads", &plan_reads, tensor("wanted"), arg("out"), tensor("reads"), arg("anchor"))
      .def("touches", &plan_touches, tensor("changed"), tensor("touched"), arg("anchor"))
      .def("run_unpacked",
           &run_plan_unpacked,
           tensor("x"),
           tensor("valid"),
           tensor("weight"),
           tensor("bias"),
           tensor("y"),
           tensor("pre_activation"),
           tensor("mask_ratio"),
           tensor("update_mask"),
           arg("threads"));
  m.def("conv_weight_gradient",
        &call_weight_gradient,
        tensor("x"),
        tensor("valid"),
        arg("tensors"),
        tensor("grad"),
        tensor("grad_weight"),
        arg("algorithm"),
        arg("stride"),
        arg("padding"),
        arg("dilation"),
        arg("padding_mode"),
        arg("threads"));
}

}  // namespace inpaint
