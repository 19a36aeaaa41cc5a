"""GMCNN: three columns of different receptive fields, trained with ID-MRF and confidence."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops.checkpoints import State
from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models._blocks import (
    erase,
    initialise,
    signed,
    spectral,
    spectral_keys,
    stacked,
    unsigned,
)
from inpaint_ops.models._gmcnn_training import GMCNNRecipe
from inpaint_ops.models._layouts import Implied, Layout
from inpaint_ops.models._model import InpaintingModel
from inpaint_ops.models._registry import register_model
from inpaint_ops.ops import _common

# Layer, its index in the public module list, output channels in multiples of base_channels,
# stride, dilation; names starting with "up" double the size first, by nearest neighbours.
_TRUNK = (
    ("stem", 0, 1, 1, 1),
    ("down1", 1, 2, 2, 1),
    ("same", 2, 2, 1, 1),
    ("down2", 3, 4, 2, 1),
    ("quarter1", 4, 4, 1, 1),
    ("quarter2", 5, 4, 1, 1),
    ("dilated2", 6, 4, 1, 2),
    ("dilated4", 7, 4, 1, 4),
    ("dilated8", 8, 4, 1, 8),
    ("dilated16", 9, 4, 1, 16),
    ("quarter3", 10, 4, 1, 1),
    ("quarter4", 11, 4, 1, 1),
)
_UP1 = (("up1", 13, 2, 1, 1), ("after_up1", 14, 2, 1, 1))
_UP2 = (("up2", 16, 1, 1, 1), ("after_up2", 17, 1, 1, 1))
# Kernel, layers, and the factor of the bilinear upsampling that ends the column.
_COLUMNS = ((7, _TRUNK, 4), (5, _TRUNK + _UP1, 2), (3, _TRUNK + _UP1 + _UP2, 1))
_INDEX = {name: index for name, index, *_ in _COLUMNS[2][1]}
# Reflection by 48 pixels at a quarter of the size asks for 49 of them.
_MINIMUM = 196


class Column(nn.Sequential):
    """Encoder and decoder of one kernel size, reflection padding, ELU, no normalisation.

    Args:
        number: 0, 1 or 2: kernels of 7, 5 and 3 pixels.
        width: channels of the first layer.
        inputs: channels of the picture and the hole.
    """

    def __init__(self, number: int, width: int, inputs: int = 4) -> None:
        kernel, rows, factor = _COLUMNS[number]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, _, times, stride, dilation in rows:
            layers[name] = FusedConv2d(
                *(inputs, times * width, kernel, stride, dilation * (kernel // 2), dilation),
                padding_mode="reflect",
                activation="elu",
                upsample=2 if name.startswith("up") else 1,
            )
            inputs = times * width
        super().__init__(layers)
        self.factor = factor
        self.out_channels = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, out_channels, H, W)."""
        x = super().forward(x)
        if self.factor == 1:
            return x
        return F.interpolate(
            x, scale_factor=float(self.factor), mode="bilinear", align_corners=True
        )


class Generator(nn.Module):
    """The three columns side by side, and two convolutions over what they made.

    Args:
        width: channels of the first layers, a multiple of 2.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        columns = [Column(number, width) for number in range(len(_COLUMNS))]
        self.columns = nn.ModuleList(columns)
        merged, narrow = sum(column.out_channels for column in columns), width // 2
        self.merge = FusedConv2d(
            merged, narrow, 3, padding=1, padding_mode="reflect", activation="elu"
        )
        self.to_picture = FusedConv2d(narrow, 3, 3, padding=1, padding_mode="reflect")
        # The public 0.02 at the public width; narrower networks would start with vanishing signals.
        initialise(self, 0.02 * (32 / width) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Fills a picture.

        Args:
            x: (N, 4, H, W): picture in [-1, 1] with 0 where it is missing, hole (1 = missing);
                sides are multiples of 4 and at least 196.

        Returns:
            (N, 3, H, W) in [-1, 1], known pixels predicted too.

        Raises:
            ValueError: wrong shape.
        """
        if x.dim() != 4 or x.shape[1] != 4 or min(x.shape[2:]) < _MINIMUM:
            raise ValueError(
                f"gmcnn: x must have shape (N, 4, H, W) with sides of at least {_MINIMUM}, got "
                f"{tuple(x.shape)}"
            )
        if x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(
                f"gmcnn: x must have sides that are multiples of 4, got {tuple(x.shape)}"
            )
        y: Tensor = self.merge(torch.cat([column(x) for column in self.columns], 1))
        y = self.to_picture(y)
        return y.clamp(-1, 1)


