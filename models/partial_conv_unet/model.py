"""PartialConv U-Net: irregular holes by partial convolutions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.partial_conv_unet.networks import PartialConvUNetwork
from inpaint_ops.models.partial_conv_unet.recipe import PartialConvUNetRecipe
from inpaint_ops.models.registry import register_model
from inpaint_ops.models.weights.layouts import Implied, Layout, fixed

_MOST_LEVELS = 8
# Mean and deviation of what the network takes, on a picture in [0, 1].
_RANGES = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


_Keys = Callable[[PartialConvUNetwork], Mapping[str, str]]


def _keys(encoder: str, decoder: str, conv: str) -> _Keys:
    """Public names from patterns with a place for the level, and of the convolution in it."""

    def keys(network: PartialConvUNetwork) -> dict[str, str]:
        result = {}
        for key in network.state_dict():
            side, index, layer, kind = key.split(".")
            stem = (encoder if side == "encoder" else decoder).format(int(index) + 1)
            result[f"{stem}.{conv if layer == 'conv' else 'bn'}.{kind}"] = key
        return result

    return keys


def _options(stem: str, pattern: str) -> Callable[[Mapping[str, Tensor]], Any]:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "base_channels": state[f"{stem}.weight"].shape[0],
            "levels": max(int(found[1]) for key in state if (found := re.match(pattern, key))),
            "stem_bias": f"{stem}.bias" in state,
        }

    return options


def _ones(keys: _Keys, ones: str) -> Callable[[PartialConvUNetwork], State]:
    """The constant kernels that public files keep next to every convolution."""

    def emitted(network: PartialConvUNetwork) -> State:
        return {
            re.sub(r"(input_conv\.)?weight$", ones, public): torch.ones_like(
                network.get_parameter(ours).detach()
            )
            for public, ours in keys(network).items()
            if ours.endswith("conv.weight")
        }

    return emitted


_NAOTO0804 = _keys("enc_{}", "dec_{}", "conv.input_conv")
_MMAGIC = _keys("encoder.enc{}", "decoder.dec{}", "conv")


@register_model("partial_conv_unet")
class PartialConvUNet(InpaintingModel):
    """U-Net of partial convolutions, trained without a discriminator.

    The defaults are naoto0804's network for 256 pixels; the paper's, for 512, has 8 levels
    (unverified). Padding counts as missing.

    Args:
        levels: halvings, 5 to 8; sides become multiples of 2^levels.
        base_channels: of the first layer.
        stem_bias: whether the first layer has a bias, as in mmagic.
        input_range: "imagenet": less the mean of ImageNet, divided by its deviation (naoto0804);
            "signed": [-1, 1] (mmagic).
        normalise: "window": sums divided by the share of valid values (paper, mmagic); "sum": by
            their number (naoto0804), which asks for weights larger by the size of the window.
        channel_order: of the pictures the weights were trained on; BGR in mmagic, whose layout
            sets it.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723);
    naoto0804/pytorch-inpainting-with-partial-conv; open-mmlab/mmagic.
    """

    pad_as = "hole"
    networks = ("generator",)
    recipe_class = PartialConvUNetRecipe
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(
            "naoto0804",
            "generator",
            _NAOTO0804,
            signature=("enc_1.conv.input_conv.weight", "dec_1.conv.input_conv.weight"),
            options=_options("enc_1.conv.input_conv", r"enc_(\d{1,3})\."),
            recipe=fixed(input_range="imagenet", normalise="sum"),
            nesting=("model",),
            ignored=(r"mask_conv\.",),
            emitted=_ones(_NAOTO0804, "mask_conv.weight"),
            licence="MIT",
            source="naoto0804/pytorch-inpainting-with-partial-conv",
        ),
        Layout(
            "mmagic",
            "generator",
            _MMAGIC,
            signature=("encoder.enc1.conv.weight", "decoder.dec1.conv.weight"),
            options=_options("encoder.enc1.conv", r"encoder\.enc(\d{1,3})\."),
            recipe=fixed(input_range="signed", normalise="window"),
            nesting=("state_dict",),
            prefix="generator.",
            ignored=(r"weight_mask_updater$", r"^loss_percep\."),
            emitted=_ones(_MMAGIC, "weight_mask_updater"),
            # Its configuration reads pictures with OpenCV and does not reorder them.
            channel_order="bgr",
            licence="Apache-2.0",
            source="open-mmlab/mmagic",
        ),
    )

    def __init__(
        self,
        *,
        levels: int = 7,
        base_channels: int = 64,
        stem_bias: bool = False,
        input_range: str = "imagenet",
        normalise: str = "window",
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(self.name, "levels", levels, 5)
        if levels > _MOST_LEVELS:
            raise ValueError(f"{self.name}: levels must be at most {_MOST_LEVELS}, got {levels}")
        checks.check_int(self.name, "base_channels", base_channels)
        checks.check_choice(self.name, "input_range", input_range, tuple(_RANGES))
        checks.check_choice(self.name, "normalise", normalise, ("window", "sum"))
        self.levels = levels
        self.base_channels = base_channels
        self.stem_bias = stem_bias
        self.input_range = input_range
        self.normalise = normalise
        self.multiple = self.minimum = 1 << levels
        self.generator = PartialConvUNetwork(levels, base_channels, stem_bias, normalise)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.encoder.0.conv.weight" in state:
            levels = {k.split(".")[2] for k in state if k.startswith("generator.encoder.")}
            facts = {
                "base_channels": state["generator.encoder.0.conv.weight"].shape[0],
                "levels": len(levels),
                "stem_bias": "generator.encoder.0.conv.bias" in state,
            }
        return Implied(facts, ("input_range", "normalise", "channel_order"))

    def _statistics(self, like: Tensor) -> list[Tensor]:
        return [like.new_tensor(v).view(1, 3, 1, 1) for v in _RANGES[self.input_range]]

    def normalised(self, image: Tensor) -> Tensor:
        """[0, 1] to what the network takes."""
        mean, deviation = self._statistics(image)
        return (image - mean) / deviation

    def unnormalised(self, x: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        mean, deviation = self._statistics(x)
        return x * deviation + mean

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        made, _ = self.generator(self.normalised(image), hole == 0)
        return self.unnormalised(made).clamp(0, 1)
