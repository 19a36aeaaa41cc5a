#include <tuple>

#include "attention/contextual_attention.h"
#include "attention/id_mrf_loss.h"
#include "python/arrays.h"

namespace inpaint {
namespace {

template <class T>
OutputView<T> output_view(Array<T>& array, const Array<T>& like) {
  require(array.ndim() == 4, "output must have four dimensions");
  for (int axis = 0; axis < 4; ++axis)
    require(array.shape(axis) == like.shape(axis), "output must have the shape of its input");
  return {array.mutable_data(), array.stride(0), array.stride(1), array.stride(2), array.stride(3)};
}

// rate, scale, fuse, align_corners, sum_norm, exclude, count.
using AttentionOptions = std::tuple<int64_t, double, bool, bool, bool, bool, bool>;

template <class T>
ContextualAttentionArgs<T> attention_args(const Array<T>& fg,
                                          const Array<T>& bg,
                                          const OptionalBytes& hole,
                                          const AttentionOptions& options,
                                          int threads) {
  const auto [rate, scale, fuse, align_corners, sum_norm, exclude, count] = options;
  ContextualAttentionArgs<T> args{};
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
void call_attention(const Array<T>& fg,
                    const Array<T>& bg,
                    const OptionalBytes& hole,
                    const OptionalBytes& wanted,
                    const AttentionOptions& options,
                    Array<T> y,
                    Array<int64_t> index,
                    Array<T> row_max,
                    Array<T> row_sum,
                    int threads) {
  auto args = attention_args<T>(fg, bg, hole, options, threads);
  args.wanted = mask_view(wanted, args.batch, args.fg_height, args.fg_width);
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
void call_attention_backward(const Array<T>& grad,
                             const Array<T>& fg,
                             const Array<T>& bg,
                             const OptionalBytes& hole,
                             const Array<T>& row_max,
                             const Array<T>& row_sum,
                             const AttentionOptions& options,
                             Array<T> grad_fg,
                             Array<T> grad_bg,
                             int threads) {
  const auto args = attention_args<T>(fg, bg, hole, options, threads);
  const int64_t queries = args.batch * args.query_rows() * args.query_columns();
  for (int axis = 0; axis < 4; ++axis)
    require(grad.ndim() == 4 && grad.shape(axis) == fg.shape(axis), "grad must be shaped like fg");
  require(row_max.is_packed() && row_max.size() == queries, "row_max must be packed and fit");
  require(row_sum.is_packed() && row_sum.size() == queries, "row_sum must be packed and fit");
  const ContextualAttentionGradient<T> gradient{image_view<T>(grad),
                                                row_max.data(),
                                                row_sum.data(),
                                                output_view<T>(grad_fg, fg),
                                                output_view<T>(grad_bg, bg)};
  auto* kernel = INPAINT_PICK(contextual_attention_backward<T>);
  py::gil_scoped_release release;
  kernel(args, gradient);
}

template <class T>
IdMrfArgs<T> id_mrf_args(const Array<T>& generated,
                         const Array<T>& target,
                         double bandwidth,
                         double eps,
                         bool exclude_self,
                         int threads) {
  const auto g = image_view<T>(generated), t = image_view<T>(target);
  for (int axis = 0; axis < 4; ++axis)
    require(generated.shape(axis) == target.shape(axis), "generated and target differ in shape");
  require(generated.shape(1) >= 1 && generated.shape(2) >= 1 && generated.shape(3) >= 1,
          "generated must not be empty");
  require(generated.shape(2) * generated.shape(3) < (int64_t(1) << 31), "generated is too large");
  require(threads >= 1, "sizes must be positive");
  return {generated.shape(0),
          generated.shape(1),
          generated.shape(2),
          generated.shape(3),
          g,
          t,
          T(bandwidth),
          T(eps),
          exclude_self,
          threads};
}

template <class T>
void call_id_mrf(const Array<T>& generated,
                 const Array<T>& target,
                 double bandwidth,
                 double eps,
                 bool exclude_self,
                 Array<T> loss,
                 Array<int64_t> choice,
                 int threads) {
  const auto args = id_mrf_args<T>(generated, target, bandwidth, eps, exclude_self, threads);
  T* losses = output<T>(loss, args.batch);
  int64_t* choices = output<int64_t>(choice, args.batch * args.height * args.width);
  auto* kernel = INPAINT_PICK(id_mrf_loss<T>);
  py::gil_scoped_release release;
  kernel(args, {losses, choices});
}

template <class T>
void call_id_mrf_backward(const Array<T>& grad,
                          const Array<T>& generated,
                          const Array<T>& target,
                          const Array<T>& loss,
                          const Array<int64_t>& choice,
                          double bandwidth,
                          double eps,
                          bool exclude_self,
                          Array<T> grad_generated,
                          Array<T> grad_target,
                          int threads) {
  const auto args = id_mrf_args<T>(generated, target, bandwidth, eps, exclude_self, threads);
  const int64_t positions = args.height * args.width;
  require(grad.is_packed() && grad.size() == args.batch, "grad must be packed and fit");
  require(loss.is_packed() && loss.size() == args.batch, "loss must be packed and fit");
  require(choice.is_packed() && choice.size() == args.batch * positions,
          "choice must be packed and fit");
  for (int64_t i = 0; i < choice.size(); ++i)
    require(choice.data()[i] >= 0 && choice.data()[i] < positions, "choice is no position");
  const auto to_generated = output_view<T>(grad_generated, generated);
  const auto to_target = output_view<T>(grad_target, target);
  auto* kernel = INPAINT_PICK(id_mrf_loss_backward<T>);
  py::gil_scoped_release release;
  kernel(args, {loss.data(), choice.data(), grad.data(), to_generated, to_target});
}

template <class T>
void bind_attention_type(py::module_& m) {
  m.def("id_mrf_loss",
        &call_id_mrf<T>,
        py::arg("generated").noconvert(),
        py::arg("target").noconvert(),
        py::arg("bandwidth"),
        py::arg("eps"),
        py::arg("exclude_self"),
        py::arg("loss"),
        py::arg("choice"),
        py::arg("threads"));
  m.def("id_mrf_loss_backward",
        &call_id_mrf_backward<T>,
        py::arg("grad").noconvert(),
        py::arg("generated").noconvert(),
        py::arg("target").noconvert(),
        py::arg("loss").noconvert(),
        py::arg("choice").noconvert(),
        py::arg("bandwidth"),
        py::arg("eps"),
        py::arg("exclude_self"),
        py::arg("grad_generated").noconvert(),
        py::arg("grad_target").noconvert(),
        py::arg("threads"));
  m.def("contextual_attention_backward",
        &call_attention_backward<T>,
        py::arg("grad").noconvert(),
        py::arg("fg").noconvert(),
        py::arg("bg").noconvert(),
        py::arg("hole"),
        py::arg("row_max").noconvert(),
        py::arg("row_sum").noconvert(),
        py::arg("options"),
        py::arg("grad_fg").noconvert(),
        py::arg("grad_bg").noconvert(),
        py::arg("threads"));
  m.def("contextual_attention",
        &call_attention<T>,
        py::arg("fg").noconvert(),
        py::arg("bg").noconvert(),
        py::arg("hole"),
        py::arg("wanted"),
        py::arg("options"),
        py::arg("y").noconvert(),
        py::arg("index"),
        py::arg("row_max"),
        py::arg("row_sum"),
        py::arg("threads"));
}

}  // namespace

void bind_attention(py::module_& m) {
  bind_attention_type<float>(m);
  bind_attention_type<double>(m);
}

}  // namespace inpaint
