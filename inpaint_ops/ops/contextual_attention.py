"""contextual_attention: every cell rebuilt from the patches of the background most like its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import derivatives, dispatch, partly, tensors, triton
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.reference.contextual_attention import AttentionOptions
from inpaint_ops.reference.contextual_attention import (
    contextual_attention as contextual_attention_reference,
)
from inpaint_ops.reference.contextual_attention import (
    contextual_attention_backward as contextual_attention_backward_reference,
)

_OP = "contextual_attention"
# The work grows with its square, however small the image.
_MOST_RATE = 1024
_CHOICES = {
    "pick": ("floor", "align_corners"),
    "key_norm": ("max", "sum"),
    "hole_mode": ("zero", "exclude"),
    "overlap": ("constant", "count"),
}


def contextual_attention(  # noqa: PLR0913
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None = None,
    *,
    rate: int = 2,
    softmax_scale: float = 10.0,
    fuse: bool = True,
    pick: str = "floor",
    key_norm: str = "max",
    hole_mode: str = "zero",
    overlap: str = "constant",
    return_index: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Soft patch matching: y = paste(softmax over keys of scale * fuse(<f_p, b_q> / |b_q|)).

    f_p and b_q are 3 x 3 patches, zero padded, of the features reduced `rate` times (h x w and
    hb x wb cells, sizes rounded up). Each cell pastes patches of 2 rate x 2 rate pixels of `bg`,
    zeros beyond its border, weighted by its attention; they overlap by half. Exact: nothing is
    left out of the softmax. Memory grows with w * hb * wb, not with h * w * hb * wb.

    All cells are rebuilt, those of the hole and the others. A key whose 3 x 3 patch touches the
    hole takes no part in the paste. Without `fuse` nothing that `bg` holds in the hole can reach
    the result. With `fuse` its score still counts for its neighbours', as in all public code: put
    finite values there, because a NaN can make the whole result NaN. A NaN in `fg` reaches the
    cells around it; if `bg` holds one too, it may reach whole rows of cells.

    Args:
        fg: (N, C, H, W) queries, float16, bfloat16, float32 or float64, any layout, any size.
        bg: (N, C, Hb, Wb) keys and values, dtype and device of `fg`; in networks often `fg` itself.
        hole: (N or 1, 1, hb, wb) on the grid of keys, not 0 = missing; bool, uint8 or float. Other
            operators refuse values that are neither 0 nor 1; here they count as missing, so that a
            mask averaged over cells will do: a cell missing in part must not be pasted.
        rate: feature pixels a cell, along each axis, 1 to 1024.
        softmax_scale: factor on the scores.
        fuse: add to each score those of the neighbours along rows, then along columns, of both
            grids, flattened: the end of a row continues in the next, as in all public code. On by
            default, as in the paper and in published networks; the layer is a drop-in and keeps
            the public layer's default, off.
        pick: which pixel stands for a cell: "floor": the first; "align_corners": evenly from the
            first to the last pixel of the image, rounded half up (original TensorFlow version).
        key_norm: "max": max(|b_q|, 1e-4); "sum": sqrt(|b_q|^2 + 9 C 1e-4).
        hole_mode: "zero": a missing key counts as a score of 0 in the softmax's sum, so that the
            weights of the others add up to less than 1; "exclude": it does not count. With all
            keys missing y is 0.
        overlap: "constant": sums of patches are divided by 4; "count": by the number of patches
            over the pixel (1, 2 or 4), which differs at the border.
        return_index: whether to return the best keys too.

    Returns:
        y: (N, C, H, W), dtype and memory format of `fg`. Differentiable in `fg` and `bg`; the
        gradient of a key patch that is zero is zero. Sums are formed in float32 (float64 for
        float64). Under autocast y is float32, as of torch.nn.functional.softmax.

        index, with `return_index`: (N, h, w) int64, the flat position v * wb + u of the key that
        may be used with the greatest score, the lowest of equals, 0 if there is none.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, device, rate, scale or option.

    Source: Yu et al., CVPR 2018 (arXiv 1801.07892), section 4.1. The defaults are those of
    nipponjo/deepfillv2-pytorch: model/networks.py; "sum" is the norm of
    daa233/generative-inpainting-pytorch; "exclude" and "count" are those of open-mmlab/mmagic.
    Deviations: holes may differ between samples, odd sizes and any rate work, a zero key patch has
    a gradient, `index` counts along the background's own width.
    """
    if (has_override(fg, bg, hole) or tracing()) and not inside():
        return call(contextual_attention, locals())
    checks.check_image(_OP, "fg", fg)
    checks.check_image(_OP, "bg", bg)
    fg, bg = tensors.autocast_to_float32(fg.device, fg, bg)
    checks.check_same(_OP, "fg and bg", fg, bg)
    if fg.shape[:2] != bg.shape[:2]:
        raise ValueError(
            f"{_OP}: fg and bg must agree in N and C, got {tuple(fg.shape)} and {tuple(bg.shape)}"
        )
    for name, x in (("fg", fg), ("bg", bg)):
        if x.shape[2] == 0 or x.shape[3] == 0:
            raise ValueError(f"{_OP}: {name} must have at least one pixel, got {tuple(x.shape)}")
    checks.check_int(_OP, "rate", rate, maximum=_MOST_RATE)
    checks.check_finite(_OP, "softmax_scale", softmax_scale)
    if not isinstance(fuse, bool):
        raise TypeError(f"{_OP}: fuse must be a bool, got {type(fuse).__name__}")
    words = {"pick": pick, "key_norm": key_norm, "hole_mode": hole_mode, "overlap": overlap}
    for name, word in words.items():
        checks.check_choice(_OP, name, word, _CHOICES[name])
    if hole is not None:
        checks.check_mask(_OP, "hole", hole, bg.shape[0], _grid(bg, rate), bg.device)
    y, index, _, _ = _operator(
        fg, bg, hole, rate, float(softmax_scale), fuse, pick, key_norm, hole_mode, overlap
    )
    return (y, index) if return_index else y


