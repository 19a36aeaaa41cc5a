"""Patch-based GAN: dilated residual generator, discriminator with a global and a patch head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.conv_block import initialise
from inpaint_ops.models.blocks.pictures import signed, stacked, unsigned
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.patch_gan.layouts import LAYOUTS
from inpaint_ops.models.patch_gan.networks import Discriminator, Generator
from inpaint_ops.models.weights.layouts import Implied

_MOST_BLOCKS = 256


class PatchGAN(InpaintingModel):
    """Patch-based image inpainting: after Demir & Unal, not checked against their code.

    No code or weights of the authors could be found, so there is no public layout. From the paper
    (abstract and introduction read, the rest recalled): a residual generator with dilated blocks of
    "type b" whose dilation doubles, as many doublings as halvings, upsampling before convolution; a
    discriminator that shares its first layers between a global and a patch head; the three loss
    weights. Chosen by us, and options where they are options: all numbers of layers, widths and
    kernels, five blocks with dilations 1 to 16, nearest upsampling, batch normalisation everywhere
    but at the ends, no ReLU after the sum of a block, reflected edges, three input channels, mean
    colour in the hole, the range [-1, 1] with tanh, compositing, optimiser and rates.

    Args:
        base_channels: filters of the first layers.
        in_channels: 3 as in the paper, or 4: the mask too.
        dilations: of the residual blocks, as many as there are.
        dilated: "first" convolution of a block (type b), "second" (type c) or "none" (type a).
        mean: colour of the hole (R, G, B) in [0, 1].
        image_size: side of the pictures that the discriminator judges, a multiple of 64.
        channel_order: "rgb" or "bgr".

    Source: Demir and Unal, 2018 (arXiv 1803.07422).
    """

    multiple = 4
    minimum = 4
    layouts = LAYOUTS

    def __init__(
        self,
        *,
        base_channels: int = 64,
        in_channels: int = 3,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16),
        dilated: str = "first",
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        image_size: int = 256,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(self.name, "base_channels", base_channels)
        checks.check_choice(self.name, "dilated", dilated, ("first", "second", "none"))
        if in_channels not in (3, 4):
            raise ValueError(f"{self.name}: in_channels must be 3 or 4, got {in_channels}")
        if len(mean) != 3 or not all(0 <= level <= 1 for level in mean):
            raise ValueError(f"{self.name}: mean must be three numbers in [0, 1], got {mean}")
        if len(dilations) > _MOST_BLOCKS:
            raise ValueError(
                f"{self.name}: dilations must be at most {_MOST_BLOCKS}, got {len(dilations)}"
            )
        for dilation in dilations:
            checks.check_int(self.name, "dilations", dilation)
        self.base_channels = base_channels
        self.in_channels = in_channels
        self.dilations = tuple(dilations)
        self.dilated = dilated
        self.mean = tuple(mean)
        self.image_size = self.trained_size = image_size
        self.generator = Generator(
            in_channels=in_channels,
            base_channels=base_channels,
            dilations=self.dilations,
            dilated=dilated,
        )
        self.discriminator = Discriminator(size=image_size, base_channels=base_channels)
        initialise(self, 0.02)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        asked: dict[str, str] = {}
        unstated: tuple[str, ...] = ("mean", "channel_order")
        stem = state.get("generator.stem.conv.weight")
        if stem is not None:
            facts = {"base_channels": stem.shape[0], "in_channels": stem.shape[1]}
            blocks = {key.split(".")[2] for key in state if key.startswith("generator.middle.")}
            unstated = ("dilations", "dilated", *unstated)
            if len(blocks) != 5:
                text = f"the dilation of each of its {len(blocks)} residual blocks"
                asked["dilations"] = text
        if "discriminator.fuse.weight" in state:
            base = state["discriminator.trunk.0.weight"].shape[0]
            facts["base_channels"] = base
            cells = math.isqrt(state["discriminator.fuse.weight"].shape[1] // (8 * base))
            facts["image_size"] = 64 * cells
        return Implied(facts, unstated, asked)

    def inputs(self, image: Tensor, hole: Tensor) -> Tensor:
        """Return the generator's input from a picture in [0, 1] and its hole."""
        levels = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        seen = signed(torch.where(hole > 0, image.new_tensor(levels).view(3, 1, 1), image))
        return stacked(seen, hole.to(seen.dtype)) if self.in_channels == 4 else seen

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generator(self.inputs(image, hole)))
