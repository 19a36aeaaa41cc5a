#include "bind.h"
#include "shift_connection.h"

namespace inpaint {
namespace {

// An index beyond the places there are would read or write foreign memory.
void check_index(const Array<int64_t>& index, int64_t batch, int64_t positions, int64_t places) {
  require(is_packed<int64_t>(index) && index.ndim() == 2, "index must be packed (N, P)");
  require(index.shape(0) == batch && index.shape(1) == positions, "index size");
  const int64_t* values = index.data();
  for (int64_t i = 0; i < index.size(); ++i)
    require(values[i] < places, "index points beyond the image");
}

// Packed storage: (N, P, C) where channels are last and (N, C, P) otherwise.
template <class T>
PositionsArgs<T> positions(const Array<T>& in, Array<T>& out, bool channels_last, int threads) {
  require(is_packed<T>(in) && in.ndim() == 3, "input must be packed, with three dimensions");
  require(out.ndim() == 3 && out.shape(0) == in.shape(0), "output must match the input's batch");
  const int p = channels_last ? 1 : 2, c = channels_last ? 2 : 1;
  require(out.shape(c) == in.shape(c) && threads >= 1, "channels differ");
  PositionsArgs<T> args;
  args.batch = in.shape(0);
  args.channels = in.shape(c);
  args.in_positions = in.shape(p);
  args.out_positions = out.shape(p);
  args.in = in.data();
  args.out = output<T>(out, out.size());
  args.channels_last = channels_last;
  args.scale = 1;
  args.threads = threads;
  return args;
}

template <class T>
void call_gather(const Array<T>& in,
                 const Array<int64_t>& index,
                 Array<T> out,
                 bool channels_last,
                 int threads) {
  PositionsArgs<T> args = positions(in, out, channels_last, threads);
  check_index(index, args.batch, args.out_positions, args.in_positions);
  args.index = index.data();
  auto* kernel = INPAINT_PICK(gather_positions<T>);
  py::gil_scoped_release release;
  kernel(args);
}

template <class T>
void call_scatter(const Array<T>& in,
                  const Array<int64_t>& index,
                  Array<T> out,
                  bool channels_last,
                  double scale,
                  int threads) {
  PositionsArgs<T> args = positions(in, out, channels_last, threads);
  check_index(index, args.batch, args.in_positions, args.out_positions);
  args.index = index.data();
  args.scale = scale;
  auto* kernel = INPAINT_PICK(scatter_positions<T>);
  py::gil_scoped_release release;
  kernel(args);
}

template <class T>
void bind_gather(py::module_& m) {
  m.def("gather_positions",
        &call_gather<T>,
        py::arg("input").noconvert(),
        py::arg("index").noconvert(),
        py::arg("out").noconvert(),
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
  bind_gather<uint16_t>(m);
  bind_gather<float>(m);
  bind_gather<double>(m);
  bind_scatter<float>(m);
  bind_scatter<double>(m);
}

}  // namespace inpaint
