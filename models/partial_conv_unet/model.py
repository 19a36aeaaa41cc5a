"""PartialConv U-Net: irregular holes by partial convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.partial_conv_unet.layouts import LAYOUTS
from inpaint_ops.models.partial_conv_unet.networks import PartialConvUNetwork
from inpaint_ops.models.weights.layouts import Implied

_MOST_LEVELS = 8
# Mean and deviation, by which a picture in [0, 1] becomes the network's input.
_RANGES = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class PartialConvUNet(InpaintingModel):
    """U-Net of partial convolutions, trained without a discriminator.

    The defaults are naoto0804's network for 256 pixels; the paper's, for 512, has 8 levels
    (unverified). Padding counts as missing.

    Args:
        levels: halvings, 5 to 8; sides become multiples of 2^levels.
        base_channels: of the first layer.
        stem_bias: give the first layer a bias, as in mmagic.
        input_range: "imagenet": less the mean of ImageNet, divided by its deviation (naoto0804);
            "signed": [-1, 1] (mmagic).
        normalise: "window": sums are divided by the fraction of valid values (paper, mmagic);
            "sum": by their number (naoto0804), so that weights are larger by the window's size.
        channel_order: of the pictures the weights were trained on; BGR in mmagic, whose layout
            sets it.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723);
    naoto0804/pytorch-inpainting-with-partial-conv; open-mmlab/mmagic.
    """

    pad_as = "hole"
    networks = ("generator",)
    layouts = LAYOUTS

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
        self.trained_size = 512 if levels == _MOST_LEVELS else 256
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
        """Return the network's input from pictures in [0, 1]."""
        mean, deviation = self._statistics(image)
        return (image - mean) / deviation

    def unnormalised(self, x: Tensor) -> Tensor:
        """Return pictures in [0, 1] from the network's range; the inverse of `normalised`."""
        mean, deviation = self._statistics(x)
        return x * deviation + mean

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        made, _ = self.generator(self.normalised(image), hole == 0)
        return self.unnormalised(made).clamp(0, 1)
