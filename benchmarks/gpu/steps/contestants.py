"""Contestants of a convolution layer on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.benchmarks.cases import conv_contestants
from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers
from inpaint_ops.benchmarks.gpu.steps.task import Settings, multiplied_by, on_kernels

Call = Callable[[], Any]

# Those of the first come first: their layers are the ones that predictions were made for.
_ORDER = ("deepfill_v2", "partial_conv_unet")
_SMALL = (
    Layer("rehearsal", "gated", 5, 4, 8, activation="elu"),
    Layer("rehearsal", "gated", 4, 4, 4, upsample=2),
    Layer("rehearsal", "partial", 7, 4, 4, parts=((4, 2), (3, 1))),
    Layer("rehearsal", "transposed", 3, 4, 4, kernel=4, stride=2, padding=1),
)


def layers(settings: Settings) -> list[Layer]:
    """Return the convolutions of the methods, or a few tiny ones for a rehearsal."""
    if settings.small:
        return list(_SMALL)
    rank = {name: i for i, name in enumerate(_ORDER)}
    return sorted(all_layers(), key=lambda layer: rank.get(layer.method, len(rank)))


@dataclass(frozen=True)
class Work:
    """A layer with its inputs on a device.

    Args:
        layer: which.
        batch: images.
        backward: take the gradients of all inputs too.
        images: the inputs in channels_last memory; `plain`: the same, contiguous.
        parameters: weight and bias.
        gradient: of the result.
    """

    layer: Layer
    batch: int
    backward: bool
    images: list[Tensor]
    plain: list[Tensor]
    parameters: list[Tensor]
    gradient: Tensor

    @classmethod
    def of(
        cls, layer: Layer, batch: int, backward: bool, dtype: torch.dtype, device: torch.device
    ) -> Work:
        """Draw the inputs."""
        *images, weight, bias = (t.to(device, dtype) for t in conv_contestants.draw(layer))
        last = torch.channels_last
        images = [x.expand(batch, *x.shape[1:]).contiguous(memory_format=last) for x in images]
        shape = (batch, layer.out, layer.out_size, layer.out_size)
        gradient = torch.randn(shape, dtype=dtype, device=device)
        work = cls(
            layer,
            batch,
            backward,
            images,
            [x.contiguous() for x in images],
            [weight, bias],
            gradient.contiguous(memory_format=last),
        )
        for t in (*work.images, *work.plain, *work.parameters):
            t.requires_grad_(backward)
        return work

    def call(self, function: Callable[..., Any], *, plain: bool = False) -> Call:
        """Return the call of a function, with the gradients if the work has them."""
        images = self.plain if plain else self.images
        gradient = self.gradient.contiguous() if plain else self.gradient

        def forward() -> Tensor:
            result: Tensor = function(*images, *self.parameters)
            return result

        def both() -> Any:
            return torch.autograd.grad(forward(), [*images, *self.parameters], gradient)

        return both if self.backward else forward

    def contestants(self, settings: Settings) -> dict[str, Call]:
        """Return ours in three ways and eager's in two layouts, by name."""
        mine = self.call(conv_contestants.ours(self.layer))
        formula = conv_contestants.public(self.layer)
        return {
            "ours": partial(_run, mine, "", settings),
            "fused": partial(_run, mine, "fused", settings),
            "library+epilogue": partial(_run, mine, "library", settings),
            "eager": self.call(formula, plain=True),
            "eager channels_last": self.call(formula),
        }

    def exact(self) -> Tensor:
        """Return the result in float64, for a layer without gradients."""
        wide = (t.detach().double() for t in (*self.images, *self.parameters))
        result: Tensor = conv_contestants.public(self.layer)(*wide)
        return result


def _run(call: Call, way: str, settings: Settings) -> Any:
    with multiplied_by(way), on_kernels(settings):
        return call()


def bare(layer: Layer) -> Layer:
    """Return the layer without activation: it takes as long, whoever multiplies."""
    return replace(layer, activation="identity")
