// Weight gradient of a convolution in the domain of its Winograd tiles.
//
// The adjoint of y = A^T [(G g G^T) . (B^T d B)] A in g: summed over tiles,
//
//   dg = G^T [sum of (B^T d B) . (A dy A^T)] G,
//
// 36 products (channels, tiles) x (tiles, filters), or 25, with as many multiplications as the
// convolution itself, see convolution/winograd.cpp; the parts of a kernel are as many channels
// more. After a doubling of the image 25 transformed inputs and 36 transformed gradients sum up to
// 9, see Tile4x3Upsampled.
//
// A task has a range of channels in all parts, a group of filter panels and a segment of the tiles.
// Its 36 sums, (panel, 36, parts x channels, lanes), stay in L2 beside the transformed inputs and
// gradients of a block of tiles, (36, tiles, parts x channels) and (36, tiles, filters): those of
// the image are read once a group of filters, those of the gradient once a range of channels.
// Within a block sums run in registers, blocks add to the 36 sums, segments are added last: three
// short chains.
#include <algorithm>
#include <vector>

#include "convolution/weight_sums.h"
#include "convolution/winograd_adjoint.h"
#include "convolution/winograd_tiling.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

using Vec = Vector<float>;
constexpr int64_t W = Simd<float>::kWidth;
// Rows and lanes of a task: their 36 sums take 432 KiB, or 576 where the channels of four parts
// are whole vectors. Transformed inputs and gradients of a block take about as much as the first,
// half of a 1 MiB L2.
constexpr int64_t kRows = 48, kLanes = 64, kBlockBytes = 450 << 10;

// B^T d B of channels c0 to c1, part after part.
template <class T>
void transform_inputs(const ConvArgs& a,
                      const Layout<T>& layout,
                      const Source& source,
                      const Tile& tile,
                      int64_t c0,
                      int64_t c1,
                      float* to,
                      int64_t step,
                      int64_t plane) {
  each_part(a, layout, tile, [&](int64_t part, int64_t y, int64_t x) {
    const int64_t shift = part * (c1 - c0) - c0;
    const float* from[T::kReads * T::kReads];
    for (const SourcePart& image : source) {
      const int64_t begin = std::max(image.begin, c0), end = std::min(image.end, c1);
      if (begin >= end) continue;
      find_reads<T>(image, tile.n, y, x, layout.read_step(), from);
      for (int64_t c = begin; c < end; c += W)
        transform_vector<T>(
            from, c - image.begin, end - c, to + shift + c, step - shift - c, plane);
    }
  });
}

// A dy A^T of the filters from `first` on, `count` of them.
template <class T>
void transform_gradient(const WeightGradientArgs& args,
                        const Tile& tile,
                        int64_t first,
                        int64_t count,
                        const float* zeros,
                        float* to,
                        int64_t plane) {
  const ConvArgs& a = args.conv;
  constexpr int R = T::kOutputs;
  const float* from[R * R];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < R; ++j) {
      const int64_t y = tile.y + i * a.dilation.y, x = tile.x + j * a.dilation.x;
      const bool inside = y < a.out_height && x < a.out_width;
      const int64_t pixel = (tile.n * a.out_height + y) * a.out_width + x;
      from[i * R + j] = inside ? args.grad + pixel * a.filters + first : zeros;
    }
  for (int64_t f = 0; f < count; f += W) {
    Vec y[R * R], half[T::kProducts * R];
    if (count - f >= W) {
      for (int i = 0; i < R * R; ++i) y[i] = load(from[i] + f);
    } else {
      for (int i = 0; i < R * R; ++i) y[i] = load_first(from[i] + f, count - f);
    }
#pragma GCC unroll 5
    for (int j = 0; j < R; ++j) {
      Vec out[T::kProducts];
      Adjoint<T>::output(y + j, R, out);
      for (int i = 0; i < T::kProducts; ++i) half[i * R + j] = out[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < T::kProducts; ++i) {
      Vec out[T::kProducts];
      Adjoint<T>::output(half + i * R, 1, out);
      for (int j = 0; j < T::kProducts; ++j) store(to + (i * T::kProducts + j) * plane + f, out[j]);
    }
  }
}

