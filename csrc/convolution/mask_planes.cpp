// Mask planes, by separable sums: kernel.y + kernel.x additions an output instead of their product.
// Integers where the mask is binary, so exact for any number of channels.
#include "convolution/mask_planes.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

// Adds a row of one plane of a mask to the sums over kernel rows.
template <class Sum, class Value>
void add_row(const Value* row, int64_t count, int upsample, Sum weight, Sum* to) {
  const auto value = [&](int64_t x) {
    if constexpr (sizeof(Value) == 1) {
      return row[x] ? weight : Sum(0);
    } else {
      return weight * Sum(row[x]);
    }
  };
  if (upsample == 1) {
    for (int64_t x = 0; x < count; ++x) to[x] += value(x);
  } else {
    for (int64_t x = 0; x < count; ++x) to[x] += value(x / 2);
  }
}

// One row of outputs. `columns`: scratch for the sums over kernel rows, with the padding around.
template <class Sum>
void plane_row(const MaskPlanesArgs& a, int64_t n, int64_t oy, std::vector<Sum>& columns) {
  std::fill(columns.begin(), columns.end(), Sum(0));
  Sum* inside = columns.data() + a.padding.x;
  for (const MaskPart& part : a.parts) {
    const int64_t height = part.height * part.upsample, width = part.width * part.upsample;
    const int64_t count = std::min(width, int64_t(columns.size()) - a.padding.x);
    for (size_t p = 0; p < part.weights.size(); ++p)
      for (int64_t ky = 0; ky < a.kernel.y; ++ky) {
        const int64_t y = oy * a.stride.y - a.padding.y + ky * a.dilation.y;
        if (y < 0 || y >= height) continue;
        const int64_t at =
            n * part.stride_n + (int64_t(p) * part.height + y / part.upsample) * part.width;
        const Sum weight = Sum(part.weights[p]);
        if (part.known) {
          add_row(part.known + at, count, part.upsample, weight, inside);
        } else {
          add_row(part.soft + at, count, part.upsample, weight, inside);
        }
      }
  }
  const int64_t out = (n * a.out_height + oy) * a.out_width;
  for (int64_t ox = 0; ox < a.out_width; ++ox) {
    Sum sum = 0;
    for (int64_t kx = 0; kx < a.kernel.x; ++kx)
      sum += columns[size_t(ox * a.stride.x + kx * a.dilation.x)];
    const float s = float(sum);
    float update_mask, mask_ratio;
    if (a.by_sum) {
      update_mask = s != 0 ? 1.0f : 0.0f;
      mask_ratio = s != 0 ? 1.0f / s : 0.0f;
    } else {
      update_mask = s < 0 ? 0.0f : s > 1 ? 1.0f : s;
      // 1e-8 keeps the result finite where nothing is valid; elsewhere it is below the rounding.
      mask_ratio = a.total / (s + 1e-8f) * update_mask;
      if (a.biased) mask_ratio *= update_mask;
    }
    a.update_mask[out + ox] = update_mask;
    a.mask_ratio[out + ox] = mask_ratio;
  }
}

template <class Sum>
void plane_rows(const MaskPlanesArgs& a) {
  const int64_t reach = (a.out_width - 1) * a.stride.x + (a.kernel.x - 1) * a.dilation.x + 1;
  constexpr int64_t kRows = 32;
  const int64_t blocks = ceil_div(a.out_height, kRows);
  parallel_tasks(a.batch * blocks, a.threads, [&](int64_t task) {
    std::vector<Sum> columns(size_t(std::max(reach, a.padding.x + 1)));
    const int64_t begin = task % blocks * kRows;
    for (int64_t oy = begin; oy < std::min(begin + kRows, a.out_height); ++oy)
      plane_row(a, task / blocks, oy, columns);
  });
}

}  // namespace

void mask_planes(const MaskPlanesArgs& a) {
  const bool binary =
      std::all_of(a.parts.begin(), a.parts.end(), [](const MaskPart& part) { return part.known; });
  if (binary) {
    plane_rows<int32_t>(a);
  } else {
    plane_rows<double>(a);
  }
}

MaskKind known_bytes(const float* values, int64_t count, uint8_t* known) {
  bool binary = true;
  for (int64_t i = 0; i < count; ++i) {
    const float v = values[i];
    known[i] = v != 0;
    binary = binary & ((v == 0) | (v == 1));
  }
  return binary ? MaskKind::kBinary : MaskKind::kSoft;
}

MaskKind kind_of_bytes(const uint8_t* values, int64_t count) {
  uint8_t all = 0;
  for (int64_t i = 0; i < count; ++i) all |= values[i];
  return all <= 1 ? MaskKind::kBinary : MaskKind::kSoft;
}

std::vector<int64_t> equal_planes(const uint8_t* values,
                                  int64_t batch,
                                  int64_t planes,
                                  int64_t pixels) {
  std::vector<int64_t> runs;
  for (int64_t p = 0; p < planes; ++p) {
    bool equal = p > 0;
    for (int64_t n = 0; equal && n < batch; ++n) {
      const uint8_t* here = values + (n * planes + p) * pixels;
      equal = std::memcmp(here - pixels, here, size_t(pixels)) == 0;
    }
    if (equal) {
      ++runs.back();
    } else {
      runs.push_back(1);
    }
  }
  return runs;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
