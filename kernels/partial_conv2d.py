"""partial_conv2d on GPUs.

A bool mask of one or two parts is read by the convolution kernel itself (`conv_forward`): what it
hides is not loaded, and blocks of pixels that see nothing valid are not multiplied. Masks of one
channel for each of x, soft masks (any floating dtype: whether the values are all 0 and 1 is not
looked up, which would wait for the device), groups and deep layers take one pass that writes the
masked input, the library's product, and one pass behind it. The image and the mask arrive here
upsampled and concatenated: reading several tensors where they lie is the CPU's alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.kernels.convolution import epilogue, launch, library
from inpaint_ops.kernels.convolution.dispatch import fuses
from inpaint_ops.kernels.convolution.forward import TAPS_OF_ONE, TAPS_OF_TWO
from inpaint_ops.kernels.convolution.launch import Reading, Window
from inpaint_ops.kernels.convolution.layer import empty_nhwc
from inpaint_ops.kernels.launch import Kernel, Row, aligned, channels_last, dense, jit
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import Geometry

_OP = "partial_conv2d"
_TYPES = {
    "known_ptr": "*fp32",
    "share_ptr": "*fp32",
    "scale_ptr": "*fp32",
    "batch": "i32",
    "high": "i32",
    "wide": "i32",
    "out_high": "i32",
    "out_wide": "i32",
    "kernel_high": "i32",
    "kernel_wide": "i32",
    "stride_y": "i32",
    "stride_x": "i32",
    "pad_y": "i32",
    "pad_x": "i32",
    "dilation_y": "i32",
    "dilation_x": "i32",
    "total": "fp32",
}


@jit(_TYPES)
def _partial_conv2d_window_kernel(
    known_ptr,
    share_ptr,
    scale_ptr,
    batch,
    high,
    wide,
    out_high,
    out_wide,
    kernel_high,
    kernel_wide,
    stride_y,
    stride_x,
    pad_y,
    pad_x,
    dilation_y,
    dilation_x,
    total,
    SUM: tl.constexpr,
    BIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Share u and factor r of a window from the sum S of the weighted mask under it.

    u = clamp(S, 0, 1), r = total / (S + 1e-8) u, times u once more if BIASED; SUM: u = (S != 0),
    r = u / S. known: (batch, high, wide). One program: BLOCK outputs.
    """
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = offs // (out_high * out_wide)
    rest = offs % (out_high * out_wide)
    base_y = rest // out_wide * stride_y - pad_y
    base_x = rest % out_wide * stride_x - pad_x
    in_bounds = image < batch
    base = known_ptr + image.to(tl.int64) * (high * wide)
    sums = tl.zeros((BLOCK,), tl.float32)
    for ky in range(0, kernel_high):
        y = base_y + ky * dilation_y
        for kx in range(0, kernel_wide):
            x = base_x + kx * dilation_x
            inside = in_bounds & (y >= 0) & (y < high) & (x >= 0) & (x < wide)
            sums += tl.load(base + y * wide + x, mask=inside, other=0.0)
    if SUM:
        share = tl.where(sums != 0.0, 1.0, 0.0)
        scale = share / tl.where(sums != 0.0, sums, 1.0)
    else:
        share = tl.minimum(tl.maximum(sums, 0.0), 1.0)
        scale = total / (sums + 1e-8) * share
        if BIASED:
            scale = scale * share
    tl.store(share_ptr + offs, share, mask=in_bounds)
    tl.store(scale_ptr + offs, scale, mask=in_bounds)


_BLOCK = 256
WINDOWS = Kernel(
    _partial_conv2d_window_kernel,
    _TYPES,
    [Row("fp32", "fp32", {"BLOCK": _BLOCK}, stages=2)],
    free={"SUM": (False, True), "BIASED": (True, False)},
)