// Operands of a block: plane q of the inputs begins at inputs + q * input_plane, rows a tile.
struct Operands {
  const float* inputs;
  int64_t input_step, input_plane;
  const float* grads;
  int64_t grad_step, grad_plane;
  int64_t tiles, rows;
};

// Adds the products of one panel to its sums (weights of T squared, rows, lanes).
template <class T, int VECS>
void multiply(const Operands& in, int64_t lane, float* sums, bool put) {
  constexpr int N = T::kWeights;
  for (int u = 0; u < N * N; ++u) {
    Stretch stretches[T::kProducts * T::kProducts];
    int64_t count = 0;
    for (int i = 0; i < T::kProducts; ++i)
      for (int j = 0; j < T::kProducts; ++j)
        if (T::weight_of[i] * N + T::weight_of[j] == u)
          stretches[count++] = {
              in.inputs + (T::input_of[i] * T::kInputs + T::input_of[j]) * in.input_plane,
              in.grads + (i * T::kProducts + j) * in.grad_plane + lane};
    float* to = sums + u * in.rows * VECS * W;
    outer_sums<VECS>({nullptr, count, in.tiles, in.input_step, in.grad_step, to, VECS * W, put},
                     stretches,
                     in.rows);
  }
}

// Turns the sums of a panel, N * N planes of `plane` numbers, into G^T sums G: a plane a tap.
template <class T>
void transform_sums(float* sums, int64_t plane) {
  constexpr int N = T::kWeights, R = T::kTaps;
  for (int64_t at = 0; at < plane; at += W) {
    Vec half[R * N], out[R];
#pragma GCC unroll 6
    for (int j = 0; j < N; ++j) {
      Vec column[N];
      for (int i = 0; i < N; ++i) column[i] = load(sums + (i * N + j) * plane + at);
      Adjoint<T>::weight(column, 1, out);
      for (int i = 0; i < R; ++i) half[i * N + j] = out[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      Adjoint<T>::weight(half + i * N, 1, out);
      for (int j = 0; j < R; ++j) store(sums + (i * R + j) * plane + at, out[j]);
    }
  }
}

// Rows at which transform_sums leaves `count` channels of each tap of the kernel.
template <class T>
std::vector<int64_t> rows_of_taps(const ConvArgs& a, const Layout<T>& layout, int64_t count) {
  std::vector<int64_t> first_row(static_cast<size_t>(a.kernel.y * a.kernel.x));
  int64_t part = 0;
  for (const int64_t first_y : layout.rows.first)
    for (const int64_t first_x : layout.columns.first) {
      for (int t = 0; t < T::kTaps * T::kTaps; ++t) {
        const int64_t y = first_y + t / T::kTaps * layout.rows.tap_step;
        const int64_t x = first_x + t % T::kTaps * layout.columns.tap_step;
        if (y < a.kernel.y && x < a.kernel.x)
          first_row[size_t(y * a.kernel.x + x)] = (t * layout.parts() + part) * count;
      }
      ++part;
    }
  return first_row;
}

template <class T>
std::vector<Tile> tiles_of(const ConvArgs& a) {
  const auto rows = tile_starts(0, a.out_height, a.dilation.y, T::kOutputs);
  const auto columns = tile_starts(0, a.out_width, a.dilation.x, T::kOutputs);
  std::vector<Tile> tiles;
  tiles.reserve(static_cast<size_t>(a.batch) * rows.size() * columns.size());
  for (int64_t n = 0; n < a.batch; ++n)
    for (int64_t y : rows)
      for (int64_t x : columns) tiles.push_back({n, y, x});
  return tiles;
}

template <class T>
void gradient(const WeightGradientArgs& args) {
  constexpr int N = T::kWeights, kPlanes = T::kInputs * T::kInputs;
  constexpr int kGradPlanes = T::kProducts * T::kProducts;
  const ConvArgs& a = args.conv;
  const Layout<T> layout(a);
  const std::vector<Tile> tiles = tiles_of<T>(a);
  const std::vector<Panel> panels = panels_of(a.filters, false);
  const Source source(a, layout.extent(a));

  const int64_t parts = layout.parts();
  const Cut groups(int64_t(panels.size()), 1, ceil_div(lanes_of(panels), kLanes));
  const Cut ranges(a.channels, W, ceil_div(a.channels, std::max(W, round_up(kRows / parts, W))));
  int64_t lanes = 0, rows = 0;
  const auto lane_at = [&](int64_t p) {
    return p < int64_t(panels.size()) ? panels[size_t(p)].lane0 : lanes_of(panels);
  };
  for (int64_t i = 0; i < groups.parts; ++i)
    lanes = std::max(lanes, lane_at(groups.begin(i + 1)) - lane_at(groups.begin(i)));
  for (int64_t i = 0; i < ranges.parts; ++i)
    rows = std::max(rows, parts * (ranges.begin(i + 1) - ranges.begin(i)));
  const int64_t input_step = padded_channels(rows), grad_step = padded_channels(lanes);
  const int64_t of_tile = (kPlanes * input_step + kGradPlanes * grad_step) * int64_t(sizeof(float));
  const int64_t block = std::max<int64_t>(8, std::min<int64_t>(64, kBlockBytes / of_tile));
  const Cut segments(int64_t(tiles.size()), block, ceil_div(kTasks, groups.parts * ranges.parts));

  WeightGradient result(args, panels, segments.parts);
  const int64_t input_plane = block * input_step, grad_plane = block * grad_step;
  const int64_t sums_size = N * N * rows * lanes;
  const int64_t scratch_size = kPlanes * input_plane + kGradPlanes * grad_plane + sums_size;
  Buffer<float> scratch(scratch_size * a.threads);
  const std::vector<float> zeros(static_cast<size_t>(lanes_of(panels)), 0.0f);
  parallel_tasks(segments.parts * groups.parts * ranges.parts, a.threads, [&](int64_t task) {
    const int64_t segment = task / (groups.parts * ranges.parts);
    const int64_t group = task / ranges.parts % groups.parts, range = task % ranges.parts;
    const Panel* first_panel = panels.data() + groups.begin(group);
    const Panel* last_panel = panels.data() + groups.begin(group + 1);
    const int64_t c0 = ranges.begin(range), c1 = ranges.begin(range + 1);
    const int64_t here_rows = parts * (c1 - c0);
    const int64_t f0 = first_panel->first, f1 = last_panel[-1].first + last_panel[-1].count;
    float* inputs = scratch.data() + thread_index() * scratch_size;
    float* grads = inputs + kPlanes * input_plane;
    float* sums = grads + kGradPlanes * grad_plane;
    const int64_t begin = segments.begin(segment), end = segments.begin(segment + 1);
    for (int64_t t = begin; t < end; t += block) {
      const int64_t here = std::min(block, end - t);
      for (int64_t i = 0; i < here; ++i) {
        const Tile& tile = tiles[size_t(t + i)];
        float* input = inputs + i * input_step;
        transform_inputs<T>(a, layout, source, tile, c0, c1, input, input_step, input_plane);
        transform_gradient<T>(
            args, tile, f0, f1 - f0, zeros.data(), grads + i * grad_step, grad_plane);
      }
      const Operands in{
          inputs, input_step, input_plane, grads, grad_step, grad_plane, here, here_rows};
      for (const Panel* panel = first_panel; panel < last_panel; ++panel) {
        const int64_t lane = panel->lane0 - first_panel->lane0;
        float* to = sums + N * N * here_rows * lane;
        if (panel->vectors == 2) {
          multiply<T, 2>(in, lane, to, t == begin);
        } else {
          multiply<T, 1>(in, lane, to, t == begin);
        }
      }
    }
    const std::vector<int64_t> first_row = rows_of_taps(a, layout, c1 - c0);
    for (const Panel* panel = first_panel; panel < last_panel; ++panel) {
      float* taps = sums + N * N * here_rows * (panel->lane0 - first_panel->lane0);
      transform_sums<T>(taps, here_rows * panel->vectors * W);
      result.put(*panel, taps, first_row, c0, c1, segment);
    }
  });
  result.finish();
}

}  // namespace

void weight_gradient_winograd(const WeightGradientArgs& args) {
  with_small_tile(args.conv.algorithm, [&](auto tile) { gradient<decltype(tile)>(args); });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
