"""partial_conv2d on GPUs.

A bool mask of one or two parts is read by the fused kernel itself: pixels that it hides are not
loaded, and blocks of pixels that see nothing valid are not multiplied. All other masks and layers
take three steps: `mask_planes` and a pass that writes the masked input, the library's product, and
the pass of `epilogue` after it. Those are masks of one channel for each of x, soft masks, groups
and deep layers. Any floating mask counts as soft: to look whether its values are all 0 and 1, the
host would have to wait for the device.

The image and the mask arrive here upsampled and concatenated; only the CPU's kernels read several
tensors where they lie.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.kernels import products
from inpaint_ops.kernels.convolution import epilogue, epilogue_backward, fused
from inpaint_ops.kernels.convolution.choose import fuses
from inpaint_ops.kernels.convolution.fused import Reading, Window
from inpaint_ops.kernels.convolution.layer import empty_nhwc
from inpaint_ops.kernels.convolution.load import TAPS_OF_ONE, TAPS_OF_TWO
from inpaint_ops.kernels.convolution.mask_planes import fill_planes
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import Geometry

_OP = "partial_conv2d"


def forward(
    x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, dilation, groups, rule, channels = rest
    g = spec.geometry(stride, padding, dilation, groups, "zeros", 1)
    if valid.dtype == torch.uint8:
        valid = checks.binary(_OP, "valid", valid)
    size = g.out_size(x, weight)
    filters = weight.shape[0]
    y = empty_nhwc(x, filters, size)
    planes = (valid.shape[0], 1, *size)
    update_mask = torch.empty(planes, dtype=torch.float32, device=x.device)
    mask_ratio = torch.empty(planes, dtype=torch.float32, device=x.device)
    # One channel stands for itself in the public layer, for all channels in naoto0804's.
    counted = [1] if valid.shape[1] == 1 and rule == "window" else list(channels)
    if y.numel() == 0:
        fill_planes(valid, counted, weight, g, rule, bias is not None, update_mask, mask_ratio)
    elif _fits(x, valid, weight, g, channels) and fuses(
        x, depth=weight[0].numel(), outputs=filters, pixels=y.numel() // filters
    ):
        _fused(x, valid, weight, bias, g, rule, channels, counted, y, update_mask, mask_ratio)
    else:
        fill_planes(valid, counted, weight, g, rule, bias is not None, update_mask, mask_ratio)
        epilogue.finish(
            aligned(products.convolve(_select(x, valid, channels), weight, g)),
            None if bias is None else dense(bias),
            y,
            kind=epilogue.PARTIAL,
            mask_ratio=mask_ratio,
            update_mask=update_mask,
        )
    return spec.settled(y, x, spec.memory_format(x, weight)), update_mask, mask_ratio


def _fits(x: Tensor, valid: Tensor, weight: Tensor, g: Geometry, channels: Sequence[int]) -> bool:
    """True where the fused kernel can read such a mask."""
    parts = valid.shape[1]
    taps = weight.shape[2] * weight.shape[3]
    if valid.dtype != torch.bool or g.groups != 1 or parts > 2:
        return False
    if parts == 1:
        return taps <= TAPS_OF_ONE
    return taps <= TAPS_OF_TWO and channels[0] % fused.vector(x) == 0


def _fused(
    x: Tensor,
    valid: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    rule: str,
    channels: Sequence[int],
    counted: Sequence[int],
    y: Tensor,
    update_mask: Tensor,
    mask_ratio: Tensor,
) -> None:
    image = channels_last(x, fused.vector(x))
    taps = channels_last(weight, fused.vector(x)).permute(0, 2, 3, 1)[None]
    two = valid.shape[1] == 2
    window = Window(
        valid.contiguous().view(torch.uint8),
        update_mask,
        mask_ratio,
        split=channels[0] if two else image.shape[1],
        channels=(counted[0], counted[1] if two else 0),
        total=sum(counted) * weight.shape[2] * weight.shape[3],
        rule=rule,
    )
    reading = Reading(
        (weight.shape[2], weight.shape[3]), g.stride, (g.padding[0], g.padding[2]), g.dilation
    )
    fused.convolve(image, taps, bias, y, reading, window=window)


def _select(x: Tensor, valid: Tensor, channels: Sequence[int]) -> Tensor:
    """Image times the mask; zero where the mask is, whatever the image holds there."""
    result = torch.empty_like(x)
    first = 0
    every = valid.shape[1] in (1, x.shape[1])
    for part, count in enumerate([x.shape[1]] if every else channels):
        cut = slice(first, first + count)
        mask = valid if every else valid[:, part : part + 1]
        values = x[:, cut]
        if mask.is_floating_point():
            values = values * mask.to(x.dtype)
        result[:, cut] = torch.where(mask != 0, values, values.new_zeros(()))
        first += count
    return result


def backward(
    grad: Tensor, x: Tensor, valid: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    update_mask, mask_ratio, stride, padding, dilation, groups, channels, wanted = rest
    g = spec.geometry(stride, padding, dilation, groups, "zeros", 1)
    grads: tuple[Tensor | None, Tensor | None, Tensor | None]
    if grad.numel() == 0:
        zeros = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
        grads = (*zeros, weight.new_zeros((weight.shape[0],)))
    else:
        grad = channels_last(grad)
        grad_product, grad_bias = epilogue_backward.finish_backward(
            grad,
            grad,
            kind=epilogue.PARTIAL,
            mask_ratio=aligned(mask_ratio),
            update_mask=aligned(update_mask),
        )
        masked = _select(x, valid, channels)
        grad_masked, grad_weight = products.convolve_backward(
            grad_product, masked, weight, g, wanted
        )
        grad_x = None if grad_masked is None else _select(grad_masked, valid, channels)
        grads = (grad_x, grad_weight, grad_bias)
    chosen = [t if need else None for t, need in zip(grads, wanted)]
    return spec.settled_gradients(x, weight, chosen)
