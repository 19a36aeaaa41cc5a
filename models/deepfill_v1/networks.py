"""Networks of DeepFill v1: the generator of two stages and the critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_ops.layers import ContextualAttention, FusedConv2d
from inpaint_ops.models.blocks.pictures import composite, pad_for, stacked
from inpaint_ops.models.blocks.two_stage import COARSE, Refinement, chain, check_sides, to_picture


class Generator(nn.Module):
    """Both stages; ELU everywhere, no normalisation, results cut off at -1 and 1.

    Args:
        width: channels of the first layer.
        padding: "same" or "symmetric".
        attention: the layer in the middle.
    """

    def __init__(self, width: int, padding: str, attention: ContextualAttention) -> None:
        super().__init__()
        coarse = chain(FusedConv2d, COARSE, 5, width, padding)
        self.coarse = to_picture(coarse, "conv17", width, padding, "clip")
        self.refinement = Refinement(FusedConv2d, 5, width, padding, attention, "clip")
        _initialise(self)

    def forward(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in two steps.

        Args:
            x: (N, 3, H, W) in [-1, 1] with 0 where it is missing. Sides are multiples of 8 in the
                ports; multiples of 4 round the attention's grid up.
            hole: (N, 1, H, W), 1 = missing.

        Returns:
            The pictures of both stages, (N, 3, H, W) in [-1, 1], known pixels predicted too.

        Raises:
            ValueError: other sides.
        """
        check_sides("deepfill_v1.generator", x)
        ones = torch.ones_like(hole)
        first: Tensor = self.coarse(stacked(x, ones, hole))
        second = self.refinement(stacked(composite(x, first, hole), ones, hole), hole)
        return first, second


class Critic(nn.Module):
    """Four 5x5 convolutions of stride 2 and a linear layer: one number for a picture.

    Args:
        width: channels of the first layer.
        last: channels of the fourth layer.
        side: of the square pictures it takes, a multiple of 16.
        padding: "same" or "symmetric".
    """

    def __init__(self, width: int, last: int, side: int, padding: str) -> None:
        super().__init__()
        inputs = 3
        for i, outputs in enumerate((width, 2 * width, 4 * width, last), start=1):
            pad = pad_for(5, 1, padding)
            layer = FusedConv2d(inputs, outputs, 5, 2, pad, activation="leaky_relu")
            self.add_module(f"conv{i}", layer)
            inputs = outputs
        self.linear = nn.Linear(last * (side // 16) ** 2, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, side, side) in [-1, 1] to (N, 1)."""
        for i in range(1, 5):
            x = self.get_submodule(f"conv{i}")(x)
        y: Tensor = self.linear(x.flatten(1))
        return y


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (FusedConv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
