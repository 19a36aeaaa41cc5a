"""Transposed convolutions, and 3x3 convolutions of a doubled image, as small convolutions of x.

Output o of a transposed convolution of stride s takes tap t of input i where
o + padding = i s + t. So the outputs of one phase, o mod s, meet the same taps: they are an
ordinary convolution of x with kernel / s taps along each axis.

A nearest-doubled row holds each pixel twice, so that a 3-tap sum of it reads two pixels of the row,
one of them twice. That is a transposed convolution of stride 2 with 4 taps, whose phases have 2
taps each: 4 instead of 9 products an output, and the doubled image is never formed. `pack` makes
the weights.
"""

from torch import Tensor

from inpaint_ops.ops.convolution.spec import Geometry, Pair


def is_doubled(kernel: Pair, g: Geometry) -> bool:
    """True where a layer is four 2x2 convolutions of the image before its doubling."""
    plain = g.stride == (1, 1) and g.dilation == (1, 1) and g.padding == (1, 1, 1, 1)
    return g.upsample == 2 and plain and kernel == (3, 3)


def doubled_backward(grad: Tensor) -> Tensor:
    """(filters, C, 3, 3) gradient of the taps, float32, from that of `pack.doubled_transposed`."""
    # Tap i of 3 is part of the taps 2 - i and 3 - i of 4.
    grad = grad.float().flip(2, 3).transpose(0, 1)
    rows = grad[:, :, :-1] + grad[:, :, 1:]
    return rows[..., :-1] + rows[..., 1:]
