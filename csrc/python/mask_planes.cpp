#include "convolution/mask_planes.h"

#include <variant>

#include "python/names.h"

namespace inpaint {
namespace {

// masks (N or 1, planes, H, W): bytes or numbers; of each its upsampling factor and the weights of
// its planes; mask_ratio and update_mask (N, Ho, Wo).
void call_mask_planes(const std::vector<std::variant<Array<uint8_t>, Array<float>>>& masks,
                      const std::vector<std::pair<int, std::vector<int32_t>>>& shapes,
                      const Pair& kernel_size,
                      const Pair& stride,
                      const Pair& padding,
                      const Pair& dilation,
                      float total,
                      bool by_sum,
                      bool biased,
                      Array<float> mask_ratio,
                      Array<float> update_mask,
                      int threads) {
  require(mask_ratio.ndim() == 3 && threads >= 1, "mask_ratio");
  MaskPlanesArgs a;
  a.batch = mask_ratio.shape(0);
  a.out_height = mask_ratio.shape(1);
  a.out_width = mask_ratio.shape(2);
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
  a.mask_ratio = output<float>(mask_ratio, mask_ratio.size());
  a.update_mask = output<float>(update_mask, mask_ratio.size());
  a.threads = threads;
  auto* kernel = INPAINT_PICK(mask_planes);
  py::gil_scoped_release release;
  kernel(a);
}

// grad and grad_sums (N, filters, H, W) in channels_last, the planes (N or 1, 1, H, W).
void call_mask_ratio_backward(const Array<float>& grad,
                              const Array<float>& mask_ratio,
                              const Array<float>& update_mask,
                              Array<float> grad_sums,
                              std::optional<Array<double>> grad_bias,
                              int threads) {
  require(grad.is_channels_last() && threads >= 1, "grad must be channels_last");
  MaskRatioBackwardArgs a{};
  a.grad = grad.data();
  a.image_pixels = grad.shape(2) * grad.shape(3);
  a.pixels = grad.shape(0) * a.image_pixels;
  a.filters = grad.shape(1);
  const int64_t batch = mask_ratio.shape(0);
  require(mask_ratio.ndim() == 4 && (batch == 1 || batch == grad.shape(0)), "mask_ratio batch");
  for (const auto& [plane, name] :
       {std::pair(&mask_ratio, "mask_ratio"), {&update_mask, "update_mask"}})
    require(plane->is_packed() && plane->size() == batch * a.image_pixels, name);
  a.mask_ratio = mask_ratio.data();
  a.update_mask = update_mask.data();
  a.mask_stride_n = batch == 1 ? 0 : a.image_pixels;
  a.grad_sums = channels_last_output(grad_sums, grad.size());
  a.grad_bias = grad_bias ? output<double>(*grad_bias, a.filters) : nullptr;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(mask_ratio_backward);
  py::gil_scoped_release release;
  kernel(a);
}

// image (N, C, H, W) of any strides; known (N or 1, planes, H, W), bytes.
void call_hide_missing(Array<float> image,
                       const Array<uint8_t>& known,
                       const std::vector<int64_t>& widths,
                       int threads) {
  require(image.ndim() == 4 && threads >= 1, "image must have four dimensions");
  const int64_t batch = known.shape(0), pixels = image.shape(2) * image.shape(3);
  require(known.is_packed() && known.ndim() == 4, "known must be packed");
  require(batch == 1 || batch == image.shape(0), "known batch");
  require(known.shape(2) == image.shape(2) && known.shape(3) == image.shape(3), "known size");
  require(known.shape(1) == int64_t(widths.size()), "one width a plane");
  int64_t channels = 0;
  for (const int64_t width : widths) {
    require(width >= 1 && width <= image.shape(1) - channels, "widths");
    channels += width;
  }
  require(channels == image.shape(1), "widths of all channels");
  HideMissingArgs a{};
  a.image = image.mutable_data();
  a.batch = image.shape(0);
  a.height = image.shape(2);
  a.width = image.shape(3);
  a.stride_n = image.stride(0);
  a.stride_c = image.stride(1);
  a.stride_h = image.stride(2);
  a.stride_w = image.stride(3);
  a.known = known.data();
  a.known_stride_n = batch == 1 ? 0 : known.shape(1) * pixels;
  a.widths = widths;
  a.threads = threads;
  auto* kernel = INPAINT_PICK(hide_missing);
  py::gil_scoped_release release;
  kernel(a);
}

// Returns whether all bytes are 0 or 1.
bool call_known_bytes(const Array<uint8_t>& mask) {
  require(mask.is_packed(), "mask must be packed bytes");
  return INPAINT_PICK(kind_of_bytes)(mask.data(), mask.size()) == MaskKind::kBinary;
}

// Returns whether all numbers are 0 or 1; `known`: where they are not 0.
bool call_known_numbers(const Array<float>& mask, Array<uint8_t> known) {
  require(mask.is_packed(), "mask must be packed");
  uint8_t* to = output<uint8_t>(known, mask.size());
  return INPAINT_PICK(known_bytes)(mask.data(), mask.size(), to) == MaskKind::kBinary;
}

std::vector<int64_t> call_equal_planes(const Array<uint8_t>& mask) {
  require(mask.is_packed() && mask.ndim() == 4, "mask must be packed");
  return INPAINT_PICK(equal_planes)(
      mask.data(), mask.shape(0), mask.shape(1), mask.shape(2) * mask.shape(3));
}

}  // namespace

void bind_mask_planes(py::module_& m) {
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
        py::arg("mask_ratio").noconvert(),
        py::arg("update_mask").noconvert(),
        py::arg("threads"));
  m.def("mask_ratio_backward",
        &call_mask_ratio_backward,
        tensor("grad"),
        tensor("mask_ratio"),
        tensor("update_mask"),
        tensor("grad_sums"),
        tensor("grad_bias"),
        py::arg("threads"));
  m.def("hide_missing",
        &call_hide_missing,
        tensor("image"),
        tensor("known"),
        py::arg("widths"),
        py::arg("threads"));
  m.def("equal_planes", &call_equal_planes, py::arg("mask").noconvert());
  m.def("known_bytes", &call_known_bytes, py::arg("mask"));
  m.def("known_bytes", &call_known_numbers, py::arg("mask"), py::arg("known"));
}

}  // namespace inpaint
