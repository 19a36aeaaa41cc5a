"""CPU side of the convolutions' backward passes: which kernel forms which gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import cpu, formulas, spec
from inpaint_ops.ops.convolution.cpu import InputPart
from inpaint_ops.ops.convolution.plan import Convolution, Plan, plan
from inpaint_ops.ops.convolution.spec import Geometry, Pair

# Pixels of a padded image for one of the result, beyond which oneDNN forms its gradient.
_MOST_PADDED = 3


def finish_backward(
    grad: Tensor, saved: Tensor, activation: str, *, gated: bool, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the sums (float32, channels_last) and of the bias (float64).

    saved: the sums before activation and gate where `spec.needs_pre_activation`, else the result;
    not read without activation and gate.
    """
    if activation == "identity" and not gated:
        image = tensors.packed_image(grad)
        return image, bias_gradient(image) if bias else None
    filters = saved.shape[1]
    out = cpu.channels_last(saved, filters, (saved.shape[2], saved.shape[3]))
    sums = torch.zeros(filters, dtype=torch.float64) if bias else None
    if out.numel():
        tensors.native().conv_epilogue_backward(
            tensors.packed_image(grad),
            tensors.packed_image(saved),
            out,
            sums,
            gated,
            not spec.needs_pre_activation(activation, gated),
            activation,
            tensors.threads(),
        )
    return out, sums


def bias_gradient(grad: Tensor) -> Tensor:
    """Sums over pixels in float64, of (N, filters, Ho, Wo) in float32."""
    sums = torch.zeros(grad.shape[1], dtype=torch.float64)
    if grad.numel():
        image = tensors.packed_image(grad)
        tensors.native().conv_epilogue_backward(
            image, image, None, sums, False, False, "identity", tensors.threads()
        )
    return sums


