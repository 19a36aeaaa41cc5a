"""The network that zhaoyuzhi/deepfillv2 calls DeepFill v2: gated, normalised, without attention.

It shares two stages of gated convolutions with the paper and little else: separate convolutions for
features and gates, the gate before normalisation and activation, 7x7 and 4x4 kernels, four
input channels in both stages, pictures in [0, 1] with white holes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inpaint_ops.layers import FusedConv2d, GatedConv2d, InstanceNorm2d
from inpaint_ops.models._blocks import (
    SpectralNorm,
    composite,
    erase,
    spectral,
    spectral_keys,
    stacked,
)
from inpaint_ops.models._layouts import Layout, Place
from inpaint_ops.models._two_stage import check_sides

# Channels in multiples of the width, kernel, stride, dilation; stages 12 and 14 double first.
_ROWS = (
    (1, 7, 1, 1),
    (2, 4, 2, 1),
    (4, 3, 1, 1),
    (4, 4, 2, 1),
    *((4, 3, 1, dilation) for dilation in (1, 1, 2, 4, 8, 16, 1, 1)),
    (2, 3, 1, 1),
    (2, 3, 1, 1),
    (1, 3, 1, 1),
)
_DOUBLING = (12, 14)


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
        features, gates = weight.chunk(2)
        return torch.cat([self.features(features), self.gates(gates)])


class _GatedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, row: tuple[int, int, int, int], at: int) -> None:
        super().__init__()
        _, kernel, stride, dilation = row
        self.conv = GatedConv2d(
            inputs,
            outputs,
            kernel,
            stride,
            {7: 3, 4: 1, 3: dilation}[kernel],
            dilation,
            activation="leaky_relu" if at == 0 else "identity",
            upsample=2 if at in _DOUBLING else 1,
        )
        self.norm = InstanceNorm2d(outputs, activation="leaky_relu") if at else None
        if at in _DOUBLING:
            norm = _HalvesNorm(self.conv.weight)
            parametrize.register_parametrization(self.conv, "weight", norm)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            # The gate comes before the activation here: leaky ReLU commutes with a positive factor.
            y: Tensor = self.conv(x)
            return y
        z: Tensor = self.norm(self.conv(x))
        return z


class _ToPicture(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = GatedConv2d(width, 3, 7, padding=3, activation="identity")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x).tanh()
        return y


def _stage(width: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    inputs = 4
    for at, row in enumerate(_ROWS):
        blocks.append(_GatedBlock(inputs, row[0] * width, row, at))
        inputs = row[0] * width
    return nn.Sequential(*blocks, _ToPicture(width))


class ZhaoyuzhiGenerator(nn.Module):
    """Two equal stages.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.coarse = _stage(width)
        self.refinement = _stage(width)

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
    """Six spectrally normalised convolutions, instance norm on the middle four, a map of scores."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        inputs = 4
        for index, outputs in enumerate((width, 2 * width, 4 * width, 4 * width, 4 * width, 1), 1):
            first, last = index == 1, index == 6
            layer = FusedConv2d(
                inputs,
                outputs,
                7 if first else 4,
                1 if first else 2,
                3 if first else 1,
                activation="leaky_relu" if first else "identity",
            )
            self.add_module(f"block{index}", spectral(layer, always=True))
            if not first and not last:
                self.add_module(f"norm{index}", InstanceNorm2d(outputs, activation="leaky_relu"))
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4, H, W), picture in [0, 1] and hole, to (N, 1, H / 32, W / 32) scores."""
        for layer in self.children():
            x = layer(x)
        return x


def _generator_keys(network: ZhaoyuzhiGenerator) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for stage in ("coarse", "refinement"):
        for at in range(len(_ROWS) + 1):
            ours, public = f"{stage}.{at}.conv", f"{stage}.{at}"
            for part, (name, half) in enumerate((("conv2d", "features"), ("mask_conv2d", "gates"))):
                if at not in _DOUBLING:
                    keys[f"{public}.{name}.weight"] = (f"{ours}.weight", part, 2)
                    keys[f"{public}.{name}.bias"] = (f"{ours}.bias", part, 2)
                    continue
                port, norm = f"{public}.gated_conv2d.{name}.module", f"{ours}.parametrizations"
                keys[f"{port}.bias"] = (f"{ours}.bias", part, 2)
                keys[f"{port}.weight_bar"] = (f"{norm}.weight.original", part, 2)
                keys[f"{port}.weight_u"] = f"{norm}.weight.0.{half}._u"
                keys[f"{port}.weight_v"] = f"{norm}.weight.0.{half}._v"
    return keys


def _critic_keys(network: ZhaoyuzhiCritic) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for index in range(1, 7):
        port, ours = f"block{index}.conv2d.module", f"block{index}"
        keys[f"{port}.bias"] = f"{ours}.bias"
        keys.update(spectral_keys(port, ours, "weight_bar"))
    return keys


def _generator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state["coarse.0.conv2d.weight"].shape[0]
    return {"variant": "zhaoyuzhi", "base_channels": width}


def _critic_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state["block1.conv2d.module.weight_bar"].shape[0]
    return {"variant": "zhaoyuzhi", "critic_channels": width}


LAYOUTS = (
    Layout(
        "zhaoyuzhi",
        "generator",
        _generator_keys,
        signature=("coarse.0.conv2d.weight", "coarse.0.mask_conv2d.weight"),
        options=_generator_options,
        optional=(),
        licence="none stated",
        source="zhaoyuzhi/deepfillv2",
    ),
    Layout(
        "zhaoyuzhi",
        "discriminator",
        _critic_keys,
        signature=("block1.conv2d.module.weight_bar", "block6.conv2d.module.weight_bar"),
        options=_critic_options,
        optional=(),
        licence="none stated",
        source="zhaoyuzhi/deepfillv2",
    ),
)
