"""CPU side of the gradient of a convolution's input: a convolution of the result's gradient."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.ops.convolution import cpu, formulas
from inpaint_ops.ops.convolution.packed_weights import Form, packed_weights
from inpaint_ops.ops.convolution.spec import Geometry, Pair

# Pixels of a padded image for one of the result, beyond which oneDNN forms its gradient.
_MOST_PADDED = 3


def takes(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Whether our own kernels form the gradient of the input."""
    if g.groups != 1:
        return False
    if _unpacked(grad, weight, g):
        return True
    if g.padding_mode != "zeros":
        # The gradient of the padding is summed as a whole, most of it of few taps: oneDNN skips
        # the others (at 64x64, one thread, all gradients: 7x7 of dilation 16, 6 times the pixels,
        # 440 ms, eager 295; 5x5, 4 times, 163 and 127; 5x5 of dilation 8, 2.25 times, 99 and 119).
        top, bottom, left, right = g.padding
        padded = (x.shape[2] * g.upsample + top + bottom) * (x.shape[3] * g.upsample + left + right)
        if padded > _MOST_PADDED * grad.shape[2] * grad.shape[3] * g.stride[0] * g.stride[1]:
            return False
    if g.stride == (1, 1):
        return True
    even = g.stride[0] == g.stride[1] and g.padding[0] == g.padding[2] and g.upsample == 1
    return even and g.dilation == (1, 1) and g.stride[0] <= min(weight.shape[2:])


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The gradient of x, channels_last, in float32.

    Args:
        grad: (N, filters, Ho, Wo), gradient of the sums.
        x: (N, C, H, W); its shape counts.
        weight: (filters, C, kh, kw).
        g: geometry, one that `takes` approves.
    """
    if _unpacked(grad, weight, g):
        into = cpu._channels_last(x, x.shape[1], (x.shape[2], x.shape[3]))
        cpu.scattered(grad, weight, None, g, into)
        return into
    if g.padding_mode == "zeros":
        return _inner(grad, x, weight, g)
    if g.stride != (1, 1):
        return _folded(_strided(grad, x, weight, g), x, g)
    grad_x = _inner(grad, x, weight, replace(g, padding_mode="zeros"))
    _add_padding(grad_x, grad, weight, g)
    return grad_x


def _unpacked(grad: Tensor, weight: Tensor, g: Geometry) -> bool:
    inside = g.padding_mode == "zeros" and g.upsample == 1
    return inside and cpu.unpacked(grad, weight, None)


def _inner(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The gradient without that of the padding."""
    if g.stride != (1, 1):
        return formulas.unprepared(_strided(grad, x, weight, g), x, g)
    if g.upsample == 2 and g.dilation == (1, 1) and min(weight.shape[2:]) > 1:
        return _doubled(grad, x, weight, g)
    size = (x.shape[2] * g.upsample, x.shape[3] * g.upsample)
    image = _part(grad, weight, g, (g.padding[0], g.padding[2]), size)
    return formulas.unprepared(image, x, g)


def _part(grad: Tensor, weight: Tensor, g: Geometry, begin: Pair, size: Pair) -> Tensor:
    """The gradient of some of the padded image, (height, width) from `begin` on; stride 1."""
    into = cpu._channels_last(grad, weight.shape[1], size)
    before = [d * (k - 1) - b for d, k, b in zip(g.dilation, weight.shape[2:], begin)]
    _flipped_convolution(
        grad, weight, Geometry((1, 1), (before[0], 0, before[1], 0), g.dilation), into
    )
    return into


