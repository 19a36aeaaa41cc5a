#include "python/convolution.h"

#include <cstring>
#include <variant>

#include "convolution/epilogue.h"
#include "convolution/mask_planes.h"

namespace inpaint {
namespace {

// All images (N, C, H, W) in channels_last.
void call_epilogue(const Array<float>& z,
                   const OptionalFloats& bias,
                   const OptionalFloats& scale,
                   const OptionalFloats& share,
                   Array<float> y,
                   std::optional<Array<float>> z_out,
                   bool gated,
                   int activation,
                   int threads) {
  require(z.is_channels_last() && threads >= 1, "z must be channels_last");
  EpilogueArgs a;
  a.z = z.data();
  a.image_pixels = z.shape(2) * z.shape(3);
  a.pixels = z.shape(0) * a.image_pixels;
  a.filters = z.shape(1);
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
  a.y = channels_last_output(y, a.pixels * (gated ? a.filters / 2 : a.filters));
  a.z_out = z_out ? channels_last_output(*z_out, a.pixels * a.filters) : nullptr;
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
  require(z.is_channels_last() && threads >= 1, "z must be channels_last");
  EpilogueBackwardArgs a;
  a.from_result = from_result;
  a.z = z.data();
  a.filters = z.shape(1);
  a.pixels = z.shape(0) * z.shape(2) * z.shape(3);
  a.gated = gated;
  a.activation = activation_of(activation);
  require(!gated || a.filters % 2 == 0, "a gated layer has an even number of filters");
  require(grad.is_channels_last() && grad.size() == a.pixels * (gated ? a.filters / 2 : a.filters),
          "gradient must be channels_last and fit");
  a.grad = grad.data();
  a.grad_z = grad_z ? channels_last_output(*grad_z, a.pixels * a.filters) : nullptr;
  a.grad_bias = grad_bias ? output<double>(*grad_bias, a.filters) : nullptr;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(epilogue_backward);
  py::gil_scoped_release release;
  kernel(a);
}

// masks (N or 1, planes, H, W): bytes or numbers; of each its upsampling factor and the weights of
// its planes; scale and share (N, Ho, Wo).
void call_mask_planes(const std::vector<std::variant<Array<uint8_t>, Array<float>>>& masks,
                      const std::vector<std::pair<int, std::vector<int32_t>>>& shapes,
                      const Pair& kernel_size,
                      const Pair& stride,
                      const Pair& padding,
                      const Pair& dilation,
                      float total,
                      bool by_sum,
                      bool biased,
                      Array<float> scale,
                      Array<float> share,
                      int threads) {
  require(scale.ndim() == 3 && threads >= 1, "scale");
  MaskPlanesArgs a;
  a.batch = scale.shape(0);
  a.out_height = scale.shape(1);
  a.out_width = scale.shape(2);
  require(!masks.empty() && masks.size() == shapes.size(), "weights of each mask");
  for (size_t i = 0; i < masks.size(); ++i) {
    const auto& [upsample, weights] = shapes[i];
    MaskPart part{};
    const auto set = [&](const auto& mask) {
      require(mask.is_packed() && mask.ndim() == 4, "mask must be packed");
      require(mask.shape(0) == 1 || mask.shape(0) == a.batch, "mask batch");
      require(mask.shape(1) == int64_t(weights.size()), "one weight a plane");
      part.height = mask.shape(2);
      part.width = mask.shape(3);
      part.stride_n = mask.shape(0) == 1 ? 0 : mask.shape(1) * part.height * part.width;
    };
    if (const auto* known = std::get_if<Array<uint8_t>>(&masks[i])) {
      set(*known);
      part.known = known->data();
    } else {
      const auto& soft = std::get<Array<float>>(masks[i]);
      set(soft);
      part.soft = soft.data();
    }
    require(upsample == 1 || upsample == 2, "upsample");
    part.upsample = upsample;
    part.weights = weights;
    a.parts.push_back(part);
  }
  a.kernel = size2(kernel_size);
  a.stride = size2(stride);
  a.padding = size2(padding);
  a.dilation = size2(dilation);
  for (const Size2& size : {a.kernel, a.stride, a.dilation})
    require(size.y >= 1 && size.x >= 1, "kernel, stride and dilation must be positive");
  require(a.padding.y >= 0 && a.padding.x >= 0, "padding");
  a.total = total;
  a.by_sum = by_sum;
  a.biased = biased;
  a.scale = output<float>(scale, scale.size());
  a.share = output<float>(share, scale.size());
  a.threads = threads;
  auto* kernel = INPAINT_PICK(mask_planes);
  py::gil_scoped_release release;
  kernel(a);
}

// Whether all bytes are 0 or 1.
bool call_known_bytes(const Array<uint8_t>& mask) {
  require(mask.is_packed(), "mask must be packed bytes");
  return INPAINT_PICK(kind_of_bytes)(mask.data(), mask.size()) == MaskKind::kBinary;
}

// Whether all numbers are 0 or 1; `known`: where they are not 0.
bool call_known_numbers(const Array<float>& mask, Array<uint8_t> known) {
  require(mask.is_packed(), "mask must be packed");
  uint8_t* to = output<uint8_t>(known, mask.size());
  return INPAINT_PICK(known_bytes)(mask.data(), mask.size(), to) == MaskKind::kBinary;
}

// Lengths of the runs of equal planes of a mask, bytes (N, planes, H, W).
std::vector<int64_t> call_equal_planes(const Array<uint8_t>& mask) {
  require(mask.is_packed() && mask.ndim() == 4, "mask must be packed");
  const int64_t planes = mask.shape(1), plane = mask.shape(2) * mask.shape(3);
  std::vector<int64_t> runs;
  for (int64_t p = 0; p < planes; ++p) {
    bool equal = p > 0;
    for (int64_t n = 0; equal && n < mask.shape(0); ++n) {
      const uint8_t* here = mask.data() + (n * planes + p) * plane;
      equal = std::memcmp(here - plane, here, size_t(plane)) == 0;
    }
    if (equal) {
      ++runs.back();
    } else {
      runs.push_back(1);
    }
  }
  return runs;
}

}  // namespace

void bind_conv(py::module_& m) {
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
  m.def("mask_planes",
        &call_mask_planes,
        py::arg("masks"),
        py::arg("shapes"),
        py::arg("kernel"),
        py::arg("stride"),
        py::arg("padding"),
        py::arg("dilation"),
        py::arg("total"),
        py::arg("by_sum"),
        py::arg("biased"),
        py::arg("scale").noconvert(),
        py::arg("share").noconvert(),
        py::arg("threads"));
  m.def("equal_planes", &call_equal_planes, py::arg("mask").noconvert());
  m.def("known_bytes", &call_known_bytes, py::arg("mask"));
  m.def("known_bytes", &call_known_numbers, py::arg("mask"), py::arg("known"));
}

}  // namespace inpaint
