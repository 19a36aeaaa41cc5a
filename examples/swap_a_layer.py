"""Swap a layer: put a fast layer in the place of a slow one, and keep the weights.

    python examples/swap_a_layer.py

The network below has a gated convolution as many public repositories write it: one convolution,
split in two halves, the second one a gate. The layer of this package has the same weights, so the
old checkpoint loads into it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import inpaint_ops
from inpaint_ops import GatedConv2d


class PublicGatedConv(nn.Module):
    """A gated convolution in plain PyTorch."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * filters, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features times gates."""
        features, gates = self.conv(x).chunk(2, dim=1)
        return nn.functional.elu(features) * torch.sigmoid(gates)


def main() -> float:
    """Compare the two, print and return their largest difference."""
    torch.manual_seed(0)
    network = nn.Sequential(PublicGatedConv(4, 16), PublicGatedConv(16, 16))
    x = torch.randn(1, 4, 64, 64)

    # By hand: a layer with the same filters, features first. Its weights are the old ones.
    by_hand = nn.Sequential(GatedConv2d(4, 16, 3, padding=1), GatedConv2d(16, 16, 3, padding=1))
    for old, new in zip(network, by_hand):
        new.load_state_dict(old.conv.state_dict())

    with torch.no_grad():
        before, after = network(x), by_hand(x)
    difference = float((before - after).abs().max())
    print(f"by hand: largest difference {difference:.1e}")

    # Or leave the search to `convert`, which recognises such layers in any model.
    inpaint_ops.convert(network)
    with torch.no_grad():
        converted = network(x)
    print(f"convert: largest difference {float((before - converted).abs().max()):.1e}")
    return difference


if __name__ == "__main__":
    main()
