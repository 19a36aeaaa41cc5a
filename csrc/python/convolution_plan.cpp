// One convolution with everything about it that does not depend on the data: made once, run often.
#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <vector>

#include "convolution/unpacked.h"
#include "python/convolution.h"

namespace inpaint {
namespace {

// A convolution of its own inside a transposed one: outputs `offset` modulo the stride, of the taps
// `first`, first + stride, ... in reverse. An ordinary convolution is one phase.
struct Phase {
  Size2 kernel, padding, first, offset;
};

// `step`: stride of a transposed convolution, 0: an ordinary one.
std::vector<Phase> phases_of(Size2 kernel, Size2 padding, int64_t step) {
  if (step == 0) return {{kernel, padding, {0, 0}, {0, 0}}};
  // Output s q + r takes taps k = (r + padding) mod s + s t from input q + (r + padding) div s - t.
  const auto taps = [&](int64_t size, int64_t before, int64_t r) {
    return (size - (r + before) % step + step - 1) / step;
  };
  std::vector<Phase> phases;
  for (int64_t y = 0; y < step; ++y)
    for (int64_t x = 0; x < step; ++x) {
      const Size2 own = {taps(kernel.y, padding.y, y), taps(kernel.x, padding.x, x)};
      require(own.y >= 1 && own.x >= 1, "the kernel must reach the stride");
      phases.push_back({own,
                        {own.y - 1 - (y + padding.y) / step, own.x - 1 - (x + padding.x) / step},
                        {(y + padding.y) % step, (x + padding.x) % step},
                        {y, x}});
    }
  return phases;
}

// Packed weights belong to the extension: Python only keeps them.
using Packed = py::array_t<float, py::array::c_style>;

Core core_of(int code) {
  require(code >= 0 && code <= int(Core::kUnpacked), "core");
  return Core(code);
}

int64_t packed_size(const PackArgs& args) {
  return args.core == Core::kDirect ? INPAINT_PICK(direct_packed_size)(args)
                                    : INPAINT_PICK(winograd_packed_size)(args);
}

// weight (filters, channels, kh, kw), or (channels, filters, kh, kw) if `step` or `flipped`: those
// of the gradient of the input, taps reversed. The phases one after the other. `spare`: an earlier
// result that nobody reads any more.
Packed pack_weight(const Array<float>& weight,
                   int core_code,
                   const Pair& stride,
                   bool gated,
                   bool flipped,
                   int64_t step,
                   const Pair& padding,
                   int threads,
                   const std::optional<Packed>& spare) {
  require(weight.ndim() == 4 && threads >= 1 && step >= 0, "weight must have four dimensions");
  const bool exchanged = flipped || step > 0;
  PackArgs args;
  args.core = core_of(core_code);
  require(args.core != Core::kUnpacked, "the core takes no packed weights");
  args.filters = weight.shape(exchanged ? 1 : 0);
  args.channels = weight.shape(exchanged ? 0 : 1);
  args.stride_filter = weight.stride(exchanged ? 1 : 0);
  args.stride_channel = weight.stride(exchanged ? 0 : 1);
  args.stride = size2(stride);
  args.gated = gated;
  args.threads = threads;
  require(!gated || args.filters % 2 == 0, "a gated layer has an even number of filters");
  const Size2 kernel = {weight.shape(2), weight.shape(3)};
  std::vector<PackArgs> jobs;
  std::vector<int64_t> sizes;
  int64_t size = 0;
  for (const Phase& phase : phases_of(kernel, size2(padding), step)) {
    const int64_t apart = std::max<int64_t>(step, 1);
    args.kernel = phase.kernel;
    args.stride_y = apart * weight.stride(2);
    args.stride_x = apart * weight.stride(3);
    args.weight =
        weight.data() + phase.first.y * weight.stride(2) + phase.first.x * weight.stride(3);
    if (exchanged) {
      args.weight += (args.kernel.y - 1) * args.stride_y + (args.kernel.x - 1) * args.stride_x;
      args.stride_y = -args.stride_y;
      args.stride_x = -args.stride_x;
    }
    sizes.push_back(packed_size(args));
    size += sizes.back();
    jobs.push_back(args);
  }
  // Memory of that size is written again: pages of its own cost a third of the packing.
  const bool again = spare && spare->size() == size;
  Packed packed = again ? *spare : Packed(size);
  float* to = packed.mutable_data();
  auto* kernel_function =
      args.core == Core::kDirect ? INPAINT_PICK(pack_direct) : INPAINT_PICK(pack_winograd);
  py::gil_scoped_release release;
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].packed = to;
    kernel_function(jobs[i]);
    to += sizes[i];
  }
  return packed;
}

