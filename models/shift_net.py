"""Shift-Net: a U-Net that moves known features into the hole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops.checkpoints import State
from inpaint_ops.layers import (
    FusedConv2d,
    FusedConvTranspose2d,
    InstanceNorm2d,
    ShiftConnection,
)
from inpaint_ops.models._blocks import (
    erase,
    initialise,
    signed,
    spectral,
    spectral_keys,
    stacked,
    unsigned,
)
from inpaint_ops.models._layouts import Implied, Layout, Place
from inpaint_ops.models._model import InpaintingModel
from inpaint_ops.models._registry import register_model
from inpaint_ops.models._shift_net_training import ShiftNetRecipe
from inpaint_ops.ops import _common

_OP = "shift_net"
_DEPTH = 8
_SHIFT = 3  # the level whose features are shifted: 1/8 of the picture


class Down(nn.Module):
    """4x4 convolution of stride 2, instance norm, activation."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 4, norm: bool = True, last: bool = False
    ) -> None:
        super().__init__()
        # What follows the last is the ReLU before the first transposed convolution.
        then = "relu" if last else "leaky_relu"
        before = "identity" if norm else then
        padding = kernel // 2 - 1
        self.conv = FusedConv2d(inputs, outputs, kernel, 2, padding, activation=before)
        self.norm = InstanceNorm2d(outputs, affine=True, activation=then) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H // 2, W // 2)."""
        y: Tensor = self.conv(x)
        return y if self.norm is None else self.norm(y)


class Up(nn.Module):
    """4x4 transposed convolution of stride 2, instance norm, ReLU; without norm tanh."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        then = "identity" if norm else "tanh"
        self.conv = FusedConvTranspose2d(inputs, outputs, 4, 2, 1, activation=then)
        self.norm = InstanceNorm2d(outputs, affine=True, activation="relu") if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, 2 H, 2 W)."""
        y: Tensor = self.conv(x)
        return y if self.norm is None else self.norm(y)


