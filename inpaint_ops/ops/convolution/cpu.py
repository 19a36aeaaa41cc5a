"""CPU side of the convolution operators: calls of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.backends import current_backend
from inpaint_ops.ops import tensors as tensor_rules
from inpaint_ops.ops.convolution import cores, formulas, spec
from inpaint_ops.ops.convolution.cores import CORES
from inpaint_ops.ops.convolution.packed_weights import Form, packed_weights
from inpaint_ops.ops.convolution.spec import Geometry


class Part(NamedTuple):
    """One tensor of a convolution's input; several are read as if concatenated along channels.

    `x` is (N, C, H, W), seen upsampled by the factor `upsample`. `known`, packed bytes (N or 1, P,
    H, W), says which pixels are read, each plane for as many channels as `widths` says; None: all.
    """

    x: Tensor
    upsample: int
    widths: tuple[int, ...]
    known: Tensor | None = None


def parts_of(x: Tensor, g: Geometry) -> tuple[Part]:
    """The input of a convolution that is one tensor."""
    return (Part(x, g.upsample, (x.shape[1],)),)


class Planes(NamedTuple):
    """What the masks of a partial convolution make of its sums.

    Both are float32 (N or 1, Ho, Wo): the result is sum * scale + bias * share, and zero where
    share is.
    """

    scale: Tensor
    share: Tensor


def tiled() -> bool:
    """Whether Winograd cores may be taken."""
    return current_backend() != "direct"


def unpacked(x: Tensor, weight: Tensor, size: tuple[int, int] | None) -> bool:
    """Return whether a weight is read where it lies.

    Not where direct sums are asked for: those do not depend on the batch, this choice does.

    Args:
        x: (N, C, H, W).
        weight: as the layer has it; groups must be 1.
        size: height and width of the result; None: x is scattered, see `scattered`.
    """
    if weight.dtype != torch.float32 or not weight.is_contiguous() or not tiled():
        return False
    height, width = (x.shape[2], x.shape[3]) if size is None else size
    pixels = x.shape[0] * height * width
    worth: bool = tensor_rules.native().unpacked_worth(pixels, weight.numel(), size is None)
    return worth


def choose_core(
    x: Tensor, weight: Tensor, g: Geometry, size: tuple[int, int], whole: bool = True
) -> str:
    """Return the core of a float32 convolution whose result has that size, see `_conv_cores`.

    `whole`: whether all of the result is wanted.
    """
    f, c, kh, kw = weight.shape
    if whole and g.groups == 1 and unpacked(x, weight, size):
        return "unpacked"
    return cores.choose(x.shape[0], (f, c, kh, kw), g, size, tiled())


@lru_cache(maxsize=4096)
def _plan(
    core: str,
    g: Geometry,
    kernel: tuple[int, int],
    tensors: tuple[tuple[int, tuple[int, ...]], ...],
    filters: int,
    gated: bool,
    activation: str,
    step: int,
    isa: str,
) -> Any:
    """The kernels' description of a call; `isa` decides which cores take it."""
    return tensor_rules.native().ConvPlan(
        CORES.index(core),
        kernel,
        g.stride,
        g.dilation,
        (g.padding[0], g.padding[2]),
        spec.PADDING_MODES.index(g.padding_mode),
        tensors,
        filters,
        gated,
        spec.ACTIVATIONS.index(activation),
        step,
    )


def adjacent(x: Tensor) -> Tensor:
    """The tensor with adjacent channels, a copy only where they are not adjacent yet."""
    together = x.shape[1] == 1 or x.stride(1) == 1
    return x if together else tensor_rules.packed_image(x)


def _packed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _channels_last(x: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    shape = (x.shape[0], channels, *size)
    return torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)


