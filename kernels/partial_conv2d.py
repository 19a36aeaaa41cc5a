"""partial_conv2d on GPUs.

A bool or uint8 mask of one or two parts is read by the fused kernel itself: pixels that it hides
are not loaded, and blocks of pixels that see nothing valid are not multiplied. All other masks and
layers take three steps: `mask_planes` and `select`, which writes the masked input, the library's
product, and the pass of `epilogue` after it. Those are masks of one channel for each of x, soft
masks, groups and deep layers. The host would have to wait for the device to look at values: so any
floating mask counts as soft, and in a uint8 mask all but 0 counts as 1.

The image and the mask arrive here upsampled and concatenated; only the CPU's kernels read several
tensors where they lie.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.convolution import choose, epilogue, epilogue_backward, fused
from inpaint_ops.kernels.convolution.choose import RowOf
from inpaint_ops.kernels.convolution.fused import Counting, Reading, Window
from inpaint_ops.kernels.convolution.layer import empty_nhwc
from inpaint_ops.kernels.convolution.load import TAPS_OF_ONE, TAPS_OF_TWO
from inpaint_ops.kernels.convolution.mask_planes import fill_planes
from inpaint_ops.kernels.convolution.select import select
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.kernels.plans import Plans
from inpaint_ops.kernels.program import Call
from inpaint_ops.kernels.tuning import drawn
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import Geometry


class _Plan(NamedTuple):
    """How a layer is computed.

    Args:
        result: shape of y.
        planes: of the updated mask and the mask ratio.
        counted: channels that a valid pixel of each part counts.
        channels: of the fused kernel's input, padded.
        fused: its launch; None: the library multiplies.
    """

    result: tuple[int, int, int, int]
    planes: tuple[int, int, int, int]
    counted: list[int]
    channels: int
    fused: Call | None


def _make(
    x: Tensor,
    mask: tuple[int, ...],
    kind: torch.dtype,
    shape: tuple[int, ...],
    g: Geometry,
    rule: str,
    channels: tuple[int, ...],
    biased: bool,
    row_of: RowOf = choose.row_of,
) -> _Plan:
    n, _, height, width = x.shape
    filters, depth, kh, kw = shape
    size = g.result_size((height, width), (kh, kw))
    pixels = n * size[0] * size[1]
    # One channel stands for itself in the public layer, for all channels in naoto0804's.
    counted = [1] if mask[1] == 1 and rule == "window" else list(channels)
    padded = fused.pad_channels(x, depth)
    call = None
    if pixels and _fits(x, mask[1], kind, (kh, kw), g, channels):
        two = mask[1] == 2
        counting = Counting(
            mask[0],
            mask[1],
            split=channels[0] if two else padded,
            channels=(counted[0], counted[1] if two else 0),
            total=sum(counted) * kh * kw,
            rule=rule,
        )
        image, out = (n, padded, height, width), (filters, *size)
        reading = Reading((kh, kw), g.stride, (g.padding[0], g.padding[2]), g.dilation)

        def trial(row: str | None) -> Callable[[], Any]:
            options = (mask, kind, shape, g, rule, channels, biased)
            plan = _make(x, *options, row_of=lambda *_: row)
            weight = drawn(x, *shape).contiguous(memory_format=torch.channels_last)
            bias = drawn(x, filters) if biased else None
            # Without holes: the fused kernel passes over them, so that it is never slower.
            valid = torch.ones((*mask[:2], height, width), dtype=kind, device=x.device)
            return lambda: forward(x, valid, weight, bias, g, rule, channels, plan=plan)

        row = row_of(x, fused.problem(x, image, out, reading, "partial"), trial)
        if row is not None:
            call = fused.call(x, image, out, reading, row, bias=biased, counting=counting)
    return _Plan((n, filters, *size), (mask[0], 1, *size), counted, padded, call)


_plans = Plans(_make)


def forward(
    x: Tensor,
    valid: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    rule: str,
    channels: Sequence[int],
    *,
    plan: _Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, update_mask and mask_ratio; `channels` of x belong to each part of the mask."""
    if plan is None:
        biased = bias is not None
        options = (valid.shape, valid.dtype, weight.shape, g, rule, tuple(channels), biased)
        plan = _plans.of(x, *options)
    y = empty_nhwc(x, plan.result)
    update_mask = torch.empty(plan.planes, dtype=torch.float32, device=x.device)
    mask_ratio = torch.empty(plan.planes, dtype=torch.float32, device=x.device)
    bias = None if bias is None else dense(bias)
    if plan.fused is not None:
        image = channels_last(x, fused.vector(x))
        taps = fused.taps_of(weight, plan.channels)
        window = Window(dense(valid).view(torch.uint8), update_mask, mask_ratio)
        fused.run(plan.fused, image, taps, bias, y, window=window)
    else:
        fill_planes(valid, plan.counted, weight, g, rule, bias is not None, update_mask, mask_ratio)
        if y.numel():
            epilogue.finish(
                aligned(products.convolve(select(x, valid, channels), weight, g)),
                bias,
                y,
                kind=epilogue.PARTIAL,
                mask_ratio=mask_ratio,
                update_mask=update_mask,
            )
    if spec.memory_format(x, weight) != torch.channels_last:
        y = y.contiguous()
    return y, update_mask, mask_ratio


def _fits(
    x: Tensor,
    parts: int,
    kind: torch.dtype,
    kernel: tuple[int, int],
    g: Geometry,
    channels: Sequence[int],
) -> bool:
    """True where the fused kernel can read such a mask."""
    taps = kernel[0] * kernel[1]
    if kind not in (torch.bool, torch.uint8) or g.groups != 1 or parts > 2:
        return False
    if parts == 1:
        return taps <= TAPS_OF_ONE
    return taps <= TAPS_OF_TWO and channels[0] % fused.vector(x) == 0


def backward(
    grad: Tensor, x: Tensor, valid: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias; after the tensors of `forward` its planes, g, channels."""
    update_mask, mask_ratio, g, channels, wanted = rest
    if grad.numel() == 0:
        zeros = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
        return *zeros, weight.new_zeros((weight.shape[0],))
    grad = channels_last(grad)
    grad_product, grad_bias = epilogue_backward.finish_backward(
        grad,
        grad,
        kind=epilogue.PARTIAL,
        bias=wanted[2],
        mask_ratio=aligned(mask_ratio),
        update_mask=aligned(update_mask),
    )
    masked = select(x, valid, channels)
    grad_masked, grad_weight = products.convolve_backward(grad_product, masked, weight, g, wanted)
    grad_x = None if grad_masked is None else select(grad_masked, valid, channels)
    return grad_x, grad_weight, grad_bias
