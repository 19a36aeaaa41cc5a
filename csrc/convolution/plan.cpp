#include "convolution/plan.h"

#include <algorithm>

#include "convolution/planes.h"
#include "convolution/touches.h"
#include "convolution/unpacked.h"
#include "convolution/weight_gradient.h"

namespace inpaint {
namespace {

void require_positive(std::initializer_list<Size2> sizes) {
  for (const Size2& size : sizes)
    require(size.y >= 1 && size.x >= 1, "kernel, stride and dilation must be positive");
}

void check_shapes(const std::vector<TensorShape>& shapes) {
  require(!shapes.empty(), "there must be a tensor");
  for (const auto& [upsample, widths] : shapes) {
    require(upsample == 1 || upsample == 2, "upsample");
    require(!widths.empty(), "widths");
    for (const int64_t width : widths) require(width >= 1, "widths");
  }
}

bool takes(const ConvArgs& a) {
  return a.algorithm == Algorithm::kDirect ? INPAINT_PICK(direct_takes)(a)
                                           : INPAINT_PICK(winograd_takes)(a);
}

PackArgs pack_args(const ConvArgs& a) {
  PackArgs args{};
  args.algorithm = a.algorithm;
  args.filters = a.filters;
  args.channels = a.channels;
  args.kernel = a.kernel;
  args.stride = a.stride;
  args.gated = a.gated;
  return args;
}

// The parts of one tensor, one for each plane of its mask.
void add_parts(ConvArgs& a,
               const TensorShape& shape,
               const Array<float>& image,
               const std::optional<Array<uint8_t>>& valid) {
  const auto& [upsample, widths] = shape;
  int64_t channels = 0;
  for (const int64_t width : widths) channels += width;
  require(image.shape(0) == a.batch && image.shape(1) == channels, "x size");
  Part part{};
  part.height = image.shape(2);
  part.width = image.shape(3);
  part.stride_n = image.stride(0);
  part.stride_y = image.stride(2);
  part.stride_x = image.stride(3);
  part.stride_c = channels == 1 ? 1 : image.stride(1);
  part.upsample = upsample;
  const int64_t plane = part.height * part.width;
  if (valid) {
    require(valid->is_packed() && valid->ndim() == 4, "valid must be packed (N, P, H, W)");
    require(valid->shape(0) == 1 || valid->shape(0) == a.batch, "valid batch");
    require(valid->shape(1) == int64_t(widths.size()), "valid planes");
    require(valid->shape(2) == part.height && valid->shape(3) == part.width, "valid size");
    part.valid_stride_n = valid->shape(0) == 1 ? 0 : valid->shape(1) * plane;
  }
  int64_t first = 0;
  for (size_t p = 0; p < widths.size(); ++p) {
    part.x = image.data() + first * part.stride_c;
    part.channels = widths[p];
    if (valid) part.valid = valid->data() + int64_t(p) * plane;
    a.parts.push_back(part);
    first += widths[p];
  }
  a.channels += channels;
}

void set_parts(ConvArgs& a,
               const std::vector<TensorShape>& shapes,
               const Images& x,
               const Masks& valid) {
  require(x.size() == shapes.size() && valid.size() == shapes.size(), "one mask a tensor");
  a.parts.clear();
  a.channels = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    require(x[i].ndim() == 4 && x[i].size() > 0, "x must have four dimensions, none empty");
    if (i == 0) a.batch = x[i].shape(0);
    add_parts(a, shapes[i], x[i], valid[i]);
  }
  const Part& first = a.parts.front();
  for (const Part& part : a.parts)
    require(part.height * part.upsample == first.height * first.upsample &&
                part.width * part.upsample == first.width * first.upsample,
            "tensors must have one size after their upsampling");
}

void set_results(ConvArgs& a, Array<float>& y, OptionalFloats& pre_activation) {
  require(y.ndim() == 4, "y must have four dimensions");
  a.store_size = {y.shape(2), y.shape(3)};
  const int64_t channels = a.gated ? a.filters / 2 : a.filters;
  require(y.shape(0) == a.batch && y.shape(1) == channels, "y size");
  a.y_planes = !y.is_channels_last();
  require(!a.y_planes || y.is_packed(), "y must be packed, channels last or first");
  a.y = whole_memory(y);
  // Two layers in a row, the second reading what the first wrote: 4 MB 1.05 times as fast by one
  // thread and 1.2 times by two, 1 MB 0.9 times by one.
  constexpr int64_t kStreamed = int64_t(4) << 20, kLine = 64;
  a.y_streams = !a.y_planes && 4 * y.size() >= kStreamed && channels * 4 % kLine == 0 &&
                reinterpret_cast<uintptr_t>(a.y) % kLine == 0;
  const int64_t pixels = a.batch * y.shape(2) * y.shape(3);
  a.pre_activation =
      pre_activation ? channels_last_output(*pre_activation, pixels * a.filters) : nullptr;
}

void set_mask_planes(ConvArgs& a, const OptionalFloats& ratio, const OptionalFloats& update) {
  a.mask_ratio = a.update_mask = nullptr;
  a.mask_stride_n = 0;
  if (!ratio) return;
  const int64_t plane = a.store_size.y * a.store_size.x;
  require(update && ratio->ndim() == 3 && update->ndim() == 3, "mask_ratio and update_mask");
  require(ratio->shape(0) == 1 || ratio->shape(0) == a.batch, "mask_ratio batch");
  const int64_t size = ratio->shape(0) * plane;
  a.mask_ratio = packed_or_null(ratio, size, "mask_ratio must be packed (N, Ho, Wo)");
  a.update_mask = packed_or_null(update, size, "update_mask must be packed (N, Ho, Wo)");
  a.mask_stride_n = ratio->shape(0) == 1 ? 0 : plane;
}

void set_wanted(ConvArgs& a, const Array<uint8_t>& wanted) {
  require(wanted.ndim() == 3 && wanted.is_packed(), "wanted must be packed (N, Ho, Wo)");
  require(wanted.shape(0) == 1 || wanted.shape(0) == a.batch, "wanted batch");
  require(wanted.shape(1) == a.store_size.y && wanted.shape(2) == a.store_size.x, "wanted size");
  a.wanted = wanted.data();
  a.wanted_stride_n = wanted.shape(0) == 1 ? 0 : a.store_size.y * a.store_size.x;
}

// The first row and the first column with a wanted output; (0, 0) if there is none.
Size2 corner_of(const Array<uint8_t>& wanted) {
  const int64_t width = wanted.shape(2), rows = wanted.shape(0) * wanted.shape(1);
  int64_t top = wanted.shape(1), left = width;
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* from = wanted.data() + row * width;
    const uint8_t* first = std::find_if(from, from + width, [](uint8_t v) { return v != 0; });
    if (first == from + width) continue;
    top = std::min(top, row % wanted.shape(1));
    left = std::min<int64_t>(left, first - from);
  }
  return left == width ? Size2{0, 0} : Size2{top, left};
}

}  // namespace

