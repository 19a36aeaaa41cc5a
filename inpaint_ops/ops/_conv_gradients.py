"""CPU side of the convolutions' backward passes: which kernel forms which gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops._backend import current_backend
from inpaint_ops.ops import _common, _conv, _conv_cores, _conv_cpu
from inpaint_ops.ops._conv import Geometry
from inpaint_ops.ops._conv_cores import CORES
from inpaint_ops.ops._conv_cpu import Planes
from inpaint_ops.ops._packed_weights import packed_weights

# Pixels of a padded image for one of the result, beyond which oneDNN forms its gradient.
_MOST_PADDED = 4


def finish_backward(
    grad: Tensor, z: Tensor, activation: str, *, gated: bool, from_result: bool, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums (float32, channels_last) and of the bias (float64).

    z: the sums before activation and gate, or, `from_result`, what the activation made of them.
    """
    filters = z.shape[1]
    size = (z.shape[2], z.shape[3])
    out = _conv_cpu._channels_last(z, filters, size)
    sums = torch.zeros(filters, dtype=torch.float64) if bias else None
    if out.numel():
        _common.native().conv_epilogue_backward(
            _conv_cpu._packed_images(_common.compute_dtype(grad.detach())),
            _conv_cpu._packed_images(_common.compute_dtype(z.detach())),
            out.permute(0, 2, 3, 1).numpy(),
            None if sums is None else sums.numpy(),
            gated,
            from_result,
            _conv.ACTIVATIONS.index(activation),
            _common.threads(),
        )
    return out, sums


def bias_gradient(grad: Tensor) -> Tensor:
    """Sums over pixels in float64, of (N, filters, Ho, Wo) in float32."""
    sums = torch.zeros(grad.shape[1], dtype=torch.float64)
    if grad.numel():
        image = _conv_cpu._packed_images(grad)
        _common.native().conv_epilogue_backward(
            image, image, None, sums.numpy(), False, False, 0, _common.threads()
        )
    return sums


