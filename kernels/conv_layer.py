"""Forward and backward of fused_conv2d and gated_conv2d on GPUs: who multiplies, what is kept."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from inpaint_ops.kernels import conv_epilogue, conv_launch, conv_library
from inpaint_ops.kernels.conv_dispatch import fuses
from inpaint_ops.kernels.conv_launch import Reading
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.ops import _conv
from inpaint_ops.ops._conv import Geometry, Pair


def empty_nhwc(x: Tensor, channels: int, size: Pair) -> Tensor:
    """Memory of a result: dense NHWC, as an (N, C, H, W) view."""
    shape = (x.shape[0], *size, channels)
    return torch.empty(shape, dtype=x.dtype, device=x.device).permute(0, 3, 1, 2)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    *,
    gated: bool,
    activation: str,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """The result in the layout the operator promises, and the sums if they are to be kept."""
    size = g.out_size(x, weight)
    filters = weight.shape[0]
    outputs = filters // 2 if gated else filters
    y = empty_nhwc(x, outputs, size)
    z = None
    if y.numel() == 0:
        z = empty_nhwc(x, filters, size) if keep else None
    elif _fuses(x, weight, g, outputs, y.numel() // outputs):
        z = empty_nhwc(x, filters, size) if keep else None
        image = channels_last(x, conv_launch.vector(x))
        taps, reading = _reading(weight, g, image.shape[1])
        conv_launch.convolve(image, taps, bias, y, reading, gated=gated, activation=activation, z=z)
    else:
        z = conv_library.convolve(x, weight, g)
        kind = conv_epilogue.GATED if gated else conv_epilogue.PLAIN
        conv_epilogue.finish(
            aligned(z),
            None if bias is None else dense(bias),
            y,
            kind=kind,
            activation=activation,
            keep=keep,
        )
    return _conv.settled(y, x, _conv.memory_format(x, weight)), z


def _fuses(x: Tensor, weight: Tensor, g: Geometry, outputs: int, pixels: int) -> bool:
    if g.groups != 1:
        return False
    depth = weight[0].numel() * 4 // 9 if is_doubled(weight, g) else weight[0].numel()
    return fuses(x, depth=depth, outputs=outputs, pixels=pixels, saves=g.upsample == 2)


def is_doubled(weight: Tensor, g: Geometry) -> bool:
    """Whether a layer is four 2x2 convolutions of the image before its doubling."""
    plain = g.stride == (1, 1) and g.dilation == (1, 1) and g.padding == (1, 1, 1, 1)
    return g.upsample == 2 and plain and tuple(weight.shape[2:]) == (3, 3)


def _reading(weight: Tensor, g: Geometry, channels: int) -> tuple[Tensor, Reading]:
    """The weight as the kernel reads it, for so many padded channels, and where it reads."""
    if is_doubled(weight, g):
        # A doubled image shows its own edge pixel one pixel outside, mirrored or repeated.
        mode = "zeros" if g.padding_mode == "zeros" else "replicate"
        reading = Reading((2, 2), padding=(1, 1), padding_mode=mode, phases=2, phase_pad=1)
        return _doubled_weight(weight, channels), reading
    taps = channels_last(weight, 16 // weight.element_size())
    reading = Reading(
        (weight.shape[2], weight.shape[3]),
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        g.padding_mode,
        g.upsample - 1,
    )
    return taps.permute(0, 2, 3, 1)[None], reading


@lru_cache(maxsize=8)
def _summands(device: torch.device) -> Tensor:
    """(phase, tap on the small image, tap on the doubled one): which taps fall on one pixel."""
    table = [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]
    return torch.tensor(table, dtype=torch.float32, device=device)


def _doubled_weight(weight: Tensor, channels: int) -> Tensor:
    """(4 phases, filters, 2, 2, channels) from (filters, C, 3, 3); summed in float32."""
    with conv_library.precision(weight.device):
        rows = torch.einsum("pai,fcij->pfacj", _summands(weight.device), weight.float())
        taps = torch.einsum("qbj,pfacj->pqfabc", _summands(weight.device), rows)
    filters, c = weight.shape[:2]
    result = weight.new_zeros((4, filters, 2, 2, channels))
    result[..., :c] = taps.reshape(4, filters, 2, 2, c)
    return result


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    kept: Tensor,
    g: Geometry,
    *,
    gated: bool,
    activation: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias: one fused elementwise pass, then the library's products."""
    grad_z, grad_bias = finish_backward(grad, kept, gated, activation, wanted[2])
    grads: tuple[Tensor | None, Tensor | None]
    if grad_z.numel() == 0:
        grads = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
    else:
        grads = conv_library.convolve_backward(grad_z, x, weight, g, wanted)
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return _conv.settled_gradients(x, weight, chosen)


def finish_backward(
    grad: Tensor, kept: Tensor, gated: bool, activation: str, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums, NHWC, and of the bias."""
    grad = channels_last(grad)
    if grad.numel() == 0:
        filters = grad.shape[1] * (2 if gated else 1)
        empty = grad.new_zeros((grad.shape[0], filters, *grad.shape[2:]))
        return empty, grad.new_zeros((filters,))
    if activation == "identity" and not gated:
        return grad, grad.sum((0, 2, 3), dtype=torch.float32) if bias else None
    kind = conv_epilogue.GATED if gated else conv_epilogue.PLAIN
    return conv_epilogue.finish_backward(
        grad, channels_last(kept), kind=kind, activation=activation
    )
