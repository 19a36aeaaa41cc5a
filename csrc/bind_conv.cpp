#include "bind_conv.h"

#include <array>

#include "gated_conv2d.h"
#include "partial_conv2d.h"

namespace inpaint {
namespace {

Core core_of(int code) {
  require(code >= 0 && code <= int(Core::kWinogradDoubled), "core");
  return Core(code);
}

int64_t packed_size(Core core, int64_t filters, int64_t channels, bool gated, Size2 kernel) {
  if (core == Core::kDirect)
    return INPAINT_PICK(direct_packed_size)(filters, channels, gated, kernel);
  return INPAINT_PICK(winograd_packed_size)(
      filters, channels, gated, core == Core::kWinogradDoubled);
}

// What the cores assume of a call.
void check_core(Core core, const ConvArgs& a) {
  if (core == Core::kDirect) {
    require(INPAINT_PICK(direct_takes)(a), "the direct core does not take this");
    return;
  }
  require(a.kernel.y == 3 && a.kernel.x == 3 && a.stride.y == 1 && a.stride.x == 1,
          "Winograd is for 3x3, stride 1");
  if (core == Core::kWinograd) return;
  require(a.upsample == 2 && a.dilation.y == 1 && a.dilation.x == 1 && a.padding.y == 1 &&
              a.padding.x == 1,
          "doubled tiles want upsample 2, dilation 1 and padding 1");
}

Array<float> pack_weight(
    const Array<float>& weight, int core_code, bool gated, bool flipped, int threads) {
  const Core core = core_of(core_code);
  require(weight.ndim() == 4 && threads >= 1, "weight must have four dimensions");
  const auto stride = [&](int axis) { return int64_t(weight.strides(axis)) / 4; };
  PackArgs args;
  args.kernel = {weight.shape(2), weight.shape(3)};
  args.weight = weight.data();
  // Flipped: the filters of the input's gradient, channels and filters exchanged, taps reversed.
  args.filters = weight.shape(flipped ? 1 : 0);
  args.channels = weight.shape(flipped ? 0 : 1);
  args.stride_filter = stride(flipped ? 1 : 0);
  args.stride_channel = stride(flipped ? 0 : 1);
  args.stride_y = stride(2);
  args.stride_x = stride(3);
  if (flipped) {
    args.weight += (args.kernel.y - 1) * args.stride_y + (args.kernel.x - 1) * args.stride_x;
    args.stride_y = -args.stride_y;
    args.stride_x = -args.stride_x;
  }
  args.gated = gated;
  args.threads = threads;
  require(!gated || args.filters % 2 == 0, "a gated layer has an even number of filters");
  require(core == Core::kDirect || (args.kernel.y == 3 && args.kernel.x == 3),
          "Winograd is for 3x3");
  const int64_t size = packed_size(core, args.filters, args.channels, gated, args.kernel);
  Array<float> packed(size);
  args.packed = packed.mutable_data();
  auto* kernel = core == Core::kDirect     ? INPAINT_PICK(pack_direct)
                 : core == Core::kWinograd ? INPAINT_PICK(pack_winograd)
                                           : INPAINT_PICK(pack_winograd_doubled);
  py::gil_scoped_release release;
  kernel(args);
  return packed;
}

void set_planes(ConvArgs& a, const OptionalFloats& scale, const OptionalFloats& share) {
  a.scale = a.share = nullptr;
  a.scale_stride_n = 0;
  if (!scale) return;
  const int64_t plane = a.out_height * a.out_width;
  require(share.has_value() && scale->ndim() == 3 && share->ndim() == 3, "scale and share");
  require(scale->shape(0) == 1 || scale->shape(0) == a.batch, "scale batch");
  const int64_t size = scale->shape(0) * plane;
  a.scale = packed_or_null(scale, size, "scale must be packed (N, Ho, Wo)");
  a.share = packed_or_null(share, size, "share must be packed (N, Ho, Wo)");
  a.scale_stride_n = scale->shape(0) == 1 ? 0 : plane;
}

// x (N, H, W, C), y (N, Ho, Wo, channels), z (N, Ho, Wo, filters).
void call_conv(const Array<float>& x,
               const Array<float>& packed,
               const OptionalFloats& bias,
               Array<float> y,
               std::optional<Array<float>> z,
               const py::dict& how,
               int threads) {
  require(x.ndim() == 4 && y.ndim() == 4 && threads >= 1, "x and y must have four dimensions");
  require(x.shape(3) >= 1 && (x.shape(3) == 1 || x.strides(3) == 4), "channels must be adjacent");
  ConvArgs a;
  a.x = x.data();
  a.batch = x.shape(0);
  a.height = x.shape(1);
  a.width = x.shape(2);
  a.channels = x.shape(3);
  a.stride_n = x.strides(0) / 4;
  a.stride_y = x.strides(1) / 4;
  a.stride_x = x.strides(2) / 4;
  a.upsample = how["upsample"].cast<int>();
  const int mode = how["padding_mode"].cast<int>();
  a.padding = size2(how["padding"].cast<Pair>());
  a.kernel = size2(how["kernel"].cast<Pair>());
  a.stride = size2(how["stride"].cast<Pair>());
  a.dilation = size2(how["dilation"].cast<Pair>());
  a.filters = how["filters"].cast<int64_t>();
  a.gated = how["gated"].cast<bool>();
  a.activation = activation_of(how["activation"].cast<int>());
  a.threads = threads;
  const Core core = core_of(how["core"].cast<int>());
  require(a.upsample == 1 || a.upsample == 2, "upsample");
  require(mode >= 0 && mode <= int(PaddingMode::kReplicate), "padding mode");
  a.padding_mode = PaddingMode(mode);
  for (const Size2& size : {a.kernel, a.stride, a.dilation})
    require(size.y >= 1 && size.x >= 1, "kernel, stride and dilation must be positive");
  require(a.height >= 1 && a.width >= 1, "x is empty");
  const Size2 size_out = size2(how["out_size"].cast<Pair>());
  a.out_height = size_out.y;
  a.out_width = size_out.x;
  a.store_size = {y.shape(1), y.shape(2)};
  a.store_step = size2(how["store_step"].cast<Pair>());
  a.store_offset = size2(how["store_offset"].cast<Pair>());
  require(a.store_step.y >= 1 && a.store_step.x >= 1, "store step");
  require(a.store_offset.y >= 0 && a.store_offset.x >= 0, "store offset");
  require(a.out_height >= 1 && a.out_width >= 1 &&
              (a.out_height - 1) * a.store_step.y + a.store_offset.y < a.store_size.y &&
              (a.out_width - 1) * a.store_step.x + a.store_offset.x < a.store_size.x,
          "output does not fit");
  require(a.filters >= 1 && (!a.gated || a.filters % 2 == 0), "filters");
  require(y.shape(0) == a.batch && y.shape(3) == (a.gated ? a.filters / 2 : a.filters), "y size");
  a.y = output<float>(y, y.size());
  a.z = z ? output<float>(*z, a.batch * y.shape(1) * y.shape(2) * a.filters) : nullptr;
  a.bias = packed_or_null(bias, a.filters, "bias");
  const int64_t size = packed_size(core, a.filters, a.channels, a.gated, a.kernel);
  require(is_packed<float>(packed) && packed.size() == size, "packed weights");
  a.packed = packed.data();
  set_valid(a,
            how["valid"].cast<std::optional<Array<uint8_t>>>(),
            how["part_end"].cast<std::vector<int64_t>>());
  set_planes(a, how["scale"].cast<OptionalFloats>(), how["share"].cast<OptionalFloats>());
  require(!a.scale || (a.store_size.y == a.out_height && a.store_size.x == a.out_width),
          "scale goes with plain outputs");
  const auto region = how["region"].cast<std::array<int64_t, 4>>();
  a.region_begin = {region[0], region[2]};
  a.region_end = {region[1], region[3]};
  require(region[0] >= 0 && region[0] <= region[1] && region[1] <= a.out_height, "region rows");
  require(region[2] >= 0 && region[2] <= region[3] && region[3] <= a.out_width, "region columns");
  check_core(core, a);
  auto* kernel = core == Core::kDirect     ? INPAINT_PICK(conv_direct)
                 : core == Core::kWinograd ? INPAINT_PICK(conv_winograd)
                                           : INPAINT_PICK(conv_winograd_doubled);
  py::gil_scoped_release release;
  kernel(a);
}

// z (N, Ho, Wo, filters).
void call_epilogue(const Array<float>& z,
                   const OptionalFloats& bias,
                   const OptionalFloats& scale,
                   const OptionalFloats& share,
                   Array<float> y,
                   std::optional<Array<float>> z_out,
                   bool gated,
                   int activation,
                   int threads) {
  require(is_packed<float>(z) && z.ndim() == 4 && threads >= 1, "z must be packed");
  EpilogueArgs a;
  a.z = z.data();
  a.image_pixels = z.shape(1) * z.shape(2);
  a.pixels = z.shape(0) * a.image_pixels;
  a.filters = z.shape(3);
  a.gated = gated;
  a.activation = activation_of(activation);
  require(!gated || a.filters % 2 == 0, "a gated layer has an even number of filters");
  a.bias = packed_or_null(bias, a.filters, "bias");
  a.scale = a.share = nullptr;
  a.scale_stride_n = 0;
  if (scale) {
    require(share && scale->ndim() == 3, "scale and share");
    require(scale->shape(0) == 1 || scale->shape(0) == z.shape(0), "scale batch");
    a.scale = packed_or_null(scale, scale->shape(0) * a.image_pixels, "scale");
    a.share = packed_or_null(share, scale->shape(0) * a.image_pixels, "share");
    a.scale_stride_n = scale->shape(0) == 1 ? 0 : a.image_pixels;
  }
  a.y = output<float>(y, a.pixels * (gated ? a.filters / 2 : a.filters));
  a.z_out = z_out ? output<float>(*z_out, a.pixels * a.filters) : nullptr;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(epilogue);
  py::gil_scoped_release release;
  kernel(a);
}

void call_epilogue_backward(const Array<float>& grad,
                            const Array<float>& z,
                            std::optional<Array<float>> grad_z,
                            std::optional<Array<double>> grad_bias,
                            bool gated,
                            bool from_result,
                            int activation,
                            int threads) {
  require(is_packed<float>(z) && z.ndim() == 4 && threads >= 1, "z must be packed");
  EpilogueBackwardArgs a;
  a.from_result = from_result;
  a.z = z.data();
  a.filters = z.shape(3);
  a.pixels = z.shape(0) * z.shape(1) * z.shape(2);
  a.gated = gated;
  a.activation = activation_of(activation);
  require(!gated || a.filters % 2 == 0, "a gated layer has an even number of filters");
  require(is_packed<float>(grad) && grad.size() == a.pixels * (gated ? a.filters / 2 : a.filters),
          "gradient must be packed and fit");
  a.grad = grad.data();
  a.grad_z = grad_z ? output<float>(*grad_z, a.pixels * a.filters) : nullptr;
  a.grad_bias = grad_bias ? output<double>(*grad_bias, a.filters) : nullptr;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(epilogue_backward);
  py::gil_scoped_release release;
  kernel(a);
}

void call_window_counts(const Array<int32_t>& known,
                        const Pair& kernel_size,
                        const Pair& stride,
                        const Pair& padding,
                        const Pair& dilation,
                        Array<int32_t> counts,
                        int threads) {
  require(is_packed<int32_t>(known) && known.ndim() == 3, "known must be packed (N, H, W)");
  require(counts.ndim() == 3 && counts.shape(0) == known.shape(0) && threads >= 1, "counts");
  WindowCountArgs a;
  a.known = known.data();
  a.batch = known.shape(0);
  a.height = known.shape(1);
  a.width = known.shape(2);
  a.kernel = size2(kernel_size);
  a.stride = size2(stride);
  a.padding = size2(padding);
  a.dilation = size2(dilation);
  a.out_height = counts.shape(1);
  a.out_width = counts.shape(2);
  a.counts = output<int32_t>(counts, counts.size());
  a.threads = threads;
  auto* kernel = INPAINT_PICK(window_counts);
  py::gil_scoped_release release;
  kernel(a);
}

}  // namespace

void bind_conv(py::module_& m) {
  m.def("pack_weight",
        &pack_weight,
        py::arg("weight").noconvert(),
        py::arg("core"),
        py::arg("gated"),
        py::arg("flipped"),
        py::arg("threads"));
  m.def("conv",
        &call_conv,
        py::arg("x").noconvert(),
        py::arg("packed").noconvert(),
        py::arg("bias").noconvert(),
        py::arg("y").noconvert(),
        py::arg("z").noconvert(),
        py::arg("how"),
        py::arg("threads"));
  m.def("conv_epilogue",
        &call_epilogue,
        py::arg("z").noconvert(),
        py::arg("bias").noconvert(),
        py::arg("scale").noconvert(),
        py::arg("share").noconvert(),
        py::arg("y").noconvert(),
        py::arg("z_out").noconvert(),
        py::arg("gated"),
        py::arg("activation"),
        py::arg("threads"));
  m.def("conv_epilogue_backward",
        &call_epilogue_backward,
        py::arg("grad").noconvert(),
        py::arg("z").noconvert(),
        py::arg("grad_z").noconvert(),
        py::arg("grad_bias").noconvert(),
        py::arg("gated"),
        py::arg("from_result"),
        py::arg("activation"),
        py::arg("threads"));
  m.def("window_counts",
        &call_window_counts,
        py::arg("known").noconvert(),
        py::arg("kernel"),
        py::arg("stride"),
        py::arg("padding"),
        py::arg("dilation"),
        py::arg("counts").noconvert(),
        py::arg("threads"));
}

}  // namespace inpaint
