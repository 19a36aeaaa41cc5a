"""Contestants of a convolution layer: inputs, our operator and the public formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import inpaint_ops
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.harness.plain import Plain, of_module
from inpaint_ops.reference.fused_conv2d import activate

# Sums of order one err by a hundredth of this in float32.
_KINK = 1e-4


def draw(layer: Layer) -> tuple[Tensor, ...]:
    """Return the input or its parts in channels_last, weight and bias, for sums of order one."""
    generator = torch.Generator().manual_seed(layer.multiplications % 2**31)
    images = [
        torch.randn(1, channels, *[layer.size // factor] * 2, generator=generator)
        for channels, factor in layer.parts or ((layer.channels, 1),)
    ]
    shape = (layer.filters, layer.channels)
    if layer.op == "transposed":
        shape = (layer.channels, layer.filters)
    weight = torch.randn(*shape, layer.kernel, layer.kernel, generator=generator)
    weight /= (layer.channels * layer.kernel**2) ** 0.5
    bias = torch.randn(layer.filters, generator=generator)
    last = (x.contiguous(memory_format=torch.channels_last) for x in images)
    return *last, weight, bias


def upstream(layer: Layer) -> Tensor:
    """Return a gradient for the layer's result, in channels_last.

    Zero where the activation has its kink: rounding decides there which slope an implementation
    takes, and float64 may take the other.
    """
    generator = torch.Generator().manual_seed(1)
    shape = (1, layer.out, layer.out_size, layer.out_size)
    gradient = torch.randn(shape, generator=generator)
    if layer.activation in ("relu", "leaky_relu"):
        with torch.no_grad():
            near = public(replace(layer, activation="identity"))(*draw(layer)).abs() < _KINK
        gradient.masked_fill_(near, 0)
    return gradient.contiguous(memory_format=torch.channels_last)


def masks(layer: Layer) -> tuple[Tensor, ...]:
    """Return a mask of one channel for each part.

    The last part, which an encoder passes on, has a centred hole of a quarter of its area.
    """
    found = tuple(torch.ones(1, 1, *[layer.size // factor] * 2) for _, factor in layer.parts)
    quarter = layer.size // 4
    found[-1][..., quarter : 3 * quarter, quarter : 3 * quarter] = 0
    return found


@lru_cache(maxsize=8)
def masks_like(layer: Layer, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return `masks` on a device, copied there once: a call that copies would be timed waiting."""
    return tuple(one.to(device, dtype) for one in masks(layer))


@lru_cache(maxsize=8)
def _public_masks(layer: Layer, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the same with as many channels as the images, as the public layer has them."""
    parts = zip(masks_like(layer, device, dtype), layer.parts)
    return tuple(mask.repeat(1, channels, 1, 1) for mask, (channels, _) in parts)


def ours(layer: Layer) -> Callable[..., Any]:
    """Return our operator with the layer's options."""
    where: dict[str, Any] = {"stride": layer.stride, "padding": layer.pad}
    if layer.op == "transposed":
        return lambda x, weight, bias: inpaint_ops.fused_conv_transpose2d(
            x, weight, bias, activation=layer.activation, **where
        )
    if layer.op == "partial":
        factors = tuple(factor for _, factor in layer.parts)

        def partial_layer(*args: Tensor) -> Tensor:
            *images, weight, bias = args
            known = masks_like(layer, weight.device, torch.bool)
            return inpaint_ops.partial_conv2d(
                tuple(images), known, weight, bias, upsample=factors, **where
            )[0]

        return partial_layer
    function = getattr(inpaint_ops, f"{layer.op}_conv2d")
    where.update(
        dilation=layer.dilation,
        upsample=layer.upsample,
        padding_mode=layer.padding_mode,
        activation=layer.activation,
    )
    return lambda x, weight, bias: function(x, weight, bias, **where)


def partial_public(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> tuple[Tensor, Tensor]:
    """Return result and mask by NVIDIA/partialconv: models/partialconv2d.py, commit 610d373f."""
    window = weight[0].numel()
    with torch.no_grad():
        total = F.conv2d(mask, torch.ones_like(weight), None, stride, padding)
        ratio = window / (total + 1e-8)
        updated = total.clamp(0, 1)
        ratio = ratio * updated
    raw = F.conv2d(x * mask, weight, bias, stride, padding)
    if bias is None:
        return raw * ratio, updated
    view = bias.view(1, -1, 1, 1)
    return ((raw - view) * ratio + view) * updated, updated


def concatenated(layer: Layer, images: Sequence[Tensor]) -> Tensor:
    """Return the parts of an image, or their masks, as the public code joins them."""
    whole = [
        x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")
        for x, (_, factor) in zip(images, layer.parts)
    ]
    return whole[0] if len(whole) == 1 else torch.cat(whole, 1)


def public(layer: Layer) -> Callable[..., Any]:
    """Return the formula of the method's public code, in the layout of that code."""

    def transposed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = F.conv_transpose2d(x, weight, bias, layer.stride, layer.pad)
        return activate(z, layer.activation)

    def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padding = layer.pad
        if layer.upsample > 1:
            x = F.interpolate(x, scale_factor=layer.upsample, mode="nearest")
        if layer.padding_mode != "zeros":
            x = F.pad(x, [padding] * 4, mode=layer.padding_mode)
            padding = 0
        z = F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation)
        if layer.op == "fused":
            return activate(z, layer.activation)
        features, gates = z.chunk(2, 1)
        return activate(features, layer.activation) * torch.sigmoid(gates)

    if layer.op == "transposed":
        return transposed
    if layer.op == "partial":

        def partial_layer(*args: Tensor) -> Tensor:
            *images, weight, bias = args
            valid = _public_masks(layer, weight.device, weight.dtype)
            return _partial_public(layer, images, valid, weight, bias)

        return partial_layer
    return convolved


def _partial_public(
    layer: Layer, images: Sequence[Tensor], valid: Sequence[Tensor], weight: Tensor, bias: Tensor
) -> Tensor:
    x = concatenated(layer, images)
    mask = concatenated(layer, [m.expand(len(x), -1, -1, -1) for m in valid])
    return partial_public(x, mask, weight, bias, layer.stride, layer.pad)[0]


class PublicLayer(nn.Module):
    """The public formula with its weights inside; a partial layer takes masks after its images."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        *_, weight, bias = draw(layer)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, *given: Tensor) -> Tensor:
        """Return the layer's result."""
        if self.layer.op != "partial":
            result: Tensor = public(self.layer)(*given, self.weight, self.bias)
            return result
        images, valid = given[: len(given) // 2], given[len(given) // 2 :]
        return _partial_public(self.layer, images, valid, self.weight, self.bias)


def plain_layer(layer: Layer) -> Plain:
    """Return the public formula as other engines take it."""
    images = draw(layer)[:-2]
    valid: tuple[Tensor, ...] = ()
    if layer.op == "partial":
        valid = _public_masks(layer, images[0].device, images[0].dtype)
    return of_module(PublicLayer(layer), (*images, *valid))