class Generator(nn.Module):
    """Eight halvings, eight doublings, skips, and the shift connection at 1/8 of the size.

    Args:
        width: channels of the first layer.
        inputs: 4, picture and known pixels, or 3.
        face: kernel 6 in the third layer, as in the published models for faces.

    Source: Zhaoyi-Yan/Shift-Net_pytorch: models/shift_net/base_model (UnetGeneratorShiftTriple,
    FaceUnetGenerator; the latter's second look at the mirrored picture is left out).
    """

    def __init__(self, width: int, inputs: int, *, face: bool = False) -> None:
        super().__init__()
        widths = [inputs, *(width * (1 << min(i, 3)) for i in range(_DEPTH))]
        for i in range(1, _DEPTH + 1):
            layer = Down(
                widths[i - 1],
                widths[i],
                kernel=6 if face and i == _SHIFT else 4,
                norm=i not in (1, _DEPTH),
                last=i == _DEPTH,
            )
            self.add_module(f"down{i}", layer)
        for i in range(_DEPTH, 0, -1):
            # Decoder and skip, and behind the shift the shifted features.
            parts = 1 if i == _DEPTH else 3 if i == _SHIFT else 2
            outputs = widths[i - 1] if i > 1 else 3
            self.add_module(f"up{i}", Up(parts * widths[i], outputs, norm=i > 1))
        self.shift = ShiftConnection()
        initialise(self, 0.02)

    def features(self, x: Tensor) -> Tensor:
        """[decoder | encoder] after ReLU at 1/8 of the size, what `ShiftConnection` takes."""
        return self._down_and_up(x)[0]

    def _down_and_up(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for i in range(1, _DEPTH + 1):
            x = self.get_submodule(f"down{i}")(x)
            skips.append(x)
        x = skips.pop()
        for i in range(_DEPTH, _SHIFT, -1):
            x = _joined(self.get_submodule(f"up{i}")(x), skips.pop())
        return x, skips

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        """Fills.

        Args:
            x: (N, inputs, H, W): picture in [-1, 1] with 0 where it is missing, then 1 where it is
                known. At least 256 pixels a side.
            hole: (N or 1, 1, H, W), 1 = missing.

        Returns:
            (N, 3, H, W) in [-1, 1], known pixels predicted too.
        """
        return self.finish(x, hole)[0]

    def finish(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """As forward, and the features before the shift, for the guidance loss."""
        features, skips = self._down_and_up(x)
        y, _ = self.shift(features, hole)
        for i in range(_SHIFT, 1, -1):
            y = _joined(self.get_submodule(f"up{i}")(y), skips.pop())
        return self._fit(self.get_submodule("up1")(y), x), features

    @staticmethod
    def _fit(y: Tensor, like: Tensor) -> Tensor:
        return y if y.shape[2:] == like.shape[2:] else _resized(y, like)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    size = (like.shape[2], like.shape[3])
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _joined(decoder: Tensor, skip: Tensor) -> Tensor:
    """[decoder | relu(skip)]: the skip's leaky ReLU leaves a ReLU as it is."""
    if decoder.shape[2:] != skip.shape[2:]:
        decoder = _resized(decoder, skip)
    return stacked(decoder, skip.relu())


class Discriminator(nn.Module):
    """70 x 70 patches with spectral norm and instance norm.

    Source: Zhaoyi-Yan/Shift-Net_pytorch: models/shift_net/base_model (NLayerDiscriminator).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = 3
        for i, (outputs, stride) in enumerate(
            ((width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1), (1, 1)), start=1
        ):
            normed = 1 < i < 5
            activation = "leaky_relu" if i == 1 else "identity"
            conv = FusedConv2d(inputs, outputs, 4, stride, 1, activation=activation)
            self.add_module(f"conv{i}", conv)
            if normed:
                norm = InstanceNorm2d(outputs, affine=True, activation="leaky_relu")
                self.add_module(f"norm{i}", norm)
            inputs = outputs
        initialise(self, 0.02)
        for i in range(1, 6):
            spectral(self.get_submodule(f"conv{i}"))

    def logits(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, 1, h, w) before the sigmoid."""
        for layer in self.children():
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, 1, h, w) probabilities."""
        return self.logits(x).sigmoid()


def _nested(level: int) -> str:
    return "model.model.1" + ".model.3" * level


def _unet_names() -> dict[str, str]:
    """Our layers to those of the nested U-Net, in its order of modules."""
    names = {"down1.conv": "model.model.0"}
    for i in range(2, _DEPTH):
        names[f"down{i}.conv"] = f"{_nested(i - 2)}.model.1"
        names[f"down{i}.norm"] = f"{_nested(i - 2)}.model.2"
    innermost = _nested(_DEPTH - 2)
    names[f"down{_DEPTH}.conv"] = f"{innermost}.model.1"
    names[f"up{_DEPTH}.conv"] = f"{innermost}.model.3"
    names[f"up{_DEPTH}.norm"] = f"{innermost}.model.4"
    for i in range(_DEPTH - 1, 1, -1):
        # Guidance and shift are modules of their own in front of the convolution.
        index = 7 if i == _SHIFT else 5
        names[f"up{i}.conv"] = f"{_nested(i - 2)}.model.{index}"
        names[f"up{i}.norm"] = f"{_nested(i - 2)}.model.{index + 1}"
    names["up1.conv"] = "model.model.3"
    return names


def _face_names() -> dict[str, str]:
    names = {}
    for i in range(1, _DEPTH + 1):
        names[f"down{i}.conv"] = f"e{i}_c"
        names[f"down{i}.norm"] = f"e{i}_norm"
        names[f"up{i}.conv"] = f"d{_DEPTH + 1 - i}_dc"
        names[f"up{i}.norm"] = f"d{_DEPTH + 1 - i}_norm"
    return names


def _keys(names: Mapping[str, str], network: nn.Module) -> dict[str, Place]:
    own = network.state_dict()
    kinds = ("weight", "bias")
    return {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for ours, theirs in names.items()
        for kind in kinds
        if f"{ours}.{kind}" in own
    }


def _critic_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for i, position in enumerate((0, 2, 5, 8, 11), start=1):
        keys.update(spectral_keys(f"model.{position}", f"conv{i}"))
        keys[f"model.{position}.bias"] = f"conv{i}.bias"
        if 1 < i < 5:
            for kind in ("weight", "bias"):
                keys[f"model.{position + 1}.{kind}"] = f"norm{i}.{kind}"
    return keys


def _options(stem: str, face: bool) -> Any:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        width, inputs = state[stem].shape[:2]
        return {"base_channels": width, "in_channels": inputs, "face": face}

    return options


# Old files carry statistics of the instance norms, which the networks never used.
_STATISTICS = (r"running_(mean|var)$", r"num_batches_tracked$")
_PORT = "Zhaoyi-Yan/Shift-Net_pytorch"


@register_model("shift_net")
class ShiftNet(InpaintingModel):
    """U-Net with the shift connection, 70 x 70 patch discriminator.

    Published models for a centre hole work for exactly that hole, 120 x 120 of 256 x 256.

    Args:
        base_channels: width of the generator's first layer.
        critic_channels: width of the discriminator's first layer.
        in_channels: 4, picture and known pixels, or 3, picture alone.
        face: kernel 6 in the third layer, as in the published models for faces.
        channel_order: of the pictures the weights were trained on.

    Source: Yan et al., ECCV 2018 (arXiv 1801.09392); Zhaoyi-Yan/Shift-Net_pytorch.
    """

    multiple = 8
    minimum = 256
    layouts = (
        Layout(
            "zhaoyiyan",
            "generator",
            lambda network: _keys(_unet_names(), network),
            signature=("model.model.0.weight", "model.model.1.model.1.weight"),
            options=_options("model.model.0.weight", False),
            ignored=_STATISTICS,
            licence="MIT",
            source=_PORT,
        ),
        Layout(
            "zhaoyiyan_face",
            "generator",
            lambda network: _keys(_face_names(), network),
            signature=("e1_c.weight", "d1_dc.weight"),
            options=_options("e1_c.weight", True),
            ignored=_STATISTICS,
            licence="MIT",
            source=_PORT,
        ),
        Layout(
            "zhaoyiyan",
            "discriminator",
            _critic_keys,
            signature=("model.0.weight_orig", "model.3.weight"),
            options=lambda state: {"critic_channels": state["model.0.weight_orig"].shape[0]},
            ignored=_STATISTICS,
            licence="MIT",
            source=_PORT,
        ),
    )
    recipe_class = ShiftNetRecipe

    def __init__(
        self,
        *,
        base_channels: int = 64,
        critic_channels: int = 64,
        in_channels: int = 4,
        face: bool = False,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        _common.check_int(_OP, "base_channels", base_channels)
        _common.check_int(_OP, "critic_channels", critic_channels)
        if in_channels not in (3, 4):
            raise ValueError(f"{_OP}: in_channels must be 3 or 4, got {in_channels}")
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.in_channels = in_channels
        self.face = face
        self.generator = Generator(base_channels, in_channels, face=face)
        self.discriminator = Discriminator(critic_channels)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.down1.conv.weight" in state:
            width, inputs = state["generator.down1.conv.weight"].shape[:2]
            facts = {"base_channels": width, "in_channels": inputs}
            facts["face"] = state[f"generator.down{_SHIFT}.conv.weight"].shape[2] == 6
        judge = "discriminator.conv1.parametrizations.weight.original"
        if judge in state:
            facts["critic_channels"] = state[judge].shape[0]
        return Implied(facts, ("channel_order",))

    def prepared(self, image: Tensor, hole: Tensor) -> Tensor:
        """What the generator takes of a picture in [-1, 1] and a hole, (N, in_channels, H, W)."""
        return stacked(image, 1 - hole) if self.in_channels == 4 else image

    def generate(self, image: Tensor, hole: Tensor) -> Tensor:
        """The picture in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        result: Tensor = self.generator(self.prepared(erase(signed(image), hole), hole), hole)
        return result

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole))