def forward(
    x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, dilation, groups, rule, widths = rest
    g = spec.geometry(stride, padding, dilation, groups, "zeros", 1)
    if valid.dtype == torch.uint8:
        valid = checks.binary(_OP, "valid", valid)
    size = g.out_size(x, weight)
    filters = weight.shape[0]
    y = empty_nhwc(x, filters, size)
    planes = (valid.shape[0], 1, *size)
    share = torch.empty(planes, dtype=torch.float32, device=x.device)
    scale = torch.empty(planes, dtype=torch.float32, device=x.device)
    # One channel stands for itself in the public layer, for all channels in naoto0804's.
    counted = [1] if valid.shape[1] == 1 and rule == "window" else list(widths)
    if y.numel() == 0:
        _windows(valid, counted, weight, g, rule, bias is not None, share, scale)
    elif _fits(x, valid, weight, g, widths) and fuses(
        x, depth=weight[0].numel(), outputs=filters, pixels=y.numel() // filters
    ):
        _fused(x, valid, weight, bias, g, rule, widths, counted, y, share, scale)
    else:
        _windows(valid, counted, weight, g, rule, bias is not None, share, scale)
        z = aligned(library.convolve(_select(x, valid, widths), weight, g))
        epilogue.finish(
            z,
            None if bias is None else dense(bias),
            y,
            kind=epilogue.PARTIAL,
            scale=scale,
            share=share,
        )
    return spec.settled(y, x, spec.memory_format(x, weight)), share, scale


def _fits(x: Tensor, valid: Tensor, weight: Tensor, g: Geometry, widths: Sequence[int]) -> bool:
    """Whether the fused kernel can read such a mask."""
    parts = valid.shape[1]
    taps = weight.shape[2] * weight.shape[3]
    if valid.dtype != torch.bool or g.groups != 1 or parts > 2:
        return False
    if parts == 1:
        return taps <= TAPS_OF_ONE
    return taps <= TAPS_OF_TWO and widths[0] % launch.vector(x) == 0


def _fused(
    x: Tensor,
    valid: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    rule: str,
    widths: Sequence[int],
    counted: Sequence[int],
    y: Tensor,
    share: Tensor,
    scale: Tensor,
) -> None:
    image = channels_last(x, launch.vector(x))
    taps = channels_last(weight, launch.vector(x)).permute(0, 2, 3, 1)[None]
    two = valid.shape[1] == 2
    window = Window(
        valid.contiguous().view(torch.uint8),
        share,
        scale,
        split=widths[0] if two else image.shape[1],
        widths=(counted[0], counted[1] if two else 0),
        total=sum(counted) * weight.shape[2] * weight.shape[3],
        rule=rule,
    )
    reading = Reading(
        (weight.shape[2], weight.shape[3]), g.stride, (g.padding[0], g.padding[2]), g.dilation
    )
    launch.convolve(image, taps, bias, y, reading, window=window)


def _windows(
    valid: Tensor,
    counted: Sequence[int],
    weight: Tensor,
    g: Geometry,
    rule: str,
    biased: bool,
    share: Tensor,
    scale: Tensor,
) -> None:
    """Fills both planes from any mask."""
    if len(set(counted)) == 1:
        known = valid.sum(1, dtype=torch.float32) * counted[0]
    else:
        known = torch.zeros_like(valid[:, 0], dtype=torch.float32)
        for part, width in enumerate(counted):
            known += valid[:, part] * width
    kernel = (weight.shape[2], weight.shape[3])
    WINDOWS(
        "fp32",
        (triton.cdiv(share.numel(), _BLOCK),),
        known_ptr=dense(known),
        share_ptr=share,
        scale_ptr=scale,
        batch=valid.shape[0],
        high=valid.shape[2],
        wide=valid.shape[3],
        out_high=share.shape[2],
        out_wide=share.shape[3],
        kernel_high=kernel[0],
        kernel_wide=kernel[1],
        stride_y=g.stride[0],
        stride_x=g.stride[1],
        pad_y=g.padding[0],
        pad_x=g.padding[2],
        dilation_y=g.dilation[0],
        dilation_x=g.dilation[1],
        total=float(sum(counted) * kernel[0] * kernel[1]),
        SUM=rule == "sum",
        BIASED=biased,
    )


def _select(x: Tensor, valid: Tensor, widths: Sequence[int]) -> Tensor:
    """Image times the mask, zero where the mask is, whatever the image holds there."""
    result = torch.empty_like(x)
    first = 0
    every = valid.shape[1] in (1, x.shape[1])
    for part, width in enumerate([x.shape[1]] if every else widths):
        cut = slice(first, first + width)
        mask = valid if every else valid[:, part : part + 1]
        values = x[:, cut]
        if mask.is_floating_point():
            values = values * mask.to(x.dtype)
        result[:, cut] = torch.where(mask != 0, values, values.new_zeros(()))
        first += width
    return result


def backward(
    grad: Tensor, x: Tensor, valid: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    share, scale, stride, padding, dilation, groups, widths, wanted = rest
    g = spec.geometry(stride, padding, dilation, groups, "zeros", 1)
    grads: tuple[Tensor | None, Tensor | None, Tensor | None]
    if grad.numel() == 0:
        zeros = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
        grads = (*zeros, weight.new_zeros((weight.shape[0],)))
    else:
        grad = channels_last(grad)
        grad_z, grad_bias = epilogue.finish_backward(
            grad, grad, kind=epilogue.PARTIAL, scale=aligned(scale), share=aligned(share)
        )
        masked = _select(x, valid, widths)
        products = library.convolve_backward(grad_z, masked, weight, g, wanted)
        grad_x = None if products[0] is None else _select(products[0], valid, widths)
        grads = (grad_x, products[1], grad_bias)
    chosen = [t if need else None for t, need in zip(grads, wanted)]
    return spec.settled_gradients(x, weight, chosen)