class ConvPlan {
 public:
  ConvPlan(int core,
           const Pair& kernel,
           const Pair& stride,
           const Pair& dilation,
           const Pair& padding,
           int padding_mode,
           const std::vector<TensorShape>& tensors,
           int64_t filters,
           bool gated,
           int activation,
           int64_t step)
      : tensors_(tensors) {
    a_.core = core_of(core);
    a_.stride = size2(stride);
    a_.dilation = size2(dilation);
    require(padding_mode >= 0 && padding_mode <= int(PaddingMode::kReplicate), "padding mode");
    a_.padding_mode = PaddingMode(padding_mode);
    check_shapes(tensors);
    for (const auto& [upsample, widths] : tensors) {
      Part part{};
      part.upsample = upsample;
      a_.parts.push_back(part);
      for (const int64_t width : widths) a_.channels += width;
    }
    a_.filters = filters;
    a_.gated = gated;
    a_.activation = activation_of(activation);
    require(filters >= 1 && (!gated || filters % 2 == 0) && step >= 0, "filters");
    const Size2 taps = size2(kernel);
    for (const Size2& size : {taps, a_.stride, a_.dilation})
      require(size.y >= 1 && size.x >= 1, "kernel, stride and dilation must be positive");
    if (a_.core == Core::kUnpacked) {
      a_.kernel = taps;
      a_.padding = size2(padding);
      transposed_ = step > 0;
      require(!transposed_ || (tensors.size() == 1 && tensors[0].first == 1), "one tensor");
      return;
    }
    phases_ = phases_of(taps, size2(padding), step);
    a_.store_step = {std::max<int64_t>(step, 1), std::max<int64_t>(step, 1)};
    for (const Phase& phase : phases_) {
      a_.kernel = phase.kernel;
      a_.padding = phase.padding;
      require(a_.core == Core::kDirect ? INPAINT_PICK(direct_takes)(a_)
                                       : INPAINT_PICK(winograd_takes)(a_),
              "the core does not take this");
    }
  }

  // x and valid as in set_parts, y (N, channels, Ho, Wo) packed in either layout, z (N, filters,
  // Ho, Wo) in channels_last; planes as in ConvArgs.
  void run(const std::vector<Array<float>>& x,
           const std::vector<std::optional<Array<uint8_t>>>& valid,
           const Packed& packed,
           const OptionalFloats& bias,
           Array<float> y,
           std::optional<Array<float>> z,
           const OptionalFloats& scale,
           const OptionalFloats& share,
           const std::optional<std::array<int64_t, 4>>& region,
           int threads) const {
    require(a_.core != Core::kUnpacked, "the core takes no packed weights");
    ConvArgs a = prepared(x, valid, bias, y, z, scale, share, threads);
    require(phases_.size() == 1 || (!scale && !region), "phases take no planes and no region");
    std::vector<ConvArgs> jobs;
    int64_t used = 0;
    for (const Phase& phase : phases_) {
      a.kernel = phase.kernel;
      a.padding = phase.padding;
      a.packed = packed.data() + used;
      used += packed_size(pack_args(a));
      a.store_offset = phase.offset;
      a.out_height = (a.store_size.y - phase.offset.y + a.store_step.y - 1) / a.store_step.y;
      a.out_width = (a.store_size.x - phase.offset.x + a.store_step.x - 1) / a.store_step.x;
      set_region(a, region);
      if (a.out_height > 0 && a.out_width > 0) jobs.push_back(a);
    }
    require(packed.size() == used, "packed weights");
    auto* kernel =
        a.core == Core::kDirect ? INPAINT_PICK(conv_direct) : INPAINT_PICK(conv_winograd);
    py::gil_scoped_release release;
    for (const ConvArgs& job : jobs) kernel(job);
  }