class _Call(NamedTuple):
    """One convolution by one of our cores; `step`: the stride of a transposed one, else 0."""

    core: str
    geometry: Geometry
    kernel: tuple[int, int]
    filters: int
    gated: bool = False
    activation: str = "identity"
    step: int = 0

    def run(
        self,
        parts: Sequence[Part],
        packed: Any,
        bias: Tensor | None,
        y: Tensor,
        z: Tensor | None,
        planes: Planes | None = None,
        region: tuple[int, int, int, int] | None = None,
    ) -> None:
        """Fills y, float32 and packed in either layout, and z, which is channels_last."""
        if parts[0].x.numel() == 0:
            return
        images, known, tensors = [], [], []
        for part in parts:
            images.append(part.x)
            known.append(part.known)
            tensors.append((part.upsample, part.widths))
        isa = tensor_rules.native().instruction_set()
        plan = _plan(
            self.core,
            self.geometry,
            self.kernel,
            tuple(tensors),
            self.filters,
            self.gated,
            self.activation,
            self.step,
            isa,
        )
        scale, share = (None, None) if planes is None else map(_packed, planes)
        if self.core == "unpacked":
            plan.run_unpacked(
                images,
                known,
                packed,
                _packed(bias),
                y,
                z,
                scale,
                share,
                tensor_rules.threads(),
            )
            return
        plan.run(
            images,
            known,
            packed,
            _packed(bias),
            y,
            z,
            scale,
            share,
            region,
            tensor_rules.threads(),
        )


def forward(
    x: Tensor | Sequence[Part],
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    *,
    gated: bool,
    activation: str,
    y: Tensor,
    z: Tensor | None = None,
    planes: Planes | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Convolution of float32 (or narrower, widened) values and everything fused after it.

    Args:
        x: (N, C, H, W), or its parts, in float32.
        weight: (filters, C / groups, kh, kw), any floating dtype but float64.
        bias: (filters,) or None.
        g: geometry; its factor of upsampling is that of all parts, or 1 if they have several.
        gated: whether the filters are features and gates.
        activation: of the features.
        y: memory for the result, from `_conv.result_like`.
        z: where the sums before activation and gate go, from `_conv.filters_like`.
        planes: of a partial convolution.
        region: (top, bottom, left, right), half open: the outputs wanted; the rest of y keeps what
            it holds.

    Returns:
        The result: y, or other memory like it.
    """
    size = (y.shape[2], y.shape[3])
    parts: Sequence[Part]
    parts = parts_of(tensor_rules.compute_dtype(x), g) if isinstance(x, Tensor) else x
    bias = None if bias is None else tensor_rules.compute_dtype(bias)
    core = choose_core(parts[0].x, weight, g, size, region is None)
    kernel = (weight.shape[2], weight.shape[3])
    call = _Call(core, g, kernel, weight.shape[0], gated, activation)
    if core == "aten":
        whole = _forward_aten(call, joined(parts, g), weight, bias, z, planes)
        if region is not None:
            top, bottom, left, right = region
            y[:, :, top:bottom, left:right] = whole[:, :, top:bottom, left:right]
            return y
        return whole.to(y.dtype) if whole.stride() == y.stride() else y.copy_(whole)
    if core == "unpacked":
        packed = weight.detach()
    else:
        packed = packed_weights.of(weight, Form(core, g.stride, gated))
    into = _float32_like(y)
    if into is not y and region is not None:
        into.copy_(y)
    call.run(parts, packed, bias, into, z, planes, region)
    return y if into is y else y.copy_(into)


def joined(parts: Sequence[Part], g: Geometry) -> Tensor:
    """The input as one tensor, zero where it may not be read, for `g` to upsample if it does."""
    images = []
    for part in parts:
        x = part.x
        if part.known is not None:
            known = part.known.repeat_interleave(torch.tensor(part.widths), 1) != 0
            x = torch.where(known, x, x.new_zeros(()))
        images.append(formulas.upsampled(x, part.upsample // g.upsample))
    return images[0] if len(images) == 1 else torch.cat(images, 1)


def _float32_like(y: Tensor) -> Tensor:
    """The tensor itself, or memory for what it is to hold, if a kernel cannot write to it."""
    packed = y.is_contiguous() or y.is_contiguous(memory_format=torch.channels_last)
    if packed and y.dtype == torch.float32:
        return y
    return _channels_last(y, y.shape[1], (y.shape[2], y.shape[3]))


def _forward_aten(
    call: _Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None,
    planes: Planes | None,
) -> Tensor:
    g = call.geometry
    if x.shape[1] > 1:
        x = x.contiguous(memory_format=torch.channels_last)
    wide = tensor_rules.compute_dtype(weight)
    if call.activation == "identity" and not call.gated and planes is None:
        return formulas.convolve(x, wide, bias, g)
    sums = formulas.convolve(x, wide, None, g).contiguous(memory_format=torch.channels_last)
    y = sums
    if call.gated:
        y = _channels_last(sums, call.filters // 2, (sums.shape[2], sums.shape[3]))
    if sums.numel():
        tensor_rules.native().conv_epilogue(
            sums,
            _packed(bias),
            None if planes is None else _packed(planes.scale),
            None if planes is None else _packed(planes.share),
            y,
            z,
            call.gated,
            spec.ACTIVATIONS.index(call.activation),
            tensor_rules.threads(),
        )
    return y


def finish(z: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Bias and activation of sums that are ours to overwrite."""
    z = z.contiguous(memory_format=torch.channels_last)
    code = spec.ACTIVATIONS.index(activation)
    packed = _packed(None if bias is None else tensor_rules.compute_dtype(bias))
    tensor_rules.native().conv_epilogue(
        z, packed, None, None, z, None, False, code, tensor_rules.threads()
    )
    return z


def transposed_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    activation: str,
    y: Tensor,
) -> None:
    """Transposed convolution: each remainder of the output modulo the stride is a convolution."""
    wide = tensor_rules.compute_dtype(x)
    bias = None if bias is None else tensor_rules.compute_dtype(bias)
    kernel = (weight.shape[2], weight.shape[3])
    if unpacked(x, weight, None):
        g = Geometry((stride, stride), (padding,) * 4, (1, 1))
        into = _float32_like(y)
        scattered(wide, weight, bias, g, into, activation)
        if into is not y:
            y.copy_(into)
        return
    core = transposed_core(x, weight, stride, tiled())
    form = Form(core, step=stride, padding=(padding, padding))
    g = Geometry((1, 1), (padding,) * 4, (1, 1))
    call = _Call(core, g, kernel, weight.shape[1], activation=activation, step=stride)
    into = _float32_like(y)
    call.run(parts_of(wide, g), packed_weights.of(weight, form), bias, into, None)
    if into is not y:
        y.copy_(into)


