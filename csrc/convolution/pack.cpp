#include "convolution/pack.h"

#include <algorithm>

namespace inpaint {

int64_t packed_size(const PackArgs& args) {
  return args.algorithm == Algorithm::kDirect ? INPAINT_PICK(direct_packed_size)(args)
                                              : INPAINT_PICK(winograd_packed_size)(args);
}

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

WeightPacking::WeightPacking(const Array<float>& weight, const PackSpec& spec, int threads) {
  require(weight.ndim() == 4 && threads >= 1 && spec.step >= 0, "weight must have four dimensions");
  require(spec.algorithm != Algorithm::kUnpacked, "the algorithm takes no packed weights");
  const bool exchanged = spec.flipped || spec.step > 0;
  PackArgs args{};
  args.algorithm = spec.algorithm;
  args.filters = weight.shape(exchanged ? 1 : 0);
  args.channels = weight.shape(exchanged ? 0 : 1);
  args.stride_filter = weight.stride(exchanged ? 1 : 0);
  args.stride_channel = weight.stride(exchanged ? 0 : 1);
  args.stride = spec.stride;
  args.gated = spec.gated;
  args.threads = threads;
  require(!spec.gated || args.filters % 2 == 0, "a gated layer has an even number of filters");
  const Size2 kernel = {weight.shape(2), weight.shape(3)};
  args.weight = weight.data();
  args.whole = kernel;
  args.stride_y = weight.stride(2);
  args.stride_x = weight.stride(3);
  const int64_t apart = std::max<int64_t>(spec.step, 1);
  args.step = exchanged ? -apart : apart;
  for (const Phase& phase : phases_of(kernel, spec.padding, spec.step)) {
    args.kernel = phase.kernel;
    args.first = phase.first;
    if (exchanged) {
      args.first.y += (args.kernel.y - 1) * apart;
      args.first.x += (args.kernel.x - 1) * apart;
    }
    sizes_.push_back(packed_size(args));
    floats_ += sizes_.back();
    phases_.push_back(args);
  }
}

void WeightPacking::run(float* to) const {
  std::vector<PackArgs> phases = phases_;
  for (size_t i = 0; i < phases.size(); ++i) {
    phases[i].packed = to;
    to += sizes_[i];
  }
  auto* kernel = phases[0].algorithm == Algorithm::kDirect ? INPAINT_PICK(pack_direct)
                                                           : INPAINT_PICK(pack_winograd);
  kernel(phases);
}

}  // namespace inpaint