ConvPlan::ConvPlan(const PlanSpec& spec) : tensors_(spec.tensors) {
  args_.algorithm = spec.algorithm;
  args_.stride = spec.stride;
  args_.dilation = spec.dilation;
  args_.padding_mode = spec.padding_mode;
  check_shapes(tensors_);
  for (const auto& [upsample, widths] : tensors_) {
    Part part{};
    part.upsample = upsample;
    args_.parts.push_back(part);
    for (const int64_t width : widths) args_.channels += width;
  }
  args_.filters = spec.filters;
  args_.gated = spec.gated;
  args_.activation = spec.activation;
  require(spec.filters >= 1 && (!spec.gated || spec.filters % 2 == 0) && spec.step >= 0, "filters");
  require_positive({spec.kernel, spec.stride, spec.dilation});
  if (spec.algorithm == Algorithm::kUnpacked) {
    args_.kernel = spec.kernel;
    args_.padding = spec.padding;
    transposed_ = spec.step > 0;
    require(!transposed_ || (tensors_.size() == 1 && tensors_[0].first == 1), "one tensor");
    return;
  }
  phases_ = phases_of(spec.kernel, spec.padding, spec.step);
  args_.store_step = {std::max<int64_t>(spec.step, 1), std::max<int64_t>(spec.step, 1)};
  for (const Phase& phase : phases_) {
    args_.kernel = phase.kernel;
    args_.padding = phase.padding;
    require(takes(args_), "the algorithm does not take this");
  }
}

ConvArgs ConvPlan::prepared(PlanCall call) const {
  ConvArgs a = args_;
  set_parts(a, tensors_, call.x, call.valid);
  set_results(a, call.y, call.pre_activation);
  a.threads = call.threads;
  require(call.threads >= 1, "threads");
  a.bias = packed_or_null(call.bias, a.filters, "bias");
  set_mask_planes(a, call.mask_ratio, call.update_mask);
  return a;
}