def _doubled(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The gradient of x behind a doubling of the image, without the doubled image.

    Pixel i is read as 2 i and 2 i + 1, so its gradient is a convolution with stride 2, by sums of
    two by two neighbouring taps: (kh + 1) (kw + 1) of them instead of 4 kh kw.
    """
    into = cpu._channels_last(x, x.shape[1], (x.shape[2], x.shape[3]))
    before = [k - 1 - p for k, p in zip(weight.shape[2:], (g.padding[0], g.padding[2]))]
    strided = Geometry((2, 2), (before[0], 0, before[1], 0), (1, 1))
    kernel = (weight.shape[2] + 1, weight.shape[3] + 1)
    # Directly: a Winograd core takes 0.5 to 0.7 of the time, 0.8 to 0.9 of a layer's forward and
    # backward pass, and errs 5.5 to 7.6 times as much as eager where this errs 1.2 times.
    packed = packed_weights.of(weight, Form("direct", (2, 2), flipped=True, doubled=True))
    call = cpu._Call("direct", strided, kernel, weight.shape[1])
    call.run(cpu.parts_of(grad, strided), packed, None, into, None)
    return into


def _flipped_convolution(grad: Tensor, weight: Tensor, g: Geometry, into: Tensor) -> None:
    """The convolution with filters and channels of the weight exchanged and its taps turned."""
    core = cpu.choose_core(grad, weight.transpose(0, 1), g, (into.shape[2], into.shape[3]))
    core = "direct" if core == "aten" else core
    packed = packed_weights.of(weight, Form(core, g.stride, flipped=True))
    kernel = (weight.shape[2], weight.shape[3])
    parts = cpu.parts_of(grad, g)
    cpu._Call(core, g, kernel, weight.shape[1]).run(parts, packed, None, into, None)


def _strided(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The gradient of the padded image, or of x alone where zeros can be cut off; a stride."""
    # Zero padding is cut off by asking for no more outputs; other modes need the whole padded
    # image, folded back afterwards.
    top, bottom, left, right = g.padding
    reach_y, reach_x = (k - 1 for k in weight.shape[2:])
    cut = g.padding_mode == "zeros" and top <= reach_y and left <= reach_x
    size = (x.shape[2], x.shape[3])
    if not cut:
        size = (size[0] + top + bottom, size[1] + left + right)
    image = cpu._channels_last(x, x.shape[1], size)
    cpu.transposed_forward(
        grad,
        weight,
        None,
        stride=g.stride[0],
        padding=top if cut else 0,
        activation="identity",
        y=image,
    )
    return image


def _add_padding(grad_x: Tensor, grad: Tensor, weight: Tensor, g: Geometry) -> None:
    """Adds the gradient of reflected or repeated pixels, strip by strip; stride 1."""
    top, bottom, left, right = g.padding
    high, wide = (size * g.upsample for size in grad_x.shape[2:])
    rows, columns = (
        _sources(size, *pads, g) for size, pads in ((high, (top, bottom)), (wide, (left, right)))
    )
    for begin, count in ((0, top), (top + high, bottom)):
        if count:
            strip = _part(grad, weight, g, (begin, 0), (count, left + wide + right))
            inner = _narrow(strip, 3, left, wide, columns, g)
            grad_x.index_add_(2, rows[begin : begin + count], inner)
    for begin, count in ((0, left), (left + wide, right)):
        if count:
            strip = _part(grad, weight, g, (top, begin), (high, count))
            inner = _narrow(strip, 2, 0, high, rows, g)
            grad_x.index_add_(3, columns[begin : begin + count], inner)


def _sources(size: int, before: int, after: int, g: Geometry) -> Tensor:
    """The pixel of x behind each coordinate of an axis of the padded, upsampled image."""
    mode = "reflect" if g.padding_mode == "reflect" else "replicate"
    numbers = torch.arange(size, dtype=torch.float32).view(1, 1, size)
    padded = F.pad(numbers, (before, after), mode=mode).view(-1)
    return padded.to(torch.int64) // g.upsample


def _narrow(
    image: Tensor, axis: int, before: int, size: int, sources: Tensor, g: Geometry
) -> Tensor:
    """Brings an axis of a part of the padded image, which is ours to overwrite, to that of x."""
    inner = image.narrow(axis, before, size)
    end = image.shape[axis] - before - size
    if g.upsample > 1:
        inner = inner.unflatten(axis, (size // g.upsample, g.upsample)).sum(axis + 1)
    for begin, count in ((0, before), (before + size, end)):
        if count:
            strip = image.narrow(axis, begin, count)
            inner.index_add_(axis, sources[begin : begin + count], strip)
    return inner


def _folded(image: Tensor, x: Tensor, g: Geometry) -> Tensor:
    """The gradient of x from that of the padded image, ours to overwrite; no upsampling."""
    top, bottom, left, right = g.padding
    for axis, pads in ((3, (left, right)), (2, (top, bottom))):
        image = _narrow(image, axis, pads[0], x.shape[axis], _sources(x.shape[axis], *pads, g), g)
    return image
