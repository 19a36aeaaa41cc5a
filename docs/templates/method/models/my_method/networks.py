"""Networks of my_method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_ops.layers import FusedConv2d, GatedConv2d


class Generator(nn.Module):
    """Two gated convolutions.

    Args:
        base_channels: filters of the first layer.
    """

    def __init__(self, *, base_channels: int = 32) -> None:
        super().__init__()
        self.first = GatedConv2d(4, base_channels, 5, padding=2)
        self.output = FusedConv2d(base_channels, 3, 3, padding=1, activation="tanh")

    def forward(self, picture: Tensor, hole: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] without its hole and (N, 1, H, W), to (N, 3, H, W) in [-1, 1]."""
        y: Tensor = self.output(self.first(torch.cat([picture, hole], 1)))
        return y


class Discriminator(nn.Module):
    """Logits of patches.

    Args:
        base_channels: filters of the first layer.
    """

    def __init__(self, *, base_channels: int = 32) -> None:
        super().__init__()
        self.first = FusedConv2d(3, base_channels, 5, stride=2, padding=2, activation="leaky_relu")
        self.output = FusedConv2d(base_channels, 1, 5, stride=2, padding=2)

    def forward(self, picture: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, 1, H / 4, W / 4)."""
        y: Tensor = self.output(self.first(picture))
        return y