def ratio_backward(
    grad: Tensor, scale: Tensor, share: Tensor, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums and of the bias behind y = sums scale + bias share.

    Where `share` is zero `grad` is not read: it may be anything.

    Args:
        grad: (N, filters, Ho, Wo).
        scale: (N or 1, 1, Ho, Wo), like `share`.
        share: of the bias.
        bias: whether its gradient is wanted.
    """
    out = _conv_cpu._channels_last(grad, grad.shape[1], (grad.shape[2], grad.shape[3]))
    if not out.numel():
        return out, torch.zeros(grad.shape[1], dtype=torch.float64) if bias else None
    image, result = _conv_cpu._packed_images(grad), out.permute(0, 2, 3, 1).numpy()
    ratio, known = (_conv_cpu._array(plane[:, 0]) for plane in (scale, share))

    def scaled(factor: Any) -> None:
        _common.native().conv_epilogue(
            image, None, factor, known, result, None, False, 0, _common.threads()
        )

    grad_bias = None
    if bias:
        scaled(known)
        grad_bias = bias_gradient(out)
    scaled(ratio)
    return out, grad_bias


def convolve_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    g: Geometry,
    wanted: Sequence[bool],
    planes: Planes | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight in float32 from that of the sums.

    That of x is itself a convolution of `grad`, with filters and channels exchanged and the taps
    turned round; with a stride, one for each remainder of the position modulo the stride. All but
    grouped convolutions, and some strided ones' gradient of x, are our own kernels', whose bits do
    not depend on the number of threads.

    Args:
        grad: (N, filters, Ho, Wo), gradient of the sums.
        x: (N, C, H, W).
        weight: (filters, C / groups, kh, kw).
        g: geometry.
        wanted: whether x's, whether weight's.
        planes: only `valid` and `part_end` count: what of x was read.
    """
    x = _common.compute_dtype(x.detach())
    left_x = wanted[0] and not _native_input(grad, x, g, weight)
    left_weight = wanted[1] and g.groups != 1
    grad_x = grad_weight = None
    if wanted[0] and not left_x:
        if _is_whole(grad, x, weight, g):
            matrix = _common.compute_dtype(weight.detach()).flatten(1)
            grad_x = (grad.flatten(1) @ matrix).view(x.shape)
        elif _is_doubled(g, weight):
            grad_x = _doubled_input(grad, x, weight, g)
        else:
            grad_x = _input_gradient(grad, x, weight, g)
    if wanted[1] and not left_weight:
        grad_weight = weight_gradient(grad, x, weight, g, planes)
    if left_x or left_weight:
        if planes is not None:
            x = _conv_cpu.masked(x, planes)
        by_aten = _conv.convolve_backward(
            grad.contiguous(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
            _common.compute_dtype(weight.detach()),
            g,
            (left_x, left_weight),
        )
        grad_x = by_aten[0] if left_x else grad_x
        grad_weight = by_aten[1] if left_weight else grad_weight
    return grad_x, grad_weight


def _is_whole(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Whether the kernel is as large as the image: one output, a matrix product."""
    one = grad.shape[2:] == (1, 1) and x.shape[2:] == weight.shape[2:]
    return one and g.groups == g.upsample == 1 and g.padding == (0, 0, 0, 0)


def weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, planes: Planes | None = None
) -> Tensor:
    """The weight's gradient, (filters, C, kh, kw), by our own kernels; groups must be 1.

    In Winograd's domain where `_conv_cores` says so, with a fraction of the multiplications, unless
    ``backend("direct")`` is in force. On one Zen 4 core 3x3, 96 -> 192 filters, 128^2: 28 ms, as
    direct sums 64, oneDNN 62 in planes and 73 in channels_last.
    """
    if _is_whole(grad, x, weight, g) and planes is None:
        return (grad.flatten(1).T @ x.flatten(1)).view(weight.shape)
    result = torch.empty(weight.shape, dtype=torch.float32)
    if x.numel() == 0 or grad.numel() == 0:
        return result.zero_()
    f, c, kh, kw = weight.shape
    size, tiled = (grad.shape[2], grad.shape[3]), current_backend() != "direct"
    core = _conv_cores.choose_weight_gradient(x.shape[0], (f, c, kh, kw), g, size, tiled)
    _common.native().conv_weight_gradient(
        _conv_cpu._images(x),
        None if planes is None else _conv_cpu._array(planes.valid),
        [] if planes is None else list(planes.part_end),
        _conv_cpu._packed_images(grad),
        result.numpy(),
        CORES.index(core),
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        _conv.PADDING_MODES.index(g.padding_mode),
        g.upsample,
        _common.threads(),
    )
    return result


def _is_doubled(g: Geometry, weight: Tensor) -> bool:
    plain = g.stride == (1, 1) and g.dilation == (1, 1) and g.groups == 1
    return g.upsample == 2 and plain and g.padding_mode == "zeros" and min(weight.shape[2:]) > 1


def _doubled_input(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The gradient of x behind a doubling of the image, without the doubled image.

    Pixel i is read as 2 i and 2 i + 1, so its gradient sees grad only through the sums of two by
    two neighbours, S: it is a convolution of S with stride 2, a quarter of the multiplications.
    """
    kh, kw = weight.shape[2:]
    high, wide = grad.shape[2:]
    top, left = kh - 1 - g.padding[0], kw - 1 - g.padding[2]
    bottom = 2 * (x.shape[2] - 1) + kh + 1 - top - high
    right = 2 * (x.shape[3] - 1) + kw + 1 - left - wide
    padded = F.pad(grad, (left, right, top, bottom))
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    sums = (rows[:, :, :, :-1] + rows[:, :, :, 1:]).contiguous(memory_format=torch.channels_last)
    grad_x = _conv_cpu._channels_last(x, x.shape[1], (x.shape[2], x.shape[3]))
    strided = Geometry((2, 2), (0, 0, 0, 0), (1, 1))
    # Directly: a Winograd core gains 1 to 3 % of a layer's forward and backward pass here, and errs
    # up to 8.6 times as much as eager where this errs 1.3 times.
    _flipped_convolution(sums, weight, strided, grad_x, "direct")
    return grad_x


def _flipped_convolution(
    grad: Tensor, weight: Tensor, g: Geometry, into: Tensor, core: str = ""
) -> None:
    """The convolution with filters and channels of the weight exchanged and its taps turned."""
    size = (into.shape[2], into.shape[3])
    core = core or _conv_cpu.choose_core(grad, weight.transpose(0, 1), g, size)
    core = "direct" if core == "aten" else core
    packed = packed_weights.get(weight, core, stride=g.stride, flipped=True)
    kernel = (weight.shape[2], weight.shape[3])
    _conv_cpu._Call(core, g, kernel, weight.shape[1]).run(grad, packed, None, into, None)


def _native_input(grad: Tensor, x: Tensor, g: Geometry, weight: Tensor) -> bool:
    """Whether the gradient of the input is ours."""
    if g.groups != 1:
        return False
    if g.padding_mode != "zeros":
        # The gradient of the padded image is summed as a whole, most of it of few taps: oneDNN
        # skips the others (7x7 of dilation 16 at 64x64, 6 times the pixels: 440 ms, eager 295).
        top, bottom, left, right = g.padding
        padded = (x.shape[2] * g.upsample + top + bottom) * (x.shape[3] * g.upsample + left + right)
        if padded > _MOST_PADDED * grad.shape[2] * grad.shape[3] * g.stride[0] * g.stride[1]:
            return False
    if g.stride == (1, 1):
        return True
    even = g.stride[0] == g.stride[1] and g.padding[0] == g.padding[2] and g.upsample == 1
    return even and g.dilation == (1, 1) and g.stride[0] <= min(weight.shape[2:])


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    # Zero padding is cut off by asking for no more outputs; other modes need the whole padded
    # image, folded back afterwards.
    top, bottom, left, right = g.padding
    high, wide = x.shape[2] * g.upsample, x.shape[3] * g.upsample
    reach_y, reach_x = (d * (k - 1) for d, k in zip(g.dilation, weight.shape[2:]))
    cut = g.padding_mode == "zeros" and top <= reach_y and left <= reach_x
    size = (high, wide) if cut else (high + top + bottom, wide + left + right)
    before = (top, left) if cut else (0, 0)
    image = _conv_cpu._channels_last(x, x.shape[1], size)
    if g.stride == (1, 1):
        flipped = Geometry((1, 1), (reach_y - before[0], 0, reach_x - before[1], 0), g.dilation)
        _flipped_convolution(grad, weight, flipped, image)
    else:
        _conv_cpu.transposed_forward(
            grad,
            weight,
            None,
            stride=g.stride[0],
            padding=before[0],
            activation="identity",
            y=image,
        )
    return _conv.unprepared(image, x, g)