void ConvPlan::run(const PlanCall& call,
                   const float* packed,
                   int64_t packed_floats,
                   const std::optional<Array<uint8_t>>& wanted,
                   Size2 anchor) const {
  require(args_.algorithm != Algorithm::kUnpacked, "the algorithm takes no packed weights");
  ConvArgs a = prepared(call);
  require(phases_.size() == 1 || !call.mask_ratio, "phases take no planes");
  if (wanted) set_wanted(a, *wanted);
  std::vector<ConvArgs> jobs;
  int64_t used = 0;
  for (const Phase& phase : phases_) {
    const bool any = set_phase(a, phase, anchor);
    a.packed = packed + used;
    used += packed_size(pack_args(a));
    if (any) jobs.push_back(a);
  }
  // Memory of packed weights serves several layers, one after the other.
  require(packed_floats >= used, "packed weights");
  INPAINT_PICK(conv_all)(jobs);
}

bool ConvPlan::set_phase(ConvArgs& a, const Phase& phase, Size2 anchor) const {
  require(anchor.y >= 0 && anchor.x >= 0, "anchor");
  a.anchor = {anchor.y / a.store_step.y, anchor.x / a.store_step.x};
  a.kernel = phase.kernel;
  a.padding = phase.padding;
  a.store_offset = phase.offset;
  a.out_height = (a.store_size.y - phase.offset.y + a.store_step.y - 1) / a.store_step.y;
  a.out_width = (a.store_size.x - phase.offset.x + a.store_step.x - 1) / a.store_step.x;
  return a.out_height > 0 && a.out_width > 0;
}

ConvArgs ConvPlan::mapped(const std::vector<Array<uint8_t>>& maps, Size2 out) const {
  require(args_.algorithm != Algorithm::kUnpacked, "the algorithm reads everything");
  require(maps.size() == tensors_.size(), "one map a tensor");
  ConvArgs a = args_;
  a.parts.clear();
  a.batch = maps[0].shape(0);
  for (size_t i = 0; i < maps.size(); ++i) {
    const Array<uint8_t>& map = maps[i];
    require(map.ndim() == 3 && map.is_packed() && map.size() > 0, "maps must be packed (N, H, W)");
    require(map.shape(0) == a.batch, "maps batch");
    Part part{};
    part.height = map.shape(1);
    part.width = map.shape(2);
    part.upsample = tensors_[i].first;
    a.parts.push_back(part);
  }
  a.store_size = out;
  return a;
}

PlanReads ConvPlan::reads(const Array<uint8_t>& wanted,
                          Size2 out,
                          const std::vector<Array<uint8_t>>& reads,
                          std::optional<Size2> anchor) const {
  ConvArgs a = mapped(reads, out);
  for (size_t i = 0; i < reads.size(); ++i) {
    Array<uint8_t> map = reads[i];
    a.parts[i].reads = map.mutable_data();
  }
  set_wanted(a, wanted);
  const Size2 first = anchor ? *anchor : corner_of(wanted);
  double share = mark(a, first);
  constexpr double kWhole = 0.97;
  if (share < kWhole) return {share, first};
  if (anchor) return {1.0, first};
  for (Part& part : a.parts)
    std::fill_n(part.reads, a.batch * part.height * part.width, uint8_t(0));
  share = mark(a, {0, 0});
  return {share < kWhole ? share : 1.0, {0, 0}};
}

void ConvPlan::touches(const std::vector<Array<uint8_t>>& changed,
                       Array<uint8_t> touched,
                       Size2 anchor) const {
  require(touched.ndim() == 3 && touched.is_packed(), "touched must be packed (N, Ho, Wo)");
  TouchesArgs args{mapped(changed, {touched.shape(1), touched.shape(2)}), {}, nullptr};
  require(touched.shape(0) == args.conv.batch, "touched batch");
  for (const Array<uint8_t>& map : changed) args.changed.push_back(map.data());
  args.touched = touched.mutable_data();
  auto* touches = INPAINT_PICK(conv_touches);
  for (const Phase& phase : phases_)
    if (set_phase(args.conv, phase, anchor)) touches(args);
}

double ConvPlan::mark(ConvArgs a, Size2 anchor) const {
  auto* marks =
      a.algorithm == Algorithm::kDirect ? INPAINT_PICK(direct_reads) : INPAINT_PICK(winograd_reads);
  // The phases of a transposed convolution differ in their taps.
  double done = 0, whole = 0;
  for (const Phase& phase : phases_) {
    if (!set_phase(a, phase, anchor)) continue;
    const Share share = marks(a);
    const double taps = double(a.kernel.y * a.kernel.x);
    done += taps * double(share.wanted);
    whole += taps * double(share.all);
  }
  return whole > 0 ? done / whole : 0;
}

