"""my_method: options, what the networks see, completion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.pictures import signed, unsigned
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.my_method.layouts import LAYOUTS
from inpaint_ops.models.my_method.networks import Discriminator, Generator
from inpaint_ops.models.weights.layouts import Implied


class MyMethod(InpaintingModel):
    """What the method does, in a sentence or two, and what here differs from the public code.

    Args:
        base_channels: filters of the first layers.
        channel_order: of the pictures the weights were trained on.

    Source: the paper; owner/repository: files.
    """

    # Sides that the networks take; other pictures are padded, and cut again.
    multiple = 4
    minimum = 8
    layouts = LAYOUTS

    def __init__(self, *, base_channels: int = 32, channel_order: str = "rgb") -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(self.name, "base_channels", base_channels)
        # Every option is an attribute of its name: files of our own hold them.
        self.base_channels = base_channels
        self.generator = Generator(base_channels=base_channels)
        self.discriminator = Discriminator(base_channels=base_channels)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        for key, part in (("generator", 2), ("discriminator", 1)):
            weight = state.get(f"{key}.first.weight")
            if weight is not None:
                facts["base_channels"] = weight.shape[0] // part
        return Implied(facts, ("channel_order",))

    def generate(self, image: Tensor, hole: Tensor) -> Tensor:
        """The picture in [-1, 1] for one in [0, 1], of which the hole is not looked at."""
        # Select, do not multiply: what lies in the hole may be NaN.
        seen = torch.where(hole > 0, 0.0, signed(image))
        made: Tensor = self.generator(seen, hole.to(seen.dtype))
        return made

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole))
