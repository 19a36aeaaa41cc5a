#include "bind.h"
#include "contextual_attention.h"

namespace inpaint {
namespace {

template <class T>
OutputView<T> output_view(Array<T>& array, const py::array& like) {
  require(array.ndim() == 4, "output must have four dimensions");
  for (int axis = 0; axis < 4; ++axis)
    require(array.shape(axis) == like.shape(axis), "output must have the shape of its input");
  const auto stride = [&](int axis) { return int64_t(array.strides(axis)) / int64_t(sizeof(T)); };
  return {array.mutable_data(), stride(0), stride(1), stride(2), stride(3)};
}

template <class T>
ContextualAttentionArgs<T> attention_args(const Array<T>& fg,
                                          const Array<T>& bg,
                                          const py::object& hole,
                                          int64_t rate,
                                          double scale,
                                          bool fuse,
                                          bool align_corners,
                                          bool sum_norm,
                                          bool exclude,
                                          bool count,
                                          int threads) {
  ContextualAttentionArgs<T> args;
  args.fg = image_view<T>(fg);
  args.bg = image_view<T>(bg);
  require(fg.shape(0) == bg.shape(0) && fg.shape(1) == bg.shape(1), "fg and bg differ");
  require(rate >= 1 && threads >= 1, "sizes must be positive");
  args.batch = fg.shape(0);
  args.channels = fg.shape(1);
  args.fg_height = fg.shape(2);
  args.fg_width = fg.shape(3);
  args.bg_height = bg.shape(2);
  args.bg_width = bg.shape(3);
  require(args.channels >= 1 && fg.shape(2) >= 1 && fg.shape(3) >= 1, "fg must not be empty");
  require(bg.shape(2) >= 1 && bg.shape(3) >= 1, "bg must not be empty");
  args.rate = rate;
  // Positions of blocks are kept as 32-bit numbers.
  require((args.key_rows() + 1) * (args.key_columns() + 1) < (int64_t(1) << 31), "bg is too large");
  args.hole = mask_view(hole, args.batch, args.key_rows(), args.key_columns());
  args.align_corners = align_corners;
  args.sum_norm = sum_norm;
  args.exclude = exclude;
  args.count = count;
  args.fuse = fuse;
  args.scale = T(scale);
  args.threads = threads;
  return args;
}

template <class T>
void call_forward(const Array<T>& fg,
                  const Array<T>& bg,
                  const py::object& hole,
                  int64_t rate,
                  double scale,
                  bool fuse,
                  bool align_corners,
                  bool sum_norm,
                  bool exclude,
                  bool count,
                  Array<T> y,
                  py::array index,
                  py::array row_max,
                  py::array row_sum,
                  int threads) {
  const auto args = attention_args<T>(
      fg, bg, hole, rate, scale, fuse, align_corners, sum_norm, exclude, count, threads);
  const int64_t queries = args.batch * args.query_rows() * args.query_columns();
  const ContextualAttentionResult<T> result{output_view<T>(y, fg),
                                            output<int64_t>(index, queries),
                                            output<T>(row_max, queries),
                                            output<T>(row_sum, queries)};
  auto* kernel = INPAINT_PICK(contextual_attention<T>);
  py::gil_scoped_release release;
  kernel(args, result);
}

template <class T>
void bind_type(py::module_& m) {
  m.def("contextual_attention",
        &call_forward<T>,
        py::arg("fg").noconvert(),
        py::arg("bg").noconvert(),
        py::arg("hole"),
        py::arg("rate"),
        py::arg("scale"),
        py::arg("fuse"),
        py::arg("align_corners"),
        py::arg("sum_norm"),
        py::arg("exclude"),
        py::arg("count"),
        py::arg("y").noconvert(),
        py::arg("index"),
        py::arg("row_max"),
        py::arg("row_sum"),
        py::arg("threads"));
}

}  // namespace

void bind_attention(py::module_& m) {
  bind_type<float>(m);
  bind_type<double>(m);
}

}  // namespace inpaint
