#include "convolution/fold.h"
#include "convolution/plan.h"
#include "convolution/planes.h"
#include "python/names.h"

namespace inpaint {
namespace {

// `padded` in channels_last; `before`: padding above and to the left.
void call_fold_padding(const Array<float>& padded,
                       const Array<float>& out,
                       const Pair& before,
                       int upsample,
                       const std::string& padding_mode,
                       int threads) {
  const FoldArgs args =
      fold_args(padded, out, size2(before), upsample, padding_mode_of(padding_mode), threads);
  auto* kernel = INPAINT_PICK(fold_padding);
  py::gil_scoped_release release;
  kernel(args);
}

// Of one size; one of them in channels_last, the other in planes whose rows have no gaps.
void call_relayout(const Array<float>& from, Array<float> to, int threads) {
  require(from.ndim() == 4 && to.ndim() == 4 && threads >= 1, "images");
  for (int axis = 0; axis < 4; ++axis) require(from.shape(axis) == to.shape(axis), "size");
  if (from.size() == 0) return;
  const bool pixels = to.is_channels_last();
  require(pixels || from.is_channels_last(), "one image must be channels_last");
  const Array<float>& planes = pixels ? from : to;
  require(planes.stride(3) == 1 || planes.shape(3) == 1, "pixels of a row must be adjacent");
  const auto run = [&](auto args, auto* kernel) {
    args.batch = from.shape(0);
    args.channels = from.shape(1);
    args.height = from.shape(2);
    args.width = from.shape(3);
    args.stride_n = planes.stride(0);
    args.stride_c = planes.stride(1);
    args.stride_y = planes.stride(2);
    args.threads = threads;
    py::gil_scoped_release release;
    kernel(args);
  };
  if (pixels) {
    ToPixelsArgs args{};
    args.planes = from.data();
    args.pixels = to.mutable_data();
    run(args, INPAINT_PICK(to_pixels));
  } else {
    ToPlanesArgs args{};
    args.planes = to.mutable_data();
    args.pixels = from.data();
    run(args, INPAINT_PICK(to_planes));
  }
}

}  // namespace

void bind_images(py::module_& m) {
  using py::arg;
  m.def("fold_padding",
        &call_fold_padding,
        tensor("padded"),
        tensor("out"),
        arg("before"),
        arg("upsample"),
        arg("padding_mode"),
        arg("threads"));
  m.def("relayout", &call_relayout, tensor("source"), tensor("to"), arg("threads"));
}

}  // namespace inpaint
