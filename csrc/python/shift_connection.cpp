#include <vector>

#include "matching/positions.h"
#include "python/arrays.h"

namespace inpaint {
namespace {

// An index beyond the places there are would read or write foreign memory.
void check_index(const Array<int64_t>& index, int64_t batch, int64_t positions, int64_t places) {
  require(index.is_packed() && index.ndim() == 2, "index must be packed (N, P)");
  require(index.shape(0) == batch && index.shape(1) == positions, "index size");
  const int64_t* values = index.data();
  for (int64_t i = 0; i < index.size(); ++i)
    require(values[i] < places, "index points beyond the image");
}

// Packed storage: (N, P, C) where channels are last and (N, C, P) otherwise.
template <class T>
PositionsArgs<T> positions(
    const Array<T>& in, Array<T>& out, int64_t out_channel, bool channels_last, int threads) {
  require(in.is_packed() && in.ndim() == 3, "input must be packed, with three dimensions");
  require(out.ndim() == 3 && out.shape(0) == in.shape(0), "output must match the input's batch");
  const int p = channels_last ? 1 : 2, c = channels_last ? 2 : 1;
  const bool fits = out_channel >= 0 && out_channel + in.shape(c) <= out.shape(c);
  require(fits && threads >= 1, "the result must hold the channels");
  PositionsArgs<T> args;
  args.batch = in.shape(0);
  args.channels = in.shape(c);
  args.in_positions = in.shape(p);
  args.out_positions = out.shape(p);
  args.in = in.data();
  args.out_channels = out.shape(c);
  args.out = output<T>(out, out.size()) + out_channel * (channels_last ? 1 : int64_t(out.shape(p)));
  args.channels_last = channels_last;
  args.scale = 1;
  args.threads = threads;
  return args;
}

// Values travel as their own type V, bits untouched; the match is made in T.
template <class T, class V>
void call_shift(const Array<T>& decoder,
                const Array<T>& encoder,
                const Array<uint8_t>& hole,
                const Array<V>& in,
                Array<int64_t> index,
                Array<V> out,
                int64_t out_channel,
                bool channels_last,
                int threads) {
  PositionsArgs<V> positions_args = positions(in, out, out_channel, channels_last, threads);
  NearestPatchArgs<T> match;
  match.query = image_view<T>(decoder);
  match.key = image_view<T>(encoder);
  match.batch = encoder.shape(0);
  match.channels = encoder.shape(1);
  match.query_height = match.key_height = encoder.shape(2);
  match.query_width = match.key_width = encoder.shape(3);
  const int64_t places = match.key_height * match.key_width;
  require(decoder.shape(0) == match.batch && decoder.shape(1) == match.channels &&
              decoder.shape(2) == match.key_height && decoder.shape(3) == match.key_width,
          "decoder and encoder differ");
  require(positions_args.batch == match.batch && positions_args.in_positions == places &&
              positions_args.out_positions == places,
          "values and encoder differ");
  match.patch = match.stride = match.key_stride = 1;
  match.cosine = true;
  match.where = mask_view(hole, match.batch, match.key_height, match.key_width);
  match.index = output<int64_t>(index, match.batch * places);
  match.score = nullptr;
  match.threads = threads;
  positions_args.index = match.index;
  auto* find = INPAINT_PICK(nearest_patch<T>);
  auto* gather = INPAINT_PICK(gather_positions<V>);
  py::gil_scoped_release release;
  std::vector<uint8_t> known(size_t(hole.size()));
  for (size_t i = 0; i < known.size(); ++i) known[i] = !match.where.data[i];
  match.valid = {known.data(), match.where.stride_n};
  find(match);
  gather(positions_args);
}

template <class T>
void call_scatter(const Array<T>& in,
                  const Array<int64_t>& index,
                  Array<T> out,
                  bool channels_last,
                  double scale,
                  int threads) {
  PositionsArgs<T> args = positions(in, out, 0, channels_last, threads);
  require(args.out_channels == args.channels, "channels differ");
  check_index(index, args.batch, args.in_positions, args.out_positions);
  args.index = index.data();
  args.scale = scale;
  auto* kernel = INPAINT_PICK(scatter_positions<T>);
  py::gil_scoped_release release;
  kernel(args);
}

template <class T, class V>
void bind_shift(py::module_& m) {
  m.def("shift_connection",
        &call_shift<T, V>,
        py::arg("decoder").noconvert(),
        py::arg("encoder").noconvert(),
        py::arg("hole").noconvert(),
        py::arg("input").noconvert(),
        py::arg("index").noconvert(),
        py::arg("out").noconvert(),
        py::arg("out_channel"),
        py::arg("channels_last"),
        py::arg("threads"));
}

template <class T>
void bind_scatter(py::module_& m) {
  m.def("scatter_positions",
        &call_scatter<T>,
        py::arg("input").noconvert(),
        py::arg("index").noconvert(),
        py::arg("out").noconvert(),
        py::arg("channels_last"),
        py::arg("scale"),
        py::arg("threads"));
}

}  // namespace

void bind_shift_connection(py::module_& m) {
  bind_shift<float, uint16_t>(m);
  bind_shift<float, float>(m);
  bind_shift<double, double>(m);
  bind_scatter<float>(m);
  bind_scatter<double>(m);
}

}  // namespace inpaint
