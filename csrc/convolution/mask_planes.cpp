// Mask planes, by separable sums: kernel.y + kernel.x additions an output instead of their product.
// Integers where the mask is binary, so exact for any number of channels.
//
// Backward, bound by traffic: the gradient is read and written once, its sums over pixels formed
// for each fixed chunk of them and then over chunks in order, so no thread count changes them. Of
// an image's gradient only what is missing is written.
#include "convolution/mask_planes.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "convolution/store.h"

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

constexpr int64_t kChunk = 512;      // pixels of a task
constexpr int64_t kWorth = 1 << 15;  // values that are worth a thread

int threads_for(int64_t values, int threads) {
  return int(std::min<int64_t>(threads, std::max<int64_t>(values / kWorth, 1)));
}

// `bias_sums`: (filters), or null.
void mask_ratio_backward_pixel(const MaskRatioBackwardArgs& a, int64_t pixel, float* bias_sums) {
  const int64_t at = pixel / a.image_pixels * a.mask_stride_n + pixel % a.image_pixels;
  const float mask_ratio = a.mask_ratio[at], update_mask = a.update_mask[at];
  const float* grad = a.grad + pixel * a.filters;
  float* to = a.grad_sums + pixel * a.filters;
  if (update_mask == 0) {
    std::fill_n(to, a.filters, 0.0f);
    return;
  }
  constexpr int64_t W = Simd<float>::kWidth;
  for (int64_t f = 0; f < a.filters; f += W) {
    const int64_t left = a.filters - f;
    const Vector<float> v = load_first(grad + f, left);
    store_first(to + f, v * mask_ratio, left);
    if (bias_sums)
      store_first(bias_sums + f, load_first(bias_sums + f, left) + v * update_mask, left);
  }
}

// `row`: of the image; `known`: of its mask's first plane, the next ones `plane` further on.
void hide_missing_row(const HideMissingArgs& a, float* row, const uint8_t* known, int64_t plane) {
  for (const int64_t width : a.widths) {
    for (int64_t x = 0; x < a.width; ++x) {
      if (known[x]) continue;
      float* pixel = row + x * a.stride_w;
      if (a.stride_c == 1) {
        std::fill_n(pixel, width, 0.0f);
      } else {
        for (int64_t c = 0; c < width; ++c) pixel[c * a.stride_c] = 0;
      }
    }
    row += width * a.stride_c;
    known += plane;
  }
}

}  // namespace

void mask_ratio_backward(const MaskRatioBackwardArgs& a) {
  const int64_t chunks = ceil_div(a.pixels, kChunk);
  Buffer<float> sums(a.grad_bias ? chunks * a.filters : 0);
  const int threads = threads_for(a.pixels * a.filters, a.threads);
  parallel_tasks(chunks, threads, [&](int64_t task) {
    float* mine = a.grad_bias ? sums.data() + task * a.filters : nullptr;
    if (mine) std::fill_n(mine, a.filters, 0.0f);
    const int64_t end = std::min(a.pixels, (task + 1) * kChunk);
    for (int64_t i = task * kChunk; i < end; ++i) mask_ratio_backward_pixel(a, i, mine);
  });
  if (!a.grad_bias) return;
  std::fill_n(a.grad_bias, a.filters, 0.0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t f = 0; f < a.filters; ++f) a.grad_bias[f] += sums[chunk * a.filters + f];
}

void hide_missing(const HideMissingArgs& a) {
  const int64_t values = a.batch * a.height * a.width * int64_t(a.widths.size());
  parallel_tasks(a.batch * a.height, threads_for(values, a.threads), [&](int64_t task) {
    const int64_t n = task / a.height, y = task % a.height;
    float* row = a.image + n * a.stride_n + y * a.stride_h;
    hide_missing_row(a, row, a.known + n * a.known_stride_n + y * a.width, a.height * a.width);
  });
}

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
