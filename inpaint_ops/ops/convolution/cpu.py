"""CPU side of the convolution operators: calls of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import formulas, spec
from inpaint_ops.ops.convolution.packed_weights import packed_weights
from inpaint_ops.ops.convolution.plan import Convolution, Plan, Shapes, in_place, plan
from inpaint_ops.ops.convolution.spec import Geometry, Pair
from inpaint_ops.ops.partly import Reads, Wanted

_ALL = Wanted()


class InputPart(NamedTuple):
    """One tensor of a convolution's input; several are read as if concatenated along channels.

    `x` is (N, C, H, W), seen upsampled by the factor `upsample`. `known`, packed bytes (N or 1, P,
    H, W), says which pixels are read, each plane for as many channels as `widths` says; None: all.
    """

    x: Tensor
    upsample: int
    widths: tuple[int, ...]
    known: Tensor | None = None


class MaskPlanes(NamedTuple):
    """Two factors that the masks of a partial convolution give.

    Both are float32 (N or 1, Ho, Wo): the result is sum * mask_ratio + bias * update_mask, and zero
    where update_mask is.
    """

    mask_ratio: Tensor
    update_mask: Tensor


def parts_of(x: Tensor, g: Geometry) -> tuple[InputPart]:
    """Return the input of a convolution that is one tensor."""
    return (InputPart(x, g.upsample, (x.shape[1],)),)


def shapes_of(
    parts: Sequence[InputPart], weight: Tensor, size: Pair, *, in_place: bool = False
) -> Shapes:
    """Return the shapes of a convolution."""
    filters, channels, kh, kw = weight.shape
    read = tuple([(part.upsample, part.widths) for part in parts])
    return Shapes(parts[0].x.shape[0], size, (filters, channels, kh, kw), read, in_place)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    *,
    gated: bool,
    keep: bool,
    algorithm: str,
    wanted: Wanted = _ALL,
) -> tuple[Tensor, Tensor]:
    """Compute `fused_conv2d` or `gated_conv2d`: the result and, if `keep`, the pre-activation.

    `wanted`: see `convolve`.
    """
    size = g.out_size(x, weight)
    y, pre_activation = spec.results_like(x, weight, size, gated=gated, keep=keep)
    if y.numel():
        y = taken(wanted, y)
        y = convolve(
            parts_of(tensors.compute_dtype(x), g),
            weight,
            bias,
            Convolution(g, gated, activation),
            y,
            pre_activation if keep else None,
            algorithm=algorithm,
            wanted=wanted,
        )
    return y, pre_activation


def convolve(
    parts: Sequence[InputPart],
    weight: Tensor,
    bias: Tensor | None,
    what: Convolution,
    y: Tensor,
    pre_activation: Tensor | None = None,
    *,
    algorithm: str,
    planes: MaskPlanes | None = None,
    wanted: Wanted = _ALL,
) -> Tensor:
    """Convolve float32 values and do everything fused after it.

    Args:
        parts: of the input, in float32.
        weight: (filters, C / groups, kh, kw), any floating dtype but float64.
        bias: (filters,) or None.
        what: a "forward" convolution; its factor of upsampling is that of all parts, or 1 if they
            have several.
        y: memory for the result, from `spec.result_like`.
        pre_activation: where the sums before activation and gate go.
        algorithm: one of `spec.ALGORITHMS`: what may be taken.
        planes: of a partial convolution.
        wanted: the pixels that are to be computed; the others may hold anything.

    Returns:
        The result: y, or other memory like it.
    """
    shapes = shapes_of(parts, weight, (y.shape[2], y.shape[3]), in_place=in_place(weight))
    chosen = plan(what, shapes, algorithm)
    bias = None if bias is None else tensors.compute_dtype(bias)
    if chosen.kernels is None:
        x = joined(parts, what.geometry)
        whole = _convolve_by_aten(x, weight, bias, what, pre_activation, planes)
        return whole.to(y.dtype) if whole.stride() == y.stride() else y.copy_(whole)
    into = _float32_like(y)
    run(chosen, parts, weight, bias, into, pre_activation, planes, wanted)
    return y if into is y else y.copy_(into)


def run(
    chosen: Plan,
    parts: Sequence[InputPart],
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    pre_activation: Tensor | None = None,
    planes: MaskPlanes | None = None,
    wanted: Wanted = _ALL,
) -> None:
    """Fill y, float32 and packed in either layout, and pre_activation by our kernels."""
    if parts[0].x.numel() == 0:
        return
    images = [part.x for part in parts]
    known = [part.known for part in parts]
    ratio, update = (None, None) if planes is None else map(_packed, planes)
    after = (_packed(bias), y, pre_activation, ratio, update)
    assert chosen.kernels is not None
    if chosen.form is None:
        packed_weights.count(weight)
        chosen.kernels.run_unpacked(images, known, weight.detach(), *after, tensors.threads())
        return
    packed = packed_weights.of(weight, chosen.form)
    where = (wanted.pixels, wanted.anchor)
    chosen.kernels.run(images, known, packed, *after, *where, tensors.threads())


def taken(wanted: Wanted, y: Tensor) -> Tensor:
    """Return the memory for a result like y: `Wanted.into` if the kernels can write to it."""
    into = wanted.into
    if into is None or into.dtype != torch.float32 or into.shape != y.shape:
        return y
    return into if into.stride() == y.stride() else y


def reads(
    chosen: Plan, images: Sequence[Tensor], out: Pair, wanted: Tensor, anchor: Pair | None
) -> Reads | None:
    """Return what wanted pixels of a convolution depend on, their last bits included.

    Args:
        chosen: the plan.
        images: the tensors of the input, of which only shapes count.
        out: height and width of the result.
        wanted: bytes (N, Ho, Wo), not 0 = wanted.
        anchor: see `Wanted`; None: the best.

    Returns:
        None where the plan reads and computes everything.
    """
    if chosen.kernels is None or chosen.form is None:
        return None
    maps = [torch.zeros((x.shape[0], *x.shape[2:]), dtype=torch.uint8) for x in images]
    share, place = chosen.kernels.reads(wanted, out, maps, anchor)
    return Reads(maps, share, place)


def touched(
    chosen: Plan,
    images: Sequence[Tensor],
    out: Pair,
    changed: Sequence[Tensor | None],
    anchor: Pair,
) -> Tensor | None:
    """Return which pixels of a convolution depend on changed ones, bytes (N, Ho, Wo).

    Args:
        chosen: the plan.
        images: the tensors of the input, of which only shapes count.
        out: height and width of the result.
        changed: of each of the images, bytes (N, H, W), not 0 = changed; None: nothing.
        anchor: see `Wanted`.

    Returns:
        None where the plan reads everything for every pixel.
    """
    if chosen.kernels is None or chosen.form is None:
        return None
    maps = []
    for x, one in zip(images, changed):
        shape = (x.shape[0], *x.shape[2:])
        given = torch.zeros(shape, dtype=torch.uint8) if one is None else one.expand(shape)
        maps.append(given.contiguous())
    found = torch.zeros((images[0].shape[0], *out), dtype=torch.uint8)
    chosen.kernels.touches(maps, found, anchor)
    return found


def transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    y: Tensor,
    *,
    activation: str = "identity",
    kind: str = "transposed",
    algorithm: str,
    wanted: Wanted = _ALL,
) -> bool:
    """Fill y with a transposed convolution, if our kernels take it; return whether they do.

    Each remainder of the output modulo the stride is a convolution. Pixel i of x adds tap t to
    pixel i stride + t dilation - padding of y: also the gradient of a convolution's input, from
    that of its sums.

    Args:
        x: (N, C, H, W).
        weight: (C, filters, kh, kw).
        bias: (filters,) or None.
        g: the convolution that this is the adjoint of; zero padding.
        y: (N, filters, Ho, Wo), any dtype but float64.
        activation: of the result.
        kind: "transposed", or "scattered": see `Convolution`.
        algorithm: one of `spec.ALGORITHMS`: what may be taken.
        wanted: see `convolve`.
    """
    chosen = transposed_plan(x, weight, g, activation, kind, algorithm)
    if chosen.kernels is None:
        return False
    into = _float32_like(y)
    bias = None if bias is None else tensors.compute_dtype(bias)
    parts = (InputPart(tensors.compute_dtype(x), 1, (x.shape[1],)),)
    run(chosen, parts, weight, bias, into, wanted=wanted)
    if into is not y:
        y.copy_(into)
    return True


def adjoint_plan(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str) -> Plan:
    """Return the plan of the gradient of x, from that of the sums of a transposed convolution."""
    size = (x.shape[2], x.shape[3])
    shapes = shapes_of(parts_of(grad, g), weight, size, in_place=in_place(weight))
    return plan(Convolution(g, backward=True), shapes, algorithm)


def transposed_plan(
    x: Tensor,
    weight: Tensor,
    g: Geometry,
    activation: str,
    kind: str,
    algorithm: str,
    *,
    backward: bool = False,
) -> Plan:
    """Return the plan of `transposed`, or of a gradient by it."""
    channels, filters, kh, kw = weight.shape
    shapes = Shapes(
        x.shape[0],
        (x.shape[2], x.shape[3]),
        (channels, filters, kh, kw),
        ((1, (channels,)),),
        in_place(weight),
    )
    what = Convolution(g, activation=activation, kind=kind, backward=backward)
    return plan(what, shapes, algorithm)


def adjacent(x: Tensor) -> Tensor:
    """Return the tensor with adjacent channels, a copy only where they are not adjacent yet."""
    together = x.shape[1] == 1 or x.stride(1) == 1
    return x if together else tensors.packed_image(x)


def channels_last(x: Tensor, channels: int, size: Pair) -> Tensor:
    """Return memory of a float32 image in channels_last, with the batch of x."""
    shape = (x.shape[0], channels, *size)
    return torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)


def joined(parts: Sequence[InputPart], g: Geometry) -> Tensor:
    """Return the input as one tensor for `g` to read, zero where it may not be read."""
    images = []
    for part in parts:
        x = part.x
        if part.known is not None:
            known = part.known.repeat_interleave(torch.tensor(part.widths), 1) != 0
            x = torch.where(known, x, x.new_zeros(()))
        images.append(formulas.upsampled(x, part.upsample // g.upsample))
    return images[0] if len(images) == 1 else torch.cat(images, 1)


def _packed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _float32_like(y: Tensor) -> Tensor:
    """Return the tensor itself or, if no kernel can write to it, memory for what it is to hold."""
    packed = y.is_contiguous() or y.is_contiguous(memory_format=torch.channels_last)
    if packed and y.dtype == torch.float32:
        return y
    return channels_last(y, y.shape[1], (y.shape[2], y.shape[3]))


def _convolve_by_aten(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    what: Convolution,
    pre_activation: Tensor | None,
    planes: MaskPlanes | None,
) -> Tensor:
    g = what.geometry
    if x.shape[1] > 1:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = tensors.compute_dtype(weight)
    if what.activation == "identity" and not what.gated and planes is None:
        return formulas.convolve(x, weight, bias, g)
    sums = formulas.convolve(x, weight, None, g).contiguous(memory_format=torch.channels_last)
    y = sums
    if what.gated:
        y = channels_last(sums, sums.shape[1] // 2, (sums.shape[2], sums.shape[3]))
    _epilogue(sums, bias, planes, y, pre_activation, what.gated, what.activation)
    return y


def finish(sums: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Add the bias to sums that are ours to overwrite, and apply the activation."""
    sums = sums.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else tensors.compute_dtype(bias)
    _epilogue(sums, bias, None, sums, None, False, activation)
    return sums


def _epilogue(sums: Tensor, bias: Tensor | None, planes: MaskPlanes | None, *rest: Any) -> None:
    if sums.numel():
        ratio, update = (None, None) if planes is None else map(_packed, planes)
        y, pre_activation, gated, activation = rest
        tensors.native().conv_epilogue(
            sums,
            _packed(bias),
            ratio,
            update,
            y,
            pre_activation,
            gated,
            activation,
            tensors.threads(),
        )