  // The same from the weight as the layer has it, (filters, channels, kh, kw), or (channels,
  // filters, kh, kw) if transposed, packed.
  void run_unpacked(const std::vector<Array<float>>& x,
                    const std::vector<std::optional<Array<uint8_t>>>& valid,
                    const Array<float>& weight,
                    const OptionalFloats& bias,
                    Array<float> y,
                    std::optional<Array<float>> z,
                    const OptionalFloats& scale,
                    const OptionalFloats& share,
                    int threads) const {
    require(a_.core == Core::kUnpacked, "the core takes packed weights");
    UnpackedArgs args{prepared(x, valid, bias, y, z, scale, share, threads), weight.data()};
    ConvArgs& a = args.conv;
    a.y_streams = false;
    a.out_height = a.store_size.y;
    a.out_width = a.store_size.x;
    require(weight.ndim() == 4 && weight.is_packed(), "weight must be packed");
    require(weight.shape(transposed_ ? 1 : 0) == a.filters &&
                weight.shape(transposed_ ? 0 : 1) == a.channels && weight.shape(2) == a.kernel.y &&
                weight.shape(3) == a.kernel.x,
            "weight size");
    require(!transposed_ || !(valid[0] || scale), "a transposed convolution takes no mask");
    auto* kernel =
        transposed_ ? INPAINT_PICK(conv_unpacked_transposed) : INPAINT_PICK(conv_unpacked);
    py::gil_scoped_release release;
    kernel(args);
  }

 private:
  ConvArgs prepared(const std::vector<Array<float>>& x,
                    const std::vector<std::optional<Array<uint8_t>>>& valid,
                    const OptionalFloats& bias,
                    Array<float>& y,
                    std::optional<Array<float>>& z,
                    const OptionalFloats& scale,
                    const OptionalFloats& share,
                    int threads) const {
    ConvArgs a = a_;
    set_parts(a, tensors_, x, valid);
    set_images(a, y, z);
    a.threads = threads;
    require(threads >= 1, "threads");
    a.bias = packed_or_null(bias, a.filters, "bias");
    set_planes(a, scale, share);
    return a;
  }

  static PackArgs pack_args(const ConvArgs& a) {
    PackArgs args;
    args.core = a.core;
    args.filters = a.filters;
    args.channels = a.channels;
    args.kernel = a.kernel;
    args.stride = a.stride;
    args.gated = a.gated;
    return args;
  }

  static void set_images(ConvArgs& a, Array<float>& y, std::optional<Array<float>>& z) {
    require(y.ndim() == 4, "y must have four dimensions");
    a.store_size = {y.shape(2), y.shape(3)};
    const int64_t channels = a.gated ? a.filters / 2 : a.filters;
    require(y.shape(0) == a.batch && y.shape(1) == channels, "y size");
    a.y_planes = !y.is_channels_last();
    require(!a.y_planes || y.is_packed(), "y must be packed, channels last or first");
    a.y = y.mutable_data();
    // Two layers in a row, the second reading what the first wrote: 4 MB 1.05 times as fast by one
    // thread and 1.2 times by two, 1 MB 0.9 times by one.
    constexpr int64_t kStreamed = int64_t(4) << 20, kLine = 64;
    a.y_streams = !a.y_planes && 4 * y.size() >= kStreamed && channels * 4 % kLine == 0 &&
                  reinterpret_cast<uintptr_t>(a.y) % kLine == 0;
    const int64_t pixels = a.batch * y.shape(2) * y.shape(3);
    a.z = z ? channels_last_output(*z, pixels * a.filters) : nullptr;
  }

