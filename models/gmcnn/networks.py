"""Networks of GMCNN: the columns, the generator that joins them, and the critics."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models.blocks.conv_block import initialise
from inpaint_ops.models.blocks.spectral_norm import spectral

# Layer, output channels in multiples of base_channels, stride, dilation; names that start with "up"
# double the size first, by nearest neighbours.
_TRUNK = (
    ("stem", 1, 1, 1),
    ("down1", 2, 2, 1),
    ("same", 2, 1, 1),
    ("down2", 4, 2, 1),
    ("quarter1", 4, 1, 1),
    ("quarter2", 4, 1, 1),
    ("dilated2", 4, 1, 2),
    ("dilated4", 4, 1, 4),
    ("dilated8", 4, 1, 8),
    ("dilated16", 4, 1, 16),
    ("quarter3", 4, 1, 1),
    ("quarter4", 4, 1, 1),
)
_UP1 = (("up1", 2, 1, 1), ("after_up1", 2, 1, 1))
_UP2 = (("up2", 1, 1, 1), ("after_up2", 1, 1, 1))

# Kernel, layers, and the factor of the bilinear upsampling that ends the column.
_COLUMNS = ((7, _TRUNK, 4), (5, _TRUNK + _UP1, 2), (3, _TRUNK + _UP1 + _UP2, 1))

# Smallest side: reflection by 48 pixels at a quarter of the size needs 49 of them.
MINIMUM = 196


class Column(nn.Sequential):
    """Encoder and decoder of one kernel size, reflection padding, ELU, no normalisation.

    Args:
        number: 0, 1 or 2: kernels of 7, 5 and 3 pixels.
        width: channels of the first layer.
        inputs: channels of the picture and the hole.
    """

    def __init__(self, number: int, width: int, inputs: int = 4) -> None:
        kernel, rows, factor = _COLUMNS[number]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, times, stride, dilation in rows:
            layers[name] = FusedConv2d(
                *(inputs, times * width, kernel, stride, dilation * (kernel // 2), dilation),
                padding_mode="reflect",
                activation="elu",
                upsample=2 if name.startswith("up") else 1,
            )
            inputs = times * width
        super().__init__(layers)
        self.factor = factor
        self.out_channels = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, out_channels, H, W)."""
        x = super().forward(x)
        if self.factor == 1:
            return x
        return F.interpolate(
            x, scale_factor=float(self.factor), mode="bilinear", align_corners=True
        )


class Generator(nn.Module):
    """The three columns side by side, and two convolutions over their joined results.

    Args:
        width: channels of the first layers, a multiple of 2.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        columns = [Column(number, width) for number in range(len(_COLUMNS))]
        self.columns = nn.ModuleList(columns)
        merged, half = sum(column.out_channels for column in columns), width // 2
        self.merge = FusedConv2d(
            merged, half, 3, padding=1, padding_mode="reflect", activation="elu"
        )
        self.to_picture = FusedConv2d(half, 3, 3, padding=1, padding_mode="reflect")
        # The public 0.02 at the public width; narrower networks would start with vanishing signals.
        initialise(self, 0.02 * (32 / width) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Fill a picture.

        Args:
            x: (N, 4, H, W): picture in [-1, 1] with 0 where it is missing, hole (1 = missing);
                sides are multiples of 4 and at least 196.

        Returns:
            (N, 3, H, W) in [-1, 1], known pixels predicted too.

        Raises:
            ValueError: wrong shape.
        """
        shape = checks.sizes(x)
        if x.dim() != 4 or shape[1] != 4 or min(shape[2:]) < MINIMUM:
            raise ValueError(
                f"gmcnn: x must have shape (N, 4, H, W) with sides of at least {MINIMUM}, got "
                f"{tuple(x.shape)}"
            )
        if shape[2] % 4 or shape[3] % 4:
            raise ValueError(
                f"gmcnn: x must have sides that are multiples of 4, got {tuple(x.shape)}; complete "
                "pads"
            )
        y: Tensor = self.merge(torch.cat([column(x) for column in self.columns], 1))
        y = self.to_picture(y)
        return y.clamp(-1, 1)


class Critic(nn.Module):
    """Four convolutions of stride 2 and a linear layer, all spectrally normalised.

    Args:
        width: channels of the first layer.
        size: side of the pictures it takes, in pixels.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        inputs = 3
        for number, times in enumerate((1, 2, 4, 4)):
            layer = FusedConv2d(inputs, times * width, 5, 2, 2, activation="elu")
            self.add_module(f"conv{number}", spectral(layer, always=True))
            inputs = times * width
        self.cells = _cells(size)
        self.linear = spectral(nn.Linear(inputs * self.cells**2, 1), always=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) in [-1, 1] to (N, 1) logits."""
        for number in range(4):
            x = self.get_submodule(f"conv{number}")(x)
        if tuple(checks.sizes(x)[2:]) != (self.cells, self.cells):
            raise ValueError(
                f"gmcnn: critics take pictures of their own size ({self.cells} cells of 16 pixels "
                f"a side), got {tuple(x.shape[2:])} cells; see critic_size and local_size"
            )
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def _cells(size: int) -> int:
    """Return the side of the last map: four halvings that round up."""
    return -(-size // 16)


class GlobalLocalCritic(nn.Module):
    """Two critics of one form: for the picture and for a square of it around the hole."""

    def __init__(self, width: int, size: int, local_size: int) -> None:
        super().__init__()
        self.whole = Critic(width, size)
        self.local = Critic(width, local_size)

    def forward(self, picture: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both, (N, 1) each, for a picture and its square around the hole."""
        return self.whole(picture), self.local(local)
