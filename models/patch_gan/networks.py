"""Networks of the patch-based GAN: a dilated residual generator, a critic of two heads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models.blocks.conv_block import ConvBlock


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))): one of the two 3x3 convolutions may be dilated."""

    def __init__(self, channels: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.first = ConvBlock(channels, channels, 3, padding=first, dilation=first, bias=False)
        self.second = ConvBlock(
            channels,
            channels,
            3,
            padding=second,
            dilation=second,
            bias=False,
            activation="identity",
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        y: Tensor = self.second(self.first(x))
        return x + y


class Generator(nn.Module):
    """Stem, two halvings, dilated residual blocks, two doublings (nearest, then convolved).

    Args:
        in_channels: 3, or 4 with the mask as last channel.
        base_channels: filters of the stem.
        dilations: of the residual blocks.
        dilated: the convolution of a block that has the dilation: "first" (type b of the paper),
            "second" (c) or "none".
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        base_channels: int = 64,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16),
        dilated: str = "first",
    ) -> None:
        super().__init__()
        c = base_channels
        outer: dict[str, Any] = {"padding": 3, "padding_mode": "reflect"}
        self.stem = ConvBlock(in_channels, c, 7, bias=False, **outer)
        self.down = nn.Sequential(
            ConvBlock(c, 2 * c, 3, stride=2, padding=1, bias=False),
            ConvBlock(2 * c, 4 * c, 3, stride=2, padding=1, bias=False),
        )
        pairs = {"first": lambda d: (d, 1), "second": lambda d: (1, d), "none": lambda d: (1, 1)}
        self.middle = nn.Sequential(*(ResidualBlock(4 * c, pairs[dilated](d)) for d in dilations))
        self.up = nn.Sequential(
            ConvBlock(4 * c, 2 * c, 3, padding=1, bias=False, upsample=2),
            ConvBlock(2 * c, c, 3, padding=1, bias=False, upsample=2),
        )
        self.output = FusedConv2d(c, 3, 7, activation="tanh", **outer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] to (N, 3, H, W) in [-1, 1].

        Sides are multiples of 4; others give the next ones.
        """
        y: Tensor = self.output(self.up(self.middle(self.down(self.stem(x)))))
        return y


def _judge(i: int, o: int, stride: int) -> ConvBlock:
    return ConvBlock(i, o, 4, stride=stride, padding=1, bias=False, activation="leaky_relu")


class Discriminator(nn.Module):
    """A trunk for two heads: one logit for the whole picture, one for each patch of 70 pixels.

    Args:
        size: side of the picture, a multiple of 64: the global head ends in a dense layer.
        base_channels: filters of the first layer.
    """

    def __init__(self, *, size: int = 256, base_channels: int = 64) -> None:
        super().__init__()
        if size < 64 or size % 64:
            raise ValueError(f"patch_gan: image_size must be a multiple of 64, got {size}")
        self.size = size
        c = base_channels
        self.trunk = nn.Sequential(
            FusedConv2d(3, c, 4, 2, 1, activation="leaky_relu"),
            _judge(c, 2 * c, 2),
            _judge(2 * c, 4 * c, 2),
        )
        self.patch_head = nn.Sequential(_judge(4 * c, 8 * c, 1), FusedConv2d(8 * c, 1, 4, 1, 1))
        self.global_head = nn.Sequential(
            _judge(4 * c, 8 * c, 2),
            _judge(8 * c, 8 * c, 2),
            _judge(8 * c, 8 * c, 2),
        )
        self.fuse = nn.Linear(8 * c * (size // 64) ** 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) in [-1, 1] to logits: global (N,), patches (N, 1, size/8 - 2, same).

        Raises:
            ValueError: another size.
        """
        if x.dim() != 4 or tuple(checks.sizes(x)[1:]) != (3, self.size, self.size):
            raise ValueError(
                f"patch_gan.discriminator: x must have shape (N, 3, {self.size}, {self.size}), "
                f"got {tuple(x.shape)}"
            )
        shared = self.trunk(x)
        whole: Tensor = self.fuse(self.global_head(shared).contiguous().flatten(1))
        patches: Tensor = self.patch_head(shared)
        return whole.flatten(), patches
