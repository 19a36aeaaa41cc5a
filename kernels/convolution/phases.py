"""Transposed convolutions, and 3x3 convolutions of a doubled image, as small convolutions of x.

Output o of a transposed convolution of stride s takes tap t of input i where
o + padding = i s + t. So the outputs of one phase, o mod s, meet the same taps: they are an
ordinary convolution of x with kernel / s taps along each axis.

A nearest-doubled row holds each pixel twice, so that a 3-tap sum of it reads two pixels of the row,
one of them twice. That is a transposed convolution of stride 2 with 4 taps, whose phases have 2
taps each: 4 instead of 9 products an output, and the doubled image is never formed.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.ops.convolution.spec import Geometry


def is_doubled(weight: Tensor, g: Geometry) -> bool:
    """True where a layer is four 2x2 convolutions of the image before its doubling."""
    plain = g.stride == (1, 1) and g.dilation == (1, 1) and g.padding == (1, 1, 1, 1)
    return g.upsample == 2 and plain and tuple(weight.shape[2:]) == (3, 3)


@lru_cache(maxsize=8)
def _doubling(device: torch.device) -> Tensor:
    """(4, 3): which taps of the 3 make each of the 4 taps of the transposed convolution."""
    table = [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]
    return torch.tensor(table, dtype=torch.float32, device=device)


def transposed_weight(weight: Tensor) -> Tensor:
    """(C, filters, 4, 4) of the transposed convolution of x, from 3x3 taps of the doubled x.

    Summed in float32.
    """
    table = _doubling(weight.device)
    with products.precision():
        taps = torch.einsum("ti,uj,fcij->cftu", table, table, weight.float())
    return taps.to(weight.dtype)


def transposed_weight_backward(grad: Tensor) -> Tensor:
    """Gradient of the 3x3 taps, float32, from that of `transposed_weight`."""
    table = _doubling(grad.device)
    with products.precision():
        return torch.einsum("ti,uj,cftu->fcij", table, table, grad.float())


def phase_weight(weight: Tensor, stride: int, padding: int, channels: int) -> Tensor:
    """(stride**2 phases, filters, ky, kx, channels) from (C, filters, kh, kw).

    Phase o mod stride meets the taps t = (o + padding) mod stride + j stride, j descending as i
    ascends. `channels`: C and the zeros that pad it.
    """
    c, filters, kh, kw = weight.shape
    height, width = -(-kh // stride), -(-kw // stride)
    missing = (0, width * stride - kw, 0, height * stride - kh, 0, 0, 0, channels - c)
    taps = F.pad(weight, missing) if any(missing) else weight
    taps = taps.unflatten(3, (width, stride)).unflatten(2, (height, stride))
    # (C, filters, j, remainder, j, remainder)
    taps = taps.flip(2, 4).roll((-padding, -padding), (3, 5))
    taps = taps.permute(3, 5, 1, 2, 4, 0).contiguous()
    result: Tensor = taps.view(stride**2, filters, height, width, channels)
    return result