def ratio_backward(
    grad: Tensor, mask_ratio: Tensor, update_mask: Tensor, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums and of the bias of y = sums mask_ratio + bias update_mask.

    Where `update_mask` is zero `grad` is not read: it may be anything.

    Args:
        grad: (N, filters, Ho, Wo).
        mask_ratio: (N or 1, 1, Ho, Wo), like `update_mask`.
        update_mask: the factor of the bias.
        bias: whether its gradient is wanted.
    """
    out = cpu.channels_last(grad, grad.shape[1], (grad.shape[2], grad.shape[3]))
    if not out.numel():
        return out, torch.zeros(grad.shape[1], dtype=torch.float64) if bias else None
    image = tensors.packed_image(grad)
    ratio, known = (plane[:, 0].contiguous() for plane in (mask_ratio, update_mask))

    def scaled(factor: Any) -> None:
        tensors.native().conv_epilogue(
            image, None, factor, known, out, None, False, "identity", tensors.threads()
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
    algorithm: str,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x and weight in float32 from that of the sums.

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
        algorithm: one of `spec.ALGORITHMS`: what may be taken.
    """
    x = tensors.compute_dtype(x)
    grad_x = grad_weight = None
    if wanted[0]:
        grad_x = _input_gradient(grad, x, weight, g, algorithm)
    if wanted[1] and g.groups == 1:
        grad_weight = weight_gradient(grad, x, weight, g, algorithm)
    left = (wanted[0] and grad_x is None, wanted[1] and grad_weight is None)
    if any(left):
        by_aten = formulas.convolve_backward(
            grad.contiguous(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
            tensors.compute_dtype(weight),
            g,
            left,
        )
        grad_x = by_aten[0] if left[0] else grad_x
        grad_weight = by_aten[1] if left[1] else grad_weight
    return grad_x, grad_weight


def is_whole(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Return whether the kernel is as large as the image: one output, a matrix product."""
    one = grad.shape[2:] == (1, 1) and x.shape[2:] == weight.shape[2:]
    return one and g.groups == g.upsample == 1 and g.padding == (0, 0, 0, 0)


def weight_gradient(
    grad: Tensor, x: Tensor | Sequence[InputPart], weight: Tensor, g: Geometry, algorithm: str
) -> Tensor:
    """The weight's gradient, (filters, C, kh, kw), by our own kernels; groups must be 1.

    x may be the parts that are read as one image, see `cpu.convolve`. In Winograd's domain where
    that is chosen, with a fraction of the multiplications. On one Zen 4 core 3x3, 96 -> 192
    filters, 128^2: 28 ms, as direct sums 64, oneDNN 62 in planes and 73 in channels_last.
    """
    if isinstance(x, Tensor):
        if is_whole(grad, x, weight, g):
            return (grad.flatten(1).T @ x.flatten(1)).view(weight.shape)
        x = cpu.parts_of(x, g)
    result = torch.empty(weight.shape, dtype=torch.float32)
    if grad.numel() == 0:
        return result.zero_()
    shapes = cpu.shapes_of(x, weight, (grad.shape[2], grad.shape[3]))
    chosen = plan(Convolution(g, kind="weight_gradient"), shapes, algorithm)
    tensors.native().conv_weight_gradient(
        [cpu.adjacent(part.x) for part in x],
        [part.known for part in x],
        shapes.tensors,
        tensors.packed_image(grad),
        result,
        chosen.algorithm,
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        g.padding_mode,
        tensors.threads(),
    )
    return result


def _input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str
) -> Tensor | None:
    """Return the gradient of x in float32, or None where oneDNN is to form it."""
    if g.groups != 1:
        return None
    chosen = input_plan(grad, x, weight, g, algorithm)
    if chosen is not None:
        return _run(chosen, grad, x, weight)
    if not _is_ours(grad, x, weight, g):
        return None
    if is_whole(grad, x, weight, g):
        matrix = tensors.compute_dtype(weight).flatten(1)
        return (grad.flatten(1) @ matrix).view(x.shape)
    if g.padding_mode == "zeros":
        return _inner(grad, x, weight, g, algorithm)
    if g.stride != (1, 1):
        return _folded(_strided(grad, x, weight, g, algorithm), x, g)
    grad_x = _inner(grad, x, weight, g._replace(padding_mode="zeros"), algorithm)
    _add_padding(grad_x, grad, weight, g, algorithm)
    return grad_x


def input_plan(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str) -> Plan | None:
    """Return the plan by which our kernels form the gradient of x at one go.

    Of the tensors only the shapes count; groups must be 1. None where the gradient takes more than
    that, or is not our kernels'.
    """
    if g.padding_mode != "zeros":
        return None
    if g.upsample == 1:
        scattered = cpu.transposed_plan(grad, weight, g, "identity", "scattered", algorithm)
        if scattered.kernels is not None:
            return scattered
    if not _is_ours(grad, x, weight, g) or is_whole(grad, x, weight, g):
        return None
    return _inner_plan(grad, x, weight, g, algorithm)


def _inner_plan(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str
) -> Plan | None:
    """Return the plan that `_inner` can do with, if there is one."""
    size = (x.shape[2], x.shape[3])
    if g.stride != (1, 1):
        if not _is_cut(weight, g):
            return None
        return cpu.transposed_plan(
            grad, weight, _unpadded(weight, g), "identity", "transposed", algorithm
        )
    if g.upsample == 2:
        if g.dilation != (1, 1) or min(weight.shape[2:]) == 1:
            return None
        # Pixel i is read as 2 i and 2 i + 1, so its gradient is a convolution with stride 2, by
        # sums of two by two neighbouring taps: (kh + 1) (kw + 1) of them instead of 4 kh kw. The
        # gradient of the doubled image is never made.
        before = [k - 1 - p for k, p in zip(weight.shape[2:], (g.padding[0], g.padding[2]))]
        strided = Geometry((2, 2), (before[0], 0, before[1], 0), (1, 1))
        return _flipped_plan(grad, weight, Convolution(strided, kind="doubled"), size, "direct")
    flipped = _turned(weight, g, (g.padding[0], g.padding[2]))
    return _flipped_plan(grad, weight, flipped, size, algorithm)


def _run(chosen: Plan, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of x by a plan for it."""
    into = cpu.channels_last(x, x.shape[1], (x.shape[2], x.shape[3]))
    cpu.run(chosen, _read(grad), weight, None, into)
    return into


def _read(grad: Tensor) -> list[InputPart]:
    return [InputPart(grad, 1, (grad.shape[1],))]


def _is_ours(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Return whether our own kernels form the gradient of the input."""
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


def _inner(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str) -> Tensor:
    """The gradient without that of the padding."""
    chosen = _inner_plan(grad, x, weight, g, algorithm)
    if chosen is not None:
        return _run(chosen, grad, x, weight)
    if g.stride != (1, 1):
        return formulas.unprepared(_strided(grad, x, weight, g, algorithm), x, g)
    size = (x.shape[2] * g.upsample, x.shape[3] * g.upsample)
    image = _part(grad, weight, g, (g.padding[0], g.padding[2]), size, algorithm)
    return formulas.unprepared(image, x, g)


def _part(
    grad: Tensor, weight: Tensor, g: Geometry, begin: Pair, size: Pair, algorithm: str
) -> Tensor:
    """The gradient of some of the padded image, (height, width) from `begin` on; stride 1."""
    into = cpu.channels_last(grad, weight.shape[1], size)
    chosen = _flipped_plan(grad, weight, _turned(weight, g, begin), size, algorithm)
    cpu.run(chosen, _read(grad), weight, None, into)
    return into


def _turned(weight: Tensor, g: Geometry, begin: Pair) -> Convolution:
    """The convolution with filters and channels exchanged and taps turned; stride 1."""
    before = [d * (k - 1) - b for d, k, b in zip(g.dilation, weight.shape[2:], begin)]
    return Convolution(Geometry((1, 1), (before[0], 0, before[1], 0), g.dilation), kind="flipped")


def _flipped_plan(
    grad: Tensor, weight: Tensor, what: Convolution, size: Pair, algorithm: str
) -> Plan:
    return plan(what, cpu.shapes_of(_read(grad), weight, size), algorithm)


def _is_cut(weight: Tensor, g: Geometry) -> bool:
    """Return whether zero padding is cut off by asking for no more outputs."""
    top, _, left, _ = g.padding
    reach_y, reach_x = (k - 1 for k in weight.shape[2:])
    return g.padding_mode == "zeros" and top <= reach_y and left <= reach_x


def _unpadded(weight: Tensor, g: Geometry) -> Geometry:
    """What a strided convolution does after its padding, or with it where that `_is_cut`."""
    return Geometry(g.stride, (g.padding[0] if _is_cut(weight, g) else 0,) * 4, (1, 1))


def _strided(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str) -> Tensor:
    """The gradient of the padded image, or of x alone where zeros can be cut off; a stride."""
    # Other modes of padding need the whole padded image, folded back afterwards.
    top, bottom, left, right = g.padding
    size = (x.shape[2], x.shape[3])
    if not _is_cut(weight, g):
        size = (size[0] + top + bottom, size[1] + left + right)
    image = cpu.channels_last(x, x.shape[1], size)
    cpu.transposed(grad, weight, None, _unpadded(weight, g), image, algorithm=algorithm)
    return image


def _add_padding(grad_x: Tensor, grad: Tensor, weight: Tensor, g: Geometry, algorithm: str) -> None:
    """Add the gradient of reflected or repeated pixels, strip by strip; stride 1."""
    top, bottom, left, right = g.padding
    height, width = (size * g.upsample for size in grad_x.shape[2:])
    rows, columns = (
        _sources(size, *pads, g) for size, pads in ((height, (top, bottom)), (width, (left, right)))
    )
    for begin, count in ((0, top), (top + height, bottom)):
        if count:
            strip = _part(grad, weight, g, (begin, 0), (count, left + width + right), algorithm)
            inner = _narrow(strip, 3, left, width, columns, g)
            grad_x.index_add_(2, rows[begin : begin + count], inner)
    for begin, count in ((0, left), (left + width, right)):
        if count:
            strip = _part(grad, weight, g, (top, begin), (height, count), algorithm)
            inner = _narrow(strip, 2, 0, height, rows, g)
            grad_x.index_add_(3, columns[begin : begin + count], inner)


def _sources(size: int, before: int, after: int, g: Geometry) -> Tensor:
    """The pixel of x that each coordinate of the padded, upsampled axis repeats."""
    mode = "reflect" if g.padding_mode == "reflect" else "replicate"
    numbers = torch.arange(size, dtype=torch.float32).view(1, 1, size)
    padded = F.pad(numbers, (before, after), mode=mode).view(-1)
    return padded.to(torch.int64) // g.upsample


def _narrow(
    image: Tensor, axis: int, before: int, size: int, sources: Tensor, g: Geometry
) -> Tensor:
    """Bring an axis of a part of the padded image, which is ours to overwrite, to that of x."""
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