class Critic(nn.Module):
    """Four convolutions of stride 2 and a linear layer, all spectrally normalised.

    Args:
        width: channels of the first layer.
        size: side of the pictures it takes, in pixels.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        inputs = 3
        for number, times in enumerate((1, 2, 4, 4)):
            layer = FusedConv2d(inputs, times * width, 5, 2, 2, activation="elu")
            self.add_module(f"conv{number}", spectral(layer, always=True))
            inputs = times * width
        self.cells = _cells(size)
        self.linear = spectral(nn.Linear(inputs * self.cells**2, 1), always=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) in [-1, 1] to (N, 1) logits."""
        for number in range(4):
            x = self.get_submodule(f"conv{number}")(x)
        if tuple(x.shape[2:]) != (self.cells, self.cells):
            raise ValueError(
                f"gmcnn: critics take pictures of their own size ({self.cells} cells of 16 pixels "
                f"a side), got {tuple(x.shape[2:])} cells; see critic_size and local_size"
            )
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def _cells(size: int) -> int:
    """Side of the last map: four halvings that round up."""
    return -(-size // 16)


class GlobalLocalCritic(nn.Module):
    """Two critics of one form: for the picture and for its part around the hole."""

    def __init__(self, width: int, size: int, local_size: int) -> None:
        super().__init__()
        self.whole = Critic(width, size)
        self.local = Critic(width, local_size)

    def forward(self, picture: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both, (N, 1) each."""
        return self.whole(picture), self.local(part)


def _generator_keys(network: Generator) -> dict[str, str]:
    keys = {}
    for ours in network.state_dict():
        if ours.startswith("columns."):
            _, number, layer, kind = ours.split(".")
            keys[f"EB{int(number) + 1}.{_INDEX[layer]}.{kind}"] = ours
        else:
            layer, kind = ours.split(".")
            keys[f"decoding_layers.{int(layer == 'to_picture')}.{kind}"] = ours
    return keys


_CRITICS = {"global_discriminator": "whole", "local_discriminator": "local"}


def _critic_keys(network: GlobalLocalCritic) -> dict[str, str]:
    keys = {}
    for public, critic in _CRITICS.items():
        for i, layer in enumerate(("conv0", "conv1", "conv2", "conv3", "linear")):
            name, ours = f"{public}.layers.{i}.module", f"{critic}.{layer}"
            keys[f"{name}.bias"] = f"{ours}.bias"
            keys |= spectral_keys(name, ours, "weight_bar")
    return keys


def _critic_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"critic_channels": state["global_discriminator.layers.0.module.weight_bar"].shape[0]}


def _critic_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state["global_discriminator.layers.0.module.weight_bar"].shape[0]
    sizes = [
        16 * math.isqrt(state[f"{name}.layers.4.module.weight_bar"].shape[1] // (4 * width))
        for name in _CRITICS
    ]
    return {"critic_size": sizes[0], "local_size": sizes[1]}


@register_model("gmcnn")
class GMCNN(InpaintingModel):
    """Generative multi-column network: one stage, no attention, all special parts in the losses.

    The network of the authors' PyTorch version; the TensorFlow version of the paper pads with
    zeros and differs in some layers, its files do not fit. The smallest side is 196 pixels, which
    the reflection around the most dilated layer asks for; smaller pictures are padded.

    Args:
        base_channels: of the first layer of each column.
        critic_channels: of the critics' first layer.
        critic_size: side of the training pictures in pixels; the critics end in a linear layer.
        local_size: side of the part around the hole that the second critic sees: 128 for the
            public boxes, critic_size for brush strokes.
        channel_order: of the pictures the weights were trained on.

    Source: Wang et al., NeurIPS 2018 (arXiv 1810.08771); shepnerd/inpainting_gmcnn: pytorch.
    """

    multiple = 4
    minimum = _MINIMUM
    recipe_class = GMCNNRecipe
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(
            "shepnerd",
            "generator",
            _generator_keys,
            signature=("EB1.0.weight", "EB3.17.weight", "decoding_layers.1.weight"),
            options=lambda state: {"base_channels": state["EB1.0.weight"].shape[0]},
            licence="MIT",
            source="shepnerd/inpainting_gmcnn",
        ),
        Layout(
            "shepnerd",
            "discriminator",
            _critic_keys,
            signature=tuple(f"{name}.layers.0.module.weight_bar" for name in _CRITICS),
            options=_critic_options,
            fitting=_critic_sizes,
            licence="MIT",
            source="shepnerd/inpainting_gmcnn",
        ),
    )

    def __init__(
        self,
        *,
        base_channels: int = 32,
        critic_channels: int = 64,
        critic_size: int = 256,
        local_size: int = 128,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        for label, value, least in (
            ("base_channels", base_channels, 2),
            ("critic_channels", critic_channels, 1),
            ("critic_size", critic_size, 16),
            ("local_size", local_size, 16),
        ):
            _common.check_int(self.name, label, value, least)
        if base_channels % 2:
            raise ValueError(f"{self.name}: base_channels must be even, got {base_channels}")
        if local_size > critic_size:
            raise ValueError(
                f"{self.name}: local_size must be at most {critic_size}, got {local_size}"
            )
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.critic_size = critic_size
        self.local_size = local_size
        self.generator = Generator(base_channels)
        self.discriminator = GlobalLocalCritic(critic_channels, critic_size, local_size)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        fitting: dict[str, Any] = {}
        if "generator.columns.0.stem.weight" in state:
            facts["base_channels"] = state["generator.columns.0.stem.weight"].shape[0]
        critic = "discriminator.{}.{}.parametrizations.weight.original"
        if critic.format("whole", "linear") in state:
            width = state[critic.format("whole", "conv0")].shape[0]
            facts["critic_channels"] = width
            for name, option in (("whole", "critic_size"), ("local", "local_size")):
                inputs = state[critic.format(name, "linear")].shape[1]
                fitting[option] = 16 * math.isqrt(inputs // (4 * width))
        return Implied(facts, ("channel_order",), fitting=fitting)

    def generate(self, image: Tensor, hole: Tensor) -> Tensor:
        """The picture in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        made: Tensor = self.generator(stacked(erase(signed(image), hole), hole))
        return made

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole))
