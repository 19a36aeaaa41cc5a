"""The network that zhaoyuzhi/deepfillv2 calls DeepFill v2: gated, normalised, without attention.

It shares two stages of gated convolutions with the paper and little else: separate convolutions for
features and gates, the gate before normalisation and activation, 7x7 and 4x4 kernels, four
input channels in both stages, pictures in [0, 1] with white holes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inpaint_ops.layers import FusedConv2d, GatedConv2d, InstanceNorm2d
from inpaint_ops.models.blocks.pictures import composite, erase, stacked
from inpaint_ops.models.blocks.spectral_norm import SpectralNorm, spectral
from inpaint_ops.models.blocks.two_stage import check_sides

# Channels in multiples of the width, kernel, stride, dilation; blocks 12 and 14 double the size
# first.
ROWS = (
    (1, 7, 1, 1),
    (2, 4, 2, 1),
    (4, 3, 1, 1),
    (4, 4, 2, 1),
    *((4, 3, 1, dilation) for dilation in (1, 1, 2, 4, 8, 16, 1, 1)),
    (2, 3, 1, 1),
    (2, 3, 1, 1),
    (1, 3, 1, 1),
)
DOUBLING = (12, 14)

# Options of the port's training script, the first its default.
PORT_CHOICES = {
    "padding": ("zeros", "reflect", "replicate"),
    "activation": ("leaky_relu", "relu", "selu", "identity"),
    "norm": ("instance", "none"),
}
# Reflection by 16 pixels at a quarter of the size asks for 17 of them; sides are multiples of 8.
MINIMUM_REFLECTED = 72


@dataclass(frozen=True)
class Style:
    """Options that no tensor of the port shows: padding, activation and normalisation."""

    padding: str = "zeros"
    activation: str = "leaky_relu"
    norm: str = "instance"

    @property
    def fused(self) -> str:
        """Return the activation that the operators do; selu is a pass of its own."""
        return "identity" if self.activation == "selu" else self.activation

    def after(self, y: Tensor) -> Tensor:
        """Apply the activation where the operators did not."""
        return F.selu(y) if self.activation == "selu" else y


class _HalvesNorm(nn.Module):
    """Spectral normalisation of the features' and of the gates' filters, each by itself.

    The port also iterates in evaluation mode, so that its answers drift until they have converged;
    here the same picture gives the same answer.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        features, gates = weight.chunk(2)
        self.features = SpectralNorm(features)
        self.gates = SpectralNorm(gates)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.is_meta:  # shapes only
            return weight.clone()
        features, gates = weight.chunk(2)
        return torch.cat([self.features(features), self.gates(gates)])


class _GatedBlock(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, row: tuple[int, int, int, int], at: int, style: Style
    ) -> None:
        super().__init__()
        _, kernel, stride, dilation = row
        self.style = style
        normed = at > 0 and style.norm == "instance"
        self.conv = GatedConv2d(
            inputs,
            outputs,
            kernel,
            stride,
            {7: 3, 4: 1, 3: dilation}[kernel],
            dilation,
            padding_mode=style.padding,
            # The gate comes before the activation here: ReLUs commute with a positive factor.
            activation="identity" if normed else style.fused,
            upsample=2 if at in DOUBLING else 1,
        )
        self.norm = InstanceNorm2d(outputs, activation=style.fused) if normed else None
        if at in DOUBLING:
            norm = _HalvesNorm(self.conv.weight)
            parametrize.register_parametrization(self.conv, "weight", norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return self.style.after(y if self.norm is None else self.norm(y))


class _ToPicture(nn.Module):
    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.conv = GatedConv2d(
            width, 3, 7, padding=3, padding_mode=style.padding, activation="identity"
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x).tanh()
        return y


def _stage(width: int, style: Style) -> nn.Sequential:
    blocks: list[nn.Module] = []
    inputs = 4
    for at, row in enumerate(ROWS):
        blocks.append(_GatedBlock(inputs, row[0] * width, row, at, style))
        inputs = row[0] * width
    return nn.Sequential(*blocks, _ToPicture(width, style))


class ZhaoyuzhiGenerator(nn.Module):
    """Two equal stages.

    Args:
        width: channels of the first layer.
        style: padding, activation and normalisation.
    """

    def __init__(self, width: int = 64, style: Style | None = None) -> None:
        super().__init__()
        self.coarse = _stage(width, style or Style())
        self.refinement = _stage(width, style or Style())

    def forward(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] and (N, 1, H, W) to the pictures of both stages in [-1, 1].

        Raises:
            ValueError: sides that are no multiples of 4.
        """
        check_sides("deepfill_v2.generator", image)
        first: Tensor = self.coarse(stacked(erase(image, hole, 1.0), hole))
        second: Tensor = self.refinement(stacked(composite(image, first, hole), hole))
        return first, second


class ZhaoyuzhiCritic(nn.Module):
    """Six spectrally normalised convolutions, norms on the middle four, a map of scores."""

    def __init__(self, width: int = 64, style: Style | None = None) -> None:
        super().__init__()
        self.style = style or Style()
        fused, inputs = self.style.fused, 4
        for index, outputs in enumerate((width, 2 * width, 4 * width, 4 * width, 4 * width, 1), 1):
            first, last = index == 1, index == 6
            normed = not first and not last and self.style.norm == "instance"
            layer = FusedConv2d(
                inputs,
                outputs,
                7 if first else 4,
                1 if first else 2,
                3 if first else 1,
                padding_mode=self.style.padding,
                activation="identity" if normed or last else fused,
            )
            self.add_module(f"block{index}", spectral(layer, always=True))
            if normed:
                self.add_module(f"norm{index}", InstanceNorm2d(outputs, activation=fused))
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4, H, W), picture in [0, 1] and hole, to (N, 1, H / 32, W / 32) scores."""
        for index in range(1, 7):
            x = self.get_submodule(f"block{index}")(x)
            norm = getattr(self, f"norm{index}", None)
            x = x if norm is None else norm(x)
            x = x if index == 6 else self.style.after(x)
        return x


def read_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options that our own state dict shows if it is of this variant, else none."""
    facts: dict[str, Any] = {}
    stem = state.get("generator.coarse.0.conv.weight")
    if stem is not None:
        facts = {"variant": "zhaoyuzhi", "base_channels": stem.shape[0] // 2}
    judge = state.get("discriminator.block1.parametrizations.weight.original")
    if judge is not None:
        facts |= {"variant": "zhaoyuzhi", "critic_channels": judge.shape[0]}
    return facts