  static void set_planes(ConvArgs& a, const OptionalFloats& scale, const OptionalFloats& share) {
    a.scale = a.share = nullptr;
    a.scale_stride_n = 0;
    if (!scale) return;
    const int64_t plane = a.store_size.y * a.store_size.x;
    require(share.has_value() && scale->ndim() == 3 && share->ndim() == 3, "scale and share");
    require(scale->shape(0) == 1 || scale->shape(0) == a.batch, "scale batch");
    const int64_t size = scale->shape(0) * plane;
    a.scale = packed_or_null(scale, size, "scale must be packed (N, Ho, Wo)");
    a.share = packed_or_null(share, size, "share must be packed (N, Ho, Wo)");
    a.scale_stride_n = scale->shape(0) == 1 ? 0 : plane;
  }

  static void set_region(ConvArgs& a, const std::optional<std::array<int64_t, 4>>& region) {
    a.region_begin = {0, 0};
    a.region_end = {a.out_height, a.out_width};
    if (!region) return;
    const auto [top, bottom, left, right] = *region;
    a.region_begin = {top, left};
    a.region_end = {bottom, right};
    require(top >= 0 && top <= bottom && bottom <= a.out_height, "region rows");
    require(left >= 0 && left <= right && right <= a.out_width, "region columns");
  }

  ConvArgs a_ = {};
  std::vector<TensorShape> tensors_;
  std::vector<Phase> phases_;
  bool transposed_ = false;
};

}  // namespace

void bind_conv_plan(py::module_& m) {
  m.def("pack_weight",
        &pack_weight,
        py::arg("weight").noconvert(),
        py::arg("core"),
        py::arg("stride"),
        py::arg("gated"),
        py::arg("flipped"),
        py::arg("step"),
        py::arg("padding"),
        py::arg("threads"),
        py::arg("spare").noconvert());
  py::class_<ConvPlan>(m, "ConvPlan")
      .def(py::init<int,
                    const Pair&,
                    const Pair&,
                    const Pair&,
                    const Pair&,
                    int,
                    const std::vector<TensorShape>&,
                    int64_t,
                    bool,
                    int,
                    int64_t>(),
           py::arg("core"),
           py::arg("kernel"),
           py::arg("stride"),
           py::arg("dilation"),
           py::arg("padding"),
           py::arg("padding_mode"),
           py::arg("tensors"),
           py::arg("filters"),
           py::arg("gated"),
           py::arg("activation"),
           py::arg("step"))
      .def("run",
           &ConvPlan::run,
           py::arg("x").noconvert(),
           py::arg("valid").noconvert(),
           py::arg("packed").noconvert(),
           py::arg("bias").noconvert(),
           py::arg("y").noconvert(),
           py::arg("z").noconvert(),
           py::arg("scale").noconvert(),
           py::arg("share").noconvert(),
           py::arg("region"),
           py::arg("threads"))
      .def("run_unpacked",
           &ConvPlan::run_unpacked,
           py::arg("x").noconvert(),
           py::arg("valid").noconvert(),
           py::arg("weight").noconvert(),
           py::arg("bias").noconvert(),
           py::arg("y").noconvert(),
           py::arg("z").noconvert(),
           py::arg("scale").noconvert(),
           py::arg("share").noconvert(),
           py::arg("threads"));
  m.def(
      "unpacked_worth",
      [](int64_t pixels, int64_t weights, bool transposed) {
        return INPAINT_PICK(unpacked_worth)(pixels, weights, transposed);
      },
      py::arg("pixels"),
      py::arg("weights"),
      py::arg("transposed"));
}

}  // namespace inpaint
