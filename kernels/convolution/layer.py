"""Forward and backward of fused_conv2d and gated_conv2d on GPUs: who multiplies, what is kept."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels.convolution import epilogue, launch, library
from inpaint_ops.kernels.convolution.dispatch import fuses
from inpaint_ops.kernels.convolution.launch import Reading
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import Geometry, Pair


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
        image = channels_last(x, launch.vector(x))
        taps, reading = _reading(weight, g, image.shape[1])
        launch.convolve(image, taps, bias, y, reading, gated=gated, activation=activation, z=z)
    else:
        z = _products(x, weight, g)
        if not gated and activation == "identity" and bias is None and not keep:
            return spec.settled(z, x, spec.memory_format(x, weight)), None
        kind = epilogue.GATED if gated else epilogue.PLAIN
        epilogue.finish(
            aligned(z),
            None if bias is None else dense(bias),
            y,
            kind=kind,
            activation=activation,
            keep=keep,
        )
    return spec.settled(y, x, spec.memory_format(x, weight)), z


def _products(x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The sums without bias, by the library."""
    if is_doubled(weight, g) and g.padding_mode == "zeros":
        return library.convolve_transposed(x, transposed_weight(weight), 2, 1)
    return library.convolve(x, weight, g)


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
        return phase_weight(transposed_weight(weight), 2, 1, channels), reading
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
def _doubling(device: torch.device) -> Tensor:
    """(4, 3): taps of the transposed convolution that a 3-tap one of a doubled row is."""
    table = [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]
    return torch.tensor(table, dtype=torch.float32, device=device)


def transposed_weight(weight: Tensor) -> Tensor:
    """(C, filters, 4, 4): 3x3 taps of a doubled image, as a transposed convolution of stride 2.

    4 instead of 9 products an output, and the doubled image is never formed. Summed in float32.
    """
    table = _doubling(weight.device)
    with library.precision(weight.device):
        taps = torch.einsum("ti,uj,fcij->cftu", table, table, weight.float())
    return taps.to(weight.dtype)


def phase_weight(weight: Tensor, stride: int, padding: int, channels: int) -> Tensor:
    """(stride**2 phases, filters, ky, kx, channels) from (C, filters, kh, kw).

    Output o takes tap t of input i where o + padding = i stride + t: phase o mod stride meets the
    taps t = (o + padding) mod stride + j stride, j descending as i ascends.
    """
    c, filters, kh, kw = weight.shape
    high, wide = -(-kh // stride), -(-kw // stride)
    short = (0, wide * stride - kw, 0, high * stride - kh, 0, 0, 0, channels - c)
    taps = F.pad(weight, short) if any(short) else weight
    taps = taps.unflatten(3, (wide, stride)).unflatten(2, (high, stride))
    # (C, filters, j, remainder, j, remainder)
    taps = taps.flip(2, 4).roll((-padding, -padding), (3, 5))
    taps = taps.permute(3, 5, 1, 2, 4, 0).contiguous()
    result: Tensor = taps.view(stride**2, filters, high, wide, channels)
    return result


def _products_backward(
    grad_z: Tensor, x: Tensor, weight: Tensor, g: Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of the sums."""
    if not (is_doubled(weight, g) and g.padding_mode == "zeros"):
        return library.convolve_backward(grad_z, x, weight, g, wanted)
    taps = transposed_weight(weight)
    grad_x, grad_taps = library.convolve_transposed_backward(grad_z, x, taps, 2, 1, wanted)
    if grad_taps is None:
        return grad_x, None
    table = _doubling(weight.device)
    with library.precision(weight.device):
        return grad_x, torch.einsum("ti,uj,cftu->fcij", table, table, grad_taps.float())


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
        grads = _products_backward(grad_z, x, weight, g, wanted)
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return spec.settled_gradients(x, weight, chosen)


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
    kind = epilogue.GATED if gated else epilogue.PLAIN
    return epilogue.finish_backward(grad, channels_last(kept), kind=kind, activation=activation)
