"""fused_conv_transpose2d on GPUs: one small convolution for each phase of the stride, or cuDNN."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.convolution import choose, epilogue, fused, pack
from inpaint_ops.kernels.convolution.choose import RowOf
from inpaint_ops.kernels.convolution.fused import Reading
from inpaint_ops.kernels.convolution.layer import empty_nhwc, finish_backward
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.kernels.plans import Plans
from inpaint_ops.kernels.program import Call
from inpaint_ops.kernels.tuning import drawn
from inpaint_ops.ops.convolution import spec


class _Plan(NamedTuple):
    """Shape of the result, and the fused kernel's launch and channels; None: the library's."""

    result: tuple[int, int, int, int]
    channels: int
    fused: Call | None


def _make(
    x: Tensor,
    shape: tuple[int, ...],
    stride: int,
    padding: int,
    activation: str,
    biased: bool,
    keep: bool,
    row_of: RowOf = choose.row_of,
) -> _Plan:
    n, _, h, w = x.shape
    channels, filters, *kernel = shape
    height, width = (
        (size - 1) * stride - 2 * padding + k for size, k in zip((h, w), kernel, strict=True)
    )
    taps = -(-kernel[0] // stride), -(-kernel[1] // stride)
    padded = fused.pad_channels(x, channels)
    call = None
    if n * height * width:
        image, out = (n, padded, h, w), (filters, height, width)
        around = (taps[0] - 1, taps[1] - 1)
        reading = Reading(taps, padding=around, phases=stride, phase_pad=padding)

        def trial(row: str | None) -> Callable[[], Any]:
            options = (stride, padding, activation, biased, keep)
            plan = _make(x, shape, *options, row_of=lambda *_: row)
            weight = drawn(x, *shape).contiguous(memory_format=torch.channels_last)
            bias = drawn(x, filters) if biased else None
            rest = (stride, padding, activation, keep)
            return lambda: forward(x, weight, bias, *rest, plan=plan)

        # `saves`, for the library's transposed convolutions are weaker than its plain ones.
        problem = fused.problem(x, image, out, reading, "plain", saves=True)
        row = row_of(x, problem, trial)
        if row is not None:
            call = fused.call(
                x, image, out, reading, row, activation=activation, bias=biased, keep=keep
            )
    return _Plan((n, filters, height, width), padded, call)


_plans = Plans(_make)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, plan: _Plan | None = None
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, activation, keep = rest
    if plan is None:
        plan = _plans.of(x, weight.shape, stride, padding, activation, bias is not None, keep)
    y = empty_nhwc(x, plan.result)
    saved = None
    if plan.fused is not None:
        saved = empty_nhwc(x, plan.result) if keep else None
        image = channels_last(x, fused.vector(x))
        taps = pack.transposed(weight, stride, padding, plan.channels)
        fused.run(plan.fused, image, taps, bias, y, saved)
    elif y.numel() == 0:
        saved = empty_nhwc(x, plan.result) if keep else None
    else:
        product = aligned(products.convolve_transposed(x, weight, stride, padding))
        bias = None if bias is None else dense(bias)
        kind = epilogue.PLAIN
        epilogue.finish(product, bias, y, kind=kind, activation=activation, keep=keep)
        saved = product if keep else None
    if spec.memory_format(x, weight) != torch.channels_last:
        y = y.contiguous()
    return y, spec.empty_gradient(x) if saved is None else saved


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, activation, wanted = rest
    grad_pre_activation, grad_bias = finish_backward(grad, saved, False, activation, wanted[2])
    grads: tuple[Tensor | None, Tensor | None]
    if grad_pre_activation.numel() == 0:
        grads = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
    else:
        grads = products.convolve_transposed_backward(
            grad_pre_activation, x, weight, stride, padding, wanted
        )
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return spec.settled_gradients(x, weight, chosen)