void ConvPlan::run_unpacked(const PlanCall& call, const Array<float>& weight) const {
  require(args_.algorithm == Algorithm::kUnpacked, "the algorithm takes packed weights");
  UnpackedArgs args{prepared(call), weight.data()};
  ConvArgs& a = args.conv;
  a.y_streams = false;
  a.out_height = a.store_size.y;
  a.out_width = a.store_size.x;
  require(weight.ndim() == 4 && weight.is_packed(), "weight must be packed");
  require(weight.shape(transposed_ ? 1 : 0) == a.filters &&
              weight.shape(transposed_ ? 0 : 1) == a.channels && weight.shape(2) == a.kernel.y &&
              weight.shape(3) == a.kernel.x,
          "weight size");
  require(!transposed_ || !(call.valid[0] || call.mask_ratio),
          "a transposed convolution takes no mask");
  auto* kernel = transposed_ ? INPAINT_PICK(conv_unpacked_transposed) : INPAINT_PICK(conv_unpacked);
  kernel(args);
}

void weight_gradient(const PlanSpec& spec,
                     const Images& x,
                     const Masks& valid,
                     const Array<float>& grad,
                     Array<float> grad_weight,
                     int threads) {
  require(grad.ndim() == 4 && grad_weight.ndim() == 4 && threads >= 1,
          "arguments must have four dimensions");
  require(spec.algorithm != Algorithm::kUnpacked && !is_large(spec.algorithm),
          "the algorithm does not take this");
  WeightGradientArgs args{};
  ConvArgs& a = args.conv;
  check_shapes(spec.tensors);
  set_parts(a, spec.tensors, x, valid);
  for (const Part& part : a.parts) require(part.stride_c == 1, "channels must be adjacent");
  a.algorithm = spec.algorithm;
  a.padding_mode = spec.padding_mode;
  a.padding = spec.padding;
  a.stride = spec.stride;
  a.dilation = spec.dilation;
  a.kernel = {grad_weight.shape(2), grad_weight.shape(3)};
  a.out_height = grad.shape(2);
  a.out_width = grad.shape(3);
  a.filters = grad.shape(1);
  a.threads = threads;
  require_positive({a.kernel, a.stride, a.dilation});
  require(grad.size() > 0 && grad.shape(0) == a.batch, "images are empty");
  require(grad_weight.shape(0) == a.filters && grad_weight.shape(1) == a.channels, "weight size");
  require(grad.is_channels_last(), "gradient must be channels_last");
  const bool direct = a.algorithm == Algorithm::kDirect;
  require(direct || INPAINT_PICK(winograd_takes)(a), "the algorithm does not take this");
  args.grad = grad.data();
  args.grad_weight = output<float>(grad_weight, grad_weight.size());
  auto* kernel =
      direct ? INPAINT_PICK(weight_gradient_direct) : INPAINT_PICK(weight_gradient_winograd);
  kernel(args);
}

FoldArgs fold_args(const Array<float>& padded,
                   Array<float> out,
                   Size2 before,
                   int upsample,
                   PaddingMode mode,
                   int threads) {
  require(padded.is_channels_last() && out.ndim() == 4 && threads >= 1, "images");
  require(padded.shape(0) == out.shape(0) && padded.shape(1) == out.shape(1), "image size");
  require(upsample == 1 || upsample == 2, "upsample");
  const Size2 size{out.shape(2), out.shape(3)};
  const int64_t height = padded.shape(2), width = padded.shape(3);
  const Size2 inside{size.y * upsample, size.x * upsample};
  require(size.y >= 1 && size.x >= 1 && before.y >= 0 && before.x >= 0, "padding");
  const Size2 after{height - inside.y - before.y, width - inside.x - before.x};
  require(after.y >= 0 && after.x >= 0, "padding");
  require(mode != PaddingMode::kReflect ||
              (std::max(before.y, after.y) < inside.y && std::max(before.x, after.x) < inside.x),
          "padding must be smaller than the image to reflect");
  return {padded.data(),
          out.shape(0),
          out.shape(1),
          height,
          width,
          before,
          size,
          upsample,
          mode,
          out.mutable_data(),
          out.stride(0),
          out.shape(1) == 1 ? 1 : out.stride(1),
          out.stride(2),
          out.stride(3),
          threads};
}

}  // namespace inpaint
