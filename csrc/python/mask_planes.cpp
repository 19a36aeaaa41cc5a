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
  m.def("equal_planes", &call_equal_planes, py::arg("mask").noconvert());
  m.def("known_bytes", &call_known_bytes, py::arg("mask"));
  m.def("known_bytes", &call_known_numbers, py::arg("mask"), py::arg("known"));
}

}  // namespace inpaint
