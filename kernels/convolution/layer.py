"""Forward and backward of fused_conv2d and gated_conv2d on GPUs.

Forward: `choose` says who multiplies. The fused kernel finishes the layer itself; after the
library's product `epilogue` does. Backward: `epilogue_backward`, then the library's products.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.convolution import (
    choose,
    epilogue,
    epilogue_backward,
    fused,
    pack,
    phases,
)
from inpaint_ops.kernels.convolution.choose import RowOf
from inpaint_ops.kernels.convolution.fused import Reading
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.kernels.plans import Plans
from inpaint_ops.kernels.program import Call
from inpaint_ops.kernels.tuning import drawn
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import Geometry, Pair

_Shape = tuple[int, int, int, int]


class _Plan(NamedTuple):
    """How a layer is computed.

    Args:
        result: shape of y.
        filters: of the convolution, features and gates.
        doubled: whether it is `phases` of the image before its doubling.
        channels: of the fused kernel's input, padded.
        fused: its launch; None: the library multiplies.
        kind: of the pass after the library's product; None: the product is the result.
    """

    result: _Shape
    filters: int
    doubled: bool
    channels: int
    fused: Call | None
    kind: int | None


def _make(
    x: Tensor,
    shape: tuple[int, ...],
    g: Geometry,
    gated: bool,
    activation: str,
    biased: bool,
    keep: bool,
    row_of: RowOf = choose.row_of,
) -> _Plan:
    n, _, height, width = x.shape
    filters, channels, *kernel = shape
    outputs = filters // 2 if gated else filters
    size = g.result_size((height, width), (kernel[0], kernel[1]))
    doubled = phases.is_doubled((kernel[0], kernel[1]), g)
    padded = fused.pad_channels(x, channels)
    call = None
    if n and g.groups == 1:
        image, out = (n, padded, height, width), (outputs, *size)
        reading = _reading(g, (kernel[0], kernel[1]), doubled)
        kind = "gated" if gated else "plain"
        problem = fused.problem(x, image, out, reading, kind, saves=g.upsample == 2)

        def trial(row: str | None) -> Callable[[], Any]:
            options = (g, gated, activation, biased, keep)
            plan = _make(x, shape, *options, row_of=lambda *_: row)
            weight = drawn(x, *shape).contiguous(memory_format=torch.channels_last)
            bias = drawn(x, filters) if biased else None
            return lambda: forward(x, weight, bias, g, activation, keep, gated=gated, plan=plan)

        row = row_of(x, problem, trial)
        if row is not None:
            call = fused.call(
                x, image, out, reading, row, activation=activation, bias=biased, keep=keep
            )
    last: int | None = epilogue.GATED if gated else epilogue.PLAIN
    if not gated and activation == "identity" and not biased and not keep:
        last = None
    return _Plan((n, outputs, *size), filters, doubled, padded, call, last)


_plans = Plans(_make)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    *,
    gated: bool,
    plan: _Plan | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `fused_conv2d` or `gated_conv2d`: the result and, if `keep`, the pre-activation."""
    if plan is None:
        plan = _plans.of(x, weight.shape, g, gated, activation, bias is not None, keep)
    layout = spec.memory_format(x, weight)
    n, _, height, width = plan.result
    if plan.fused is not None or n == 0:
        y = empty_nhwc(x, plan.result)
        saved = empty_nhwc(x, (n, plan.filters, height, width)) if keep else None
        if plan.fused is not None:
            image = channels_last(x, fused.vector(x))
            make = pack.doubled if plan.doubled else fused.taps_of
            taps = make(weight, plan.channels)
            fused.run(plan.fused, image, taps, bias, y, saved)
    else:
        product = aligned(_product(x, weight, g, plan.doubled))
        saved = product if keep else None
        y = product
        if plan.kind is not None:
            y = empty_nhwc(x, plan.result)
            bias = None if bias is None else dense(bias)
            epilogue.finish(product, bias, y, kind=plan.kind, activation=activation, keep=keep)
    if layout != torch.channels_last:
        y = y.contiguous()
    return y, spec.empty_gradient(x) if saved is None else saved


def empty_nhwc(x: Tensor, shape: _Shape) -> Tensor:
    """Memory for a result: dense NHWC, as (N, C, H, W), dtype and device of x."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _reading(g: Geometry, kernel: Pair, doubled: bool) -> Reading:
    """Where the fused kernel reads."""
    if doubled:
        # One pixel outside, a doubled image shows its own edge pixel, mirrored or repeated.
        mode = "zeros" if g.padding_mode == "zeros" else "replicate"
        return Reading((2, 2), padding=(1, 1), padding_mode=mode, phases=2, phase_pad=1)
    padding = (g.padding[0], g.padding[2])
    return Reading(kernel, g.stride, padding, g.dilation, g.padding_mode, g.upsample - 1)


def _product(x: Tensor, weight: Tensor, g: Geometry, doubled: bool) -> Tensor:
    """The convolution without bias, by the library."""
    if doubled and g.padding_mode == "zeros":
        return products.convolve_transposed(x, pack.doubled_transposed(weight), 2, 1)
    return products.convolve(x, weight, g)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    saved: Tensor,
    g: Geometry,
    activation: str,
    wanted: Sequence[bool],
    *,
    gated: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    grad_pre_activation, grad_bias = finish_backward(grad, saved, gated, activation, wanted[2])
    grads: tuple[Tensor | None, Tensor | None]
    if grad_pre_activation.numel() == 0:
        grads = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
    else:
        grads = _product_backward(grad_pre_activation, x, weight, g, wanted)
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return spec.settled_gradients(x, weight, chosen)


def finish_backward(
    grad: Tensor, saved: Tensor, gated: bool, activation: str, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the pre-activation, NHWC, and of the bias."""
    grad = channels_last(grad)
    if grad.numel() == 0:
        filters = grad.shape[1] * (2 if gated else 1)
        empty = grad.new_zeros((grad.shape[0], filters, *grad.shape[2:]))
        return empty, grad.new_zeros((filters,))
    if activation == "identity" and not gated:
        return grad, grad.sum((0, 2, 3), dtype=torch.float32) if bias else None
    return epilogue_backward.finish_backward(
        grad,
        channels_last(saved),
        kind=epilogue.GATED if gated else epilogue.PLAIN,
        bias=bias,
        activation=activation,
    )


def _product_backward(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of the pre-activation."""
    kernel = (weight.shape[2], weight.shape[3])
    if not (phases.is_doubled(kernel, g) and g.padding_mode == "zeros"):
        return products.convolve_backward(grad, x, weight, g, wanted)
    taps = pack.doubled_transposed(weight)
    grad_x, grad_taps = products.convolve_transposed_backward(grad, x, taps, 2, 1, wanted)
    return grad_x, None if grad_taps is None else phases.doubled_backward(grad_taps)