def scattered(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    y: Tensor,
    activation: str = "identity",
) -> None:
    """Fill y with a transposed convolution by a weight that is read where it lies.

    Pixel i of x adds tap t to pixel i stride + t dilation - padding of y: also the gradient of a
    convolution's input, from that of its sums.

    Args:
        x: (N, C, H, W) float32.
        weight: (C, filters, kh, kw), one that `unpacked` approves.
        bias: (filters,) float32 or None.
        g: the convolution that this is the adjoint of; zero padding.
        y: (N, filters, Ho, Wo) float32, packed in either layout.
        activation: of the result.
    """
    kernel = (weight.shape[2], weight.shape[3])
    call = _Call("unpacked", g, kernel, weight.shape[1], activation=activation, step=1)
    call.run((Part(x, 1, (x.shape[1],)),), weight.detach(), bias, y, None)


def transposed_core(x: Tensor, weight: Tensor, stride: int, tiled: bool) -> str:
    """The core of the largest of its convolutions."""
    c, f, kh, kw = weight.shape
    g = Geometry((1, 1), (0, 0, 0, 0), (1, 1))
    shape = (f, c, -(-kh // stride), -(-kw // stride))
    return cores.choose(x.shape[0], shape, g, (x.shape[2], x.shape[3]), tiled)