def _grid(x: Tensor, rate: int) -> tuple[int, int]:
    return (x.shape[2] + rate - 1) // rate, (x.shape[3] + rate - 1) // rate


def _fake(
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None,
    rate: int,
    softmax_scale: float,
    fuse: bool,
    pick: str,
    key_norm: str,
    hole_mode: str,
    overlap: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (fg.shape[0], *_grid(fg, rate))
    dtype = torch.float64 if fg.dtype == torch.float64 else torch.float32
    return (
        torch.empty_like(fg, memory_format=tensors.memory_format(fg)),
        fg.new_empty(shape, dtype=torch.int64),
        fg.new_empty(shape, dtype=dtype),
        fg.new_empty(shape, dtype=dtype),
    )


def _missing(hole: Tensor | None) -> Any:
    return None if hole is None else (hole[:, 0] != 0).contiguous().view(torch.uint8)


def _kernel_options(
    rate: int,
    softmax_scale: float,
    fuse: bool,
    pick: str,
    key_norm: str,
    hole_mode: str,
    overlap: str,
) -> tuple[int, float, bool, bool, bool, bool, bool]:
    return (
        rate,
        softmax_scale,
        fuse,
        pick == "align_corners",
        key_norm == "sum",
        hole_mode == "exclude",
        overlap == "count",
    )


def _cpu(
    fg: Tensor, bg: Tensor, hole: Tensor | None, *options: Any, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # wanted: (N or 1, H, W) uint8, the pixels of y that are needed, in its packed order. They have
    # the bits of a whole computation; other pixels of y, and the index and statistics of cells that
    # no wanted pixel needs, are undefined.
    y, index, row_max, row_sum = _fake(fg, bg, hole, *options)
    wide = y if y.dtype == row_max.dtype else torch.empty_like(y, dtype=row_max.dtype)
    tensors.native().contextual_attention(
        tensors.compute_dtype(fg),
        tensors.compute_dtype(bg),
        _missing(hole),
        wanted,
        _kernel_options(*options),
        wide,
        index,
        row_max,
        row_sum,
        tensors.threads(),
    )
    return wide.to(y.dtype), index, row_max, row_sum


def _reads(wanted: Tensor, *_: Any, anchor: Any) -> partly.Reads:
    """What wanted pixels depend on: all keys, and queries that are mostly of the same tensor."""
    return partly.Reads([None, None, None], float(wanted.float().mean()))


def _compute(wanted: partly.Wanted, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _cpu(*args, wanted=wanted.pixels)


def _touched(*_: Any) -> None:
    """Every pixel: a changed key changes each softmax."""


def _named(options: tuple[Any, ...]) -> dict[str, Any]:
    names = ("rate", "softmax_scale", "fuse", "pick", "key_norm", "hole_mode", "overlap")
    return dict(zip(names, options, strict=True))


def _reference(
    fg: Tensor, bg: Tensor, hole: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.no_grad():
        y, index = contextual_attention_reference(
            fg, bg, hole, return_index=True, **_named(options)
        )
    # Its backward pass runs the formula again and needs no statistics.
    _, _, row_max, row_sum = _fake(fg, bg, hole, *options)
    layout = tensors.memory_format(fg)
    none = torch.zeros_like(row_max), torch.zeros_like(row_sum)
    return y.contiguous(memory_format=layout), index, *none


def _cuda(fg: Tensor, *arguments: Any) -> Any:
    return triton.kernels(_OP).forward(fg, *arguments)


def _backward_fake(
    grad: Tensor,
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(fg, memory_format=tensors.memory_format(fg)),
        torch.empty_like(bg, memory_format=tensors.memory_format(bg)),
    )


def _backward_cpu(
    grad: Tensor,
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    images = [tensors.compute_dtype(x) for x in (fg, bg)]
    grad_fg, grad_bg = (torch.empty_like(x, memory_format=tensors.memory_format(x)) for x in images)
    tensors.native().contextual_attention_backward(
        tensors.compute_dtype(grad),
        images[0],
        images[1],
        _missing(hole),
        row_max.contiguous(),
        row_sum.contiguous(),
        _kernel_options(*options),
        grad_fg,
        grad_bg,
        tensors.threads(),
    )
    return grad_fg.to(fg.dtype), grad_bg.to(bg.dtype)


def _backward_cuda(grad: Tensor, *arguments: Any) -> Any:
    return triton.kernels(_OP).backward(grad, *arguments)


def _backward_reference(
    grad: Tensor,
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    grad, f, b = (tensors.compute_dtype(x) for x in (grad, fg, bg))
    chosen = AttentionOptions(*options)
    grad_f, grad_b = contextual_attention_backward_reference(grad, f, b, hole, chosen)
    return (
        grad_f.to(fg.dtype).contiguous(memory_format=tensors.memory_format(fg)),
        grad_b.to(bg.dtype).contiguous(memory_format=tensors.memory_format(bg)),
    )


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
    fg, bg, hole, *options = inputs
    _, _, row_max, row_sum = output
    ctx.save_for_backward(fg, bg, hole, row_max, row_sum)
    ctx.options = options


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    grads = _backward_operator(grad, *ctx.saved_tensors, *ctx.options)
    return *grads, None, *(None for _ in ctx.options)


def _formula(
    fg: Tensor, bg: Tensor, hole: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, index = contextual_attention_reference(fg, bg, hole, return_index=True, **_named(options))
    return y, index, *_fake(fg, bg, hole, *options)[2:]


def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    fg, bg, hole, _, _ = ctx.saved_tensors

    def formula(fg: Tensor, bg: Tensor) -> Tensor:
        return _formula(fg, bg, hole, *ctx.options)[0]

    to_grad, *to_images = derivatives.second_by_formula(formula, (fg, bg), grad, reached[:2])
    return to_grad, [*to_images, None, None, None]


_OPTIONS = (
    "int rate, float softmax_scale, bool fuse, str pick, str key_norm, str hole_mode, str overlap"
)
_operator = dispatch.register(
    _OP,
    f"(Tensor fg, Tensor bg, Tensor? hole, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuBLAS",
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    f"(Tensor grad, Tensor fg, Tensor bg, Tensor? hole, Tensor row_max, Tensor row_sum, {_OPTIONS})"
    " -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
    cuda_means="triton and cuBLAS",
)
_operator.differentiate(_backward, _setup_context, formula=_formula, second=_second)
_backward_operator.forbid_derivative()
_operator.compute_partly(_reads, _compute, _touched)
