"""GLCIC: globally and locally consistent image completion."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks, needed
from inpaint_ops.blending import poisson_blend
from inpaint_ops.checkpoints import State
from inpaint_ops.exporting import Graph
from inpaint_ops.models.blocks.pictures import stacked
from inpaint_ops.models.glcic.layouts import LAYOUTS, MEAN
from inpaint_ops.models.glcic.networks import Discriminator, Generator
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Implied


class GLCIC(InpaintingModel):
    """GLCIC: a fully convolutional completion network, judged as a whole and around the hole.

    `complete` runs the network at the picture's own size (rounded up to multiples of 4). By default
    the known pixels are put back and nothing else is done, as in the official code. blend="poisson"
    adds the Poisson blending of the paper and of the official code's option
    (`inpaint_ops.blending.poisson_blend`; needs SciPy, extra "blend").

    Args:
        base_channels: filters of the first layer; the other layers have half of it to 16 times it.
        norm_first: normalisation before ReLU, as in the official weights; False for otenim's.
        subtract_mean: the network sees pictures less `mean` with 0 in the hole (official); False:
            pictures with `mean` in the hole (otenim). Its result is in [0, 1] either way.
        mean: colour (R, G, B) in [0, 1]; of the official weights by default, as public conversions
            list it (not checked against the official file). otenim's files need theirs: it is in
            the config.json beside the weights ("mpv").
        global_size, local_size: of `Discriminator`.
        blend: "none" or "poisson".
        channel_order: of the pictures the weights were trained on.

    Source: Iizuka et al., SIGGRAPH 2017; satoshiiizuka/siggraph2017_inpainting: inpaint.lua;
    otenim/GLCIC-PyTorch: models.py, train.py.
    """

    multiple = 4
    minimum = 4
    layouts = LAYOUTS

    def __init__(
        self,
        *,
        base_channels: int = 64,
        norm_first: bool = True,
        subtract_mean: bool = True,
        mean: tuple[float, float, float] = MEAN,
        global_size: int = 256,
        local_size: int = 128,
        blend: str = "none",
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(self.name, "base_channels", base_channels, 2)
        checks.check_choice(self.name, "blend", blend, ("none", "poisson"))
        if len(mean) != 3 or not all(0 <= level <= 1 for level in mean):
            raise ValueError(f"{self.name}: mean must be three numbers in [0, 1], got {mean}")
        self.base_channels = base_channels
        self.norm_first = norm_first
        self.subtract_mean = subtract_mean
        self.mean = tuple(mean)
        self.global_size = self.trained_size = global_size
        self.local_size = local_size
        self.blend = blend
        self.generator = Generator(base_channels=base_channels, norm_first=norm_first)
        self.discriminator = Discriminator(
            global_size=global_size,
            local_size=local_size,
            base_channels=base_channels,
            norm_first=norm_first,
        )

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.layers.0.conv.weight" in state:
            facts["base_channels"] = state["generator.layers.0.conv.weight"].shape[0]
        trunks = "discriminator.{}_trunk."
        if "discriminator.fuse.weight" in state:
            base = state[trunks.format("local") + "layers.0.conv.weight"].shape[0]
            facts["base_channels"] = base
            for name in ("local", "global"):
                trunk = trunks.format(name)
                six = f"{trunk}layers.5.conv.weight" in state
                cells = math.isqrt(state[f"{trunk}linear.weight"].shape[1] // (8 * base))
                facts[f"{name}_size"] = cells << (6 if six else 5)
        return Implied(facts, ("norm_first", "subtract_mean", "mean", "channel_order"))

    def inputs(self, image: Tensor, hole: Tensor) -> Tensor:
        """Return the generator's input, (N, 4, H, W), from a picture in [0, 1] and its hole."""
        levels = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        mean = image.new_tensor(levels).view(3, 1, 1)
        if self.subtract_mean:
            seen = torch.where(hole > 0, 0.0, image - mean)
        else:
            seen = torch.where(hole > 0, mean, image)
        return stacked(seen, hole.to(seen.dtype))

    def for_export(self) -> Graph:
        """As `InpaintingModel.for_export`.

        Raises:
            ValueError: blend is not "none".
        """
        if self.blend != "none":
            raise ValueError(
                f"{self.name}: blend must be 'none' to be exported, got {self.blend!r}: SciPy "
                "solves its equations"
            )
        return super().for_export()

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        prediction: Tensor = self.generator(self.inputs(image, hole))
        if self.blend == "poisson":
            # The blending reads the prediction in the hole and next to it.
            around = F.max_pool2d(hole, 3, 1, 1)
            prediction = needed.computed(prediction.to(image.dtype), around)
            return poisson_blend(prediction, needed.computed(image), hole)
        return prediction
