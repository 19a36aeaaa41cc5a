"""Networks of GLCIC: the completion network, and the discriminator of two trunks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models.blocks.conv_block import ConvBlock

# (filters in multiples of base_channels, kernel, stride, dilation); stride 0: doubled in size.
_COMPLETION = (
    (1, 5, 1, 1),
    (2, 3, 2, 1),
    (2, 3, 1, 1),
    (4, 3, 2, 1),
    (4, 3, 1, 1),
    (4, 3, 1, 1),
    (4, 3, 1, 2),
    (4, 3, 1, 4),
    (4, 3, 1, 8),
    (4, 3, 1, 16),
    (4, 3, 1, 1),
    (4, 3, 1, 1),
    (2, 4, 0, 1),
    (2, 3, 1, 1),
    (1, 4, 0, 1),
    (0.5, 3, 1, 1),
)


class Generator(nn.Module):
    """The completion network: to a quarter of the size, dilated convolutions, and back.

    Args:
        base_channels: filters of the first layer.
        norm_first: convolution, normalisation, ReLU (the official weights); False: ReLU first (the
            port of otenim). Weights of one fit the other and give wrong pictures.
    """

    def __init__(self, *, base_channels: int = 64, norm_first: bool = True) -> None:
        super().__init__()
        blocks, channels = [], 4
        for times, kernel, stride, dilation in _COMPLETION:
            filters = int(times * base_channels)
            if stride == 0:
                geometry: dict[str, Any] = {"stride": 2, "padding": 1, "transposed": True}
            else:
                padding = dilation * (kernel // 2)
                geometry = {"stride": stride, "padding": padding, "dilation": dilation}
            blocks.append(ConvBlock(channels, filters, kernel, norm_first=norm_first, **geometry))
            channels = filters
        self.layers = nn.Sequential(*blocks)
        self.output = FusedConv2d(channels, 3, 3, padding=1, activation="sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4, H, W), picture without its hole and mask (1 = missing), to (N, 3, H, W) in [0, 1].

        H and W are multiples of 4; others give the next ones, as in the ports. The range of the
        picture is that of the weights, see `GLCIC`.
        """
        y: Tensor = self.output(self.layers(x))
        return y


class Trunk(nn.Module):
    """5x5 convolutions of stride 2 and a dense layer: a square picture to 16 base_channels numbers.

    Args:
        size: of the picture: 32 times a number, 64 times with 6 convolutions.
        convolutions: how many, 5 or 6.
        base_channels: filters of the first.
        norm_first: of `Generator`.
    """

    def __init__(
        self, size: int, convolutions: int, *, base_channels: int, norm_first: bool
    ) -> None:
        super().__init__()
        c = base_channels
        widths = [3, c, 2 * c, 4 * c, 8 * c, 8 * c, 8 * c][: convolutions + 1]
        self.layers = nn.Sequential(
            *(
                ConvBlock(i, o, 5, stride=2, padding=2, norm_first=norm_first)
                for i, o in pairwise(widths)
            )
        )
        side = size >> convolutions
        self.linear = nn.Linear(8 * c * side * side, 16 * c)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) to (N, 16 base_channels)."""
        y: Tensor = self.linear(self.layers(x).contiguous().flatten(1))
        return y.relu()


class Discriminator(nn.Module):
    """One logit from the whole picture and the surroundings of the hole.

    Args:
        global_size: side of the picture in pixels; 256 for scenes, 160 for faces.
        local_size: side of the surroundings; 128 and 96.
        base_channels: filters of the first layers.
        norm_first: of `Generator`.

    Pictures of 192 pixels or more get a sixth convolution: sizes must be multiples of 64 then, else
    of 32. The local trunk comes first in the fusing layer, as in otenim's port (mmagic's: global).
    """

    def __init__(
        self,
        *,
        global_size: int = 256,
        local_size: int = 128,
        base_channels: int = 64,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        six = global_size >= 192
        for name, size, unit in (
            ("global_size", global_size, 64 if six else 32),
            ("local_size", local_size, 32),
        ):
            if size < unit or size % unit:
                raise ValueError(f"glcic: {name} must be a multiple of {unit}, got {size}")
        if local_size > global_size:
            raise ValueError(f"glcic: local_size must be at most {global_size}, got {local_size}")
        self.global_size = global_size
        self.local_size = local_size
        numbers = {"base_channels": base_channels, "norm_first": norm_first}
        self.local_trunk = Trunk(local_size, 5, **numbers)  # type: ignore[arg-type]
        self.global_trunk = Trunk(global_size, 6 if six else 5, **numbers)  # type: ignore[arg-type]
        self.fuse = nn.Linear(32 * base_channels, 1)

    def forward(self, local: Tensor, whole: Tensor) -> Tensor:
        """(N, 3, local_size, local_size) and (N, 3, global_size, global_size) to logits (N,).

        The sigmoid of the ports is left to the loss.

        Raises:
            ValueError: another size.
        """
        for name, x, size in (
            ("local", local, self.local_size),
            ("whole", whole, self.global_size),
        ):
            if x.dim() != 4 or tuple(checks.sizes(x)[1:]) != (3, size, size):
                raise ValueError(
                    f"glcic.discriminator: {name} must have shape (N, 3, {size}, {size}), "
                    f"got {tuple(x.shape)}"
                )
        y: Tensor = self.fuse(torch.cat([self.local_trunk(local), self.global_trunk(whole)], 1))
        return y.flatten()
